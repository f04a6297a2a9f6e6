#include "experiments/fit/csv.h"

#include <algorithm>

#include "core/error.h"

namespace convoy {
namespace {

// The separator that stands most often in the first line, outside quotes; a comma where none does.
char find_separator(std::string_view text) {
  char best = ',';
  std::ptrdiff_t most = 0;
  for (const char candidate : {',', ';', '\t'}) {
    std::ptrdiff_t count = 0;
    bool quoted = false;
    for (const char c : text) {
      if (c == '"') quoted = !quoted;
      if (c == '\n' && !quoted) break;
      if (c == candidate && !quoted) ++count;
    }
    if (count > most) best = candidate;
    most = std::max(most, count);
  }
  return best;
}

class Parser {
 public:
  Parser(std::string_view text, std::string name)
      : text_(text), name_(std::move(name)), separator_(find_separator(text)) {}

  std::vector<CsvRow> rows() {
    std::vector<CsvRow> rows;
    while (at_ < text_.size()) {
      CsvRow row = read_row();
      const bool blank = row.cells.size() == 1 && row.cells[0].empty();
      if (!blank) rows.push_back(std::move(row));
    }
    return rows;
  }

 private:
  CsvRow read_row() {
    CsvRow row{.line = line_};
    while (true) {
      row.cells.push_back(at_ < text_.size() && text_[at_] == '"' ? read_quoted() : read_plain());
      if (at_ < text_.size() && text_[at_] == separator_) {
        ++at_;
        continue;
      }
      skip_line_end();
      return row;
    }
  }

  bool at_line_end() const {
    if (at_ >= text_.size() || text_[at_] == '\n') return true;
    return text_[at_] == '\r' && (at_ + 1 == text_.size() || text_[at_ + 1] == '\n');
  }

  void skip_line_end() {
    if (at_ < text_.size() && text_[at_] == '\r') ++at_;
    if (at_ < text_.size()) ++at_;
    ++line_;
  }

  std::string read_plain() {
    const std::size_t start = at_;
    while (!at_line_end() && text_[at_] != separator_) ++at_;
    return std::string(text_.substr(start, at_ - start));
  }

  std::string read_quoted() {
    const int opened = line_;
    std::string cell;
    for (++at_; at_ < text_.size(); ++at_) {
      if (text_[at_] == '\n') ++line_;
      if (text_[at_] != '"') {
        cell += text_[at_];
        continue;
      }
      const bool doubled = at_ + 1 < text_.size() && text_[at_ + 1] == '"';
      if (!doubled) return close_quote(std::move(cell));
      cell += '"';
      ++at_;
    }
    throw Error(concat(name_, ", line ", opened, ": this quote is never closed"));
  }

  std::string close_quote(std::string cell) {
    ++at_;
    if (!at_line_end() && text_[at_] != separator_)
      throw Error(concat(name_, ", line ", line_, ": \"", cell,
                         "\" is followed by text: a quote inside a quoted cell is written twice"));
    return cell;
  }

  std::string_view text_;
  std::string name_;
  char separator_;
  std::size_t at_ = 0;
  int line_ = 1;
};

}  // namespace

std::vector<CsvRow> parse_csv(std::string_view text, const std::string& name) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  return Parser(text, name).rows();
}

}  // namespace convoy
