// The text format of tiktoken: a line per token, "<bytes in base64> <rank>". Ranks are token ids
// and at the same time the order of merging. The format has no place for the expression that cuts
// text into pieces, which therefore lies beside it in FILE.pattern.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace convoy {

// The bytes of each token by rank. Errors name `where` and the line: not base64, no rank, a rank
// or token that occurs twice, ranks that are not 0 .. n-1, a single byte that has no token.
std::vector<std::string> parse_ranks(std::string_view text, std::string_view where);

std::string format_ranks(std::span<const std::string> tokens);

}  // namespace convoy
