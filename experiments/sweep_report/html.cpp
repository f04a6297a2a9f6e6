#include "experiments/sweep_report/html.h"

#include <fmt/format.h>

#include "experiments/text_format.h"

namespace convoy {
namespace {

constexpr std::size_t kLongestNumber = 28;  // characters; longer cells are sentences and wrap

}  // namespace

std::string section(const std::string& id, const std::string& heading, const std::string& body) {
  return fmt::format("<section id=\"{}\">\n<h2>{}</h2>\n{}</section>\n", escape_xml(id),
                     escape_xml(heading), body);
}

std::string paragraph(const std::string& text) { return "<p>" + escape_xml(text) + "</p>\n"; }

std::string quiet(const std::string& text) {
  return "<p class=\"quiet\">" + escape_xml(text) + "</p>\n";
}

std::string missing(const std::string& text) {
  return "<p class=\"missing\">" + escape_xml(text) + "</p>\n";
}

std::string bullets(const std::vector<std::string>& lines) {
  std::string items;
  for (const std::string& line : lines) items += "<li>" + escape_xml(line) + "</li>\n";
  return items.empty() ? "" : "<ul>\n" + items + "</ul>\n";
}

std::string html_table(const TextTable& table) {
  std::string out = "<div class=\"scroll\"><table>\n<thead><tr>";
  for (const std::string& heading : table.headings) out += "<th>" + escape_xml(heading) + "</th>";
  out += "</tr></thead>\n<tbody>\n";
  for (const auto& row : table.rows) {
    out += "<tr>";
    for (const std::string& cell : row)
      out += (display_width(cell) > kLongestNumber ? "<td class=\"words\">" : "<td>") +
             escape_xml(cell) + "</td>";
    out += "</tr>\n";
  }
  return out + "</tbody>\n</table></div>\n";
}

}  // namespace convoy
