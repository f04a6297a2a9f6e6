// Is this text well-formed XML, as far as the project's own writers use it?
#pragma once

#include <string>

namespace convoy::testing {

// Empty where the text is well formed; otherwise what is wrong and where. Checks that tags nest,
// that attributes are quoted and appear once, and that only the five known entities occur.
std::string xml_fault(const std::string& text);

}  // namespace convoy::testing
