// Arithmetic of a manifest's rules: "0.0047*(N/108e6)^(-1/3)/2". Numbers, named variables,
// + - * / ^ (power binds to the right and before a leading minus), parentheses, and the functions
// sqrt, exp, log (natural), min, max. One walk over the text both parses and evaluates.
#pragma once

#include <map>
#include <set>
#include <string>

namespace convoy {

// Throws an Error that names the column (from 1) of what is wrong; so it does where the value is
// not finite.
double evaluate(const std::string& text, const std::map<std::string, double>& variables);

// Whether the text is an expression over these variables: empty, or what is wrong with it.
std::string problem_of_expression(const std::string& text, const std::set<std::string>& variables);

}  // namespace convoy
