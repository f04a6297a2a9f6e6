#include "experiments/manifest/expression.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "core/error.h"
#include "launch/nearest_name.h"

namespace convoy {
namespace {

const std::map<std::string, std::size_t> kArguments = {
    {"sqrt", 1}, {"exp", 1}, {"log", 1}, {"min", 2}, {"max", 2}};

double value_of(const std::string& name, const std::vector<double>& a) {
  if (name == "sqrt") return std::sqrt(a[0]);
  if (name == "exp") return std::exp(a[0]);
  if (name == "log") return std::log(a[0]);
  return name == "min" ? std::min(a[0], a[1]) : std::max(a[0], a[1]);
}

// Recursive descent: sum > product > minus > power > atom.
class Walk {
 public:
  Walk(const std::string& text, const std::map<std::string, double>& variables)
      : text_(text), variables_(variables) {}

  double run() {
    const double value = sum();
    if (at_ < text_.size()) fail(at_, concat("'", text_[at_], "' is not expected here"));
    return value;
  }

 private:
  [[noreturn]] void fail(std::size_t at, const std::string& what) const {
    throw Error(concat("\"", text_, "\", column ", at + 1, ": ", what));
  }

  char peek() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_])) != 0) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(char c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }

  double sum() {
    double value = product();
    for (;;) {
      if (take('+')) {
        value += product();
      } else if (take('-')) {
        value -= product();
      } else {
        return value;
      }
    }
  }

  double product() {
    double value = signed_power();
    for (;;) {
      if (take('*')) {
        value *= signed_power();
      } else if (take('/')) {
        value /= signed_power();
      } else {
        return value;
      }
    }
  }

  double signed_power() {
    if (take('-')) return -signed_power();
    const double base = atom();
    return take('^') ? std::pow(base, signed_power()) : base;
  }

  double atom() {
    const char c = peek();
    if (take('(')) return closed(sum());
    if (std::isdigit(static_cast<unsigned char>(c)) != 0 || c == '.') return number();
    if (std::isalpha(static_cast<unsigned char>(c)) != 0) return named();
    fail(at_, at_ < text_.size() ? concat("'", c, "' is not a number, a name or '('")
                                 : "the expression ends where a value is expected");
  }

  double closed(double value) {
    if (!take(')')) fail(at_, "')' is missing");
    return value;
  }

  double number() {
    const char* begin = text_.c_str() + at_;
    char* end = nullptr;
    const double value = std::strtod(begin, &end);
    if (end == begin) fail(at_, "a number is expected");
    at_ += static_cast<std::size_t>(end - begin);
    return value;
  }

  double named() {
    const std::size_t begin = at_;
    while (at_ < text_.size() &&
           (std::isalnum(static_cast<unsigned char>(text_[at_])) != 0 || text_[at_] == '_')) {
      ++at_;
    }
    const std::string name = text_.substr(begin, at_ - begin);
    if (kArguments.contains(name)) return call(name, begin);
    const auto variable = variables_.find(name);
    if (variable == variables_.end()) fail(begin, unknown(name));
    return variable->second;
  }

  double call(const std::string& name, std::size_t begin) {
    if (!take('(')) fail(at_, concat("'(' is missing after ", name));
    std::vector<double> arguments = {sum()};
    while (take(',')) arguments.push_back(sum());
    closed(0);
    const std::size_t wanted = kArguments.at(name);
    if (arguments.size() != wanted) {
      fail(begin, concat(name, " takes ", wanted, " value", wanted == 1 ? "" : "s", ", not ",
                         arguments.size()));
    }
    return value_of(name, arguments);
  }

  std::string unknown(const std::string& name) const {
    std::set<std::string> known;
    for (const auto& [function, count] : kArguments) known.insert(function);
    for (const auto& [variable, value] : variables_) known.insert(variable);
    return concat(name, " is not known; did you mean ", nearest_name(name, known), "?");
  }

  const std::string& text_;
  const std::map<std::string, double>& variables_;
  std::size_t at_ = 0;
};

}  // namespace

double evaluate(const std::string& text, const std::map<std::string, double>& variables) {
  const double value = Walk(text, variables).run();
  if (!std::isfinite(value)) throw Error(concat("\"", text, "\" gives ", value));
  return value;
}

std::string problem_of_expression(const std::string& text, const std::set<std::string>& variables) {
  std::map<std::string, double> values;
  for (const auto& name : variables) values[name] = 1;
  try {
    Walk(text, values).run();  // the value at 1 says nothing: only the form is judged
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

}  // namespace convoy
