// How the report writes numbers and quotes text. One place, so that the table, the charts and the
// page agree.
#pragma once

#include <string>
#include <string_view>

namespace convoy {

// 3997696 -> "3,997,696".
std::string grouped(long long value);

// 2.3117e13 -> "2.31e13"; a value that is not finite -> "-".
std::string scientific(double value);

// Fixed decimals; a value that is not finite -> "-".
std::string fixed(double value, int decimals);

// fixed() with its sign always written, for differences.
std::string signed_fixed(double value, int decimals);

// Number of characters seen on the screen (code points of UTF-8).
std::size_t display_width(std::string_view text);

// & < > " ' as entities; control characters, which XML forbids, become spaces.
std::string escape_xml(std::string_view text);

}  // namespace convoy
