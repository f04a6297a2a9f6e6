#include "tests/experiments/xml_check.h"

#include <regex>
#include <set>
#include <vector>

#include "core/error.h"

namespace convoy::testing {
namespace {

std::string entity_fault(const std::string& text) {
  static const std::regex kEntity("&(?:amp|lt|gt|quot|#39);");
  const std::string rest = std::regex_replace(text, kEntity, "");
  return rest.find_first_of("&>") == std::string::npos ? "" : "a bare & or > in \"" + text + "\"";
}

std::string attribute_fault(const std::string& attributes) {
  static const std::regex kAttribute(R"re(\s+([\w:-]+)="([^"<]*)")re");
  std::set<std::string> names;
  std::size_t matched = 0;
  for (std::sregex_iterator at(attributes.begin(), attributes.end(), kAttribute), end; at != end;
       ++at) {
    matched += static_cast<std::size_t>(at->length());
    if (!names.insert((*at)[1]).second) return "attribute " + (*at)[1].str() + " twice";
    if (const auto fault = entity_fault((*at)[2]); !fault.empty()) return fault;
  }
  return matched == attributes.size() ? "" : "malformed attributes:" + attributes;
}

}  // namespace

std::string xml_fault(const std::string& text) {
  static const std::regex kTag(R"re(^<(/?)([\w:-]+)([^<]*?)(/?)>$)re");
  std::vector<std::string> open;
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t begin = text.find('<', at);
    const std::string between = text.substr(at, begin - at);
    if (const auto fault = entity_fault(between); !fault.empty()) return fault;
    if (begin == std::string::npos) break;
    const std::size_t end = text.find('>', begin);
    if (end == std::string::npos) return concat("a tag at byte ", begin, " is not closed");
    const std::string tag = text.substr(begin, end - begin + 1);
    at = end + 1;
    std::smatch parts;
    if (!std::regex_match(tag, parts, kTag)) return "malformed tag " + tag;
    if (const auto fault = attribute_fault(parts[3]); !fault.empty()) return fault;
    if (parts[1].length() > 0) {
      if (open.empty() || open.back() != parts[2]) return "unexpected " + tag;
      open.pop_back();
    } else if (parts[4].length() == 0) {
      open.push_back(parts[2]);
    }
  }
  return open.empty() ? "" : "<" + open.back() + "> is never closed";
}

}  // namespace convoy::testing
