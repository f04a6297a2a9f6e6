// The style sheet and the script of the page, as built into the program from style.css and
// plots.js.
#pragma once

#include <string_view>

namespace convoy {

std::string_view report_style();
std::string_view report_script();

}  // namespace convoy
