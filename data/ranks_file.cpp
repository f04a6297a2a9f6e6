#include "data/ranks_file.h"

#include <array>
#include <charconv>
#include <cstdint>
#include <optional>
#include <unordered_set>

#include "core/error.h"

namespace convoy {
namespace {

constexpr std::string_view kBase64 =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

std::string to_base64(std::string_view bytes) {
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t taken = std::min<std::size_t>(3, bytes.size() - i);
    std::uint32_t group = 0;
    for (std::size_t k = 0; k < 3; ++k)
      group = group << 8 | (k < taken ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    for (std::size_t k = 0; k < 4; ++k)
      text += k <= taken ? kBase64[group >> (18 - 6 * k) & 63u] : '=';
  }
  return text;
}

std::optional<std::string> from_base64(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0) return std::nullopt;
  while (text.ends_with('=') && text.size() % 4 != 2) text.remove_suffix(1);
  std::string bytes;
  std::uint32_t pending = 0;
  int bits = 0;
  for (const char letter : text) {
    const std::size_t value = kBase64.find(letter);
    if (value == std::string_view::npos) return std::nullopt;
    pending = pending << 6 | static_cast<std::uint32_t>(value);
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes += static_cast<char>(pending >> bits & 255u);
  }
  return bytes;
}

struct RankLine {
  std::string token;
  std::size_t rank;
};

RankLine parse_line(std::string_view line, std::string_view place) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  const std::size_t space = line.find(' ');
  const auto token = from_base64(line.substr(0, space));
  if (!token) throw Error(concat(place, ": '", line.substr(0, space), "' is not base64"));
  if (space == std::string_view::npos)
    throw Error(concat(place, ": no rank; a line is '<base64> <rank>'"));
  const std::string_view digits = line.substr(space + 1);
  std::size_t rank = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
  if (error != std::errc{} || end != digits.data() + digits.size())
    throw Error(concat(place, ": '", digits, "' is not a rank"));
  return {*token, rank};
}

void require_every_byte(const std::unordered_set<std::string>& tokens, std::string_view where) {
  for (int byte = 0; byte < 256; ++byte)
    if (!tokens.contains(std::string(1, static_cast<char>(byte))))
      throw Error(
          concat(where, ": byte ", byte, " has no token, so not every text can be encoded"));
}

}  // namespace

std::vector<std::string> parse_ranks(std::string_view text, std::string_view where) {
  std::vector<RankLine> lines;
  std::unordered_set<std::string> seen;
  std::size_t number = 0;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    if (line.empty() || line == "\r") continue;
    const std::string place = concat(where, ", line ", number);
    lines.push_back(parse_line(line, place));
    if (!seen.insert(lines.back().token).second)
      throw Error(concat(place, ": this token occurs a second time"));
  }
  std::vector<std::string> tokens(lines.size());
  for (RankLine& line : lines) {
    if (line.rank >= tokens.size())
      throw Error(concat(where, ": rank ", line.rank, " among ", tokens.size(),
                         " tokens; ranks must be 0 to ", tokens.size() - 1));
    if (!tokens[line.rank].empty())
      throw Error(concat(where, ": rank ", line.rank, " occurs a second time"));
    tokens[line.rank] = std::move(line.token);
  }
  require_every_byte(seen, where);
  return tokens;
}

std::string format_ranks(std::span<const std::string> tokens) {
  std::string text;
  for (std::size_t rank = 0; rank < tokens.size(); ++rank)
    text += concat(to_base64(tokens[rank]), ' ', rank, '\n');
  return text;
}

}  // namespace convoy
