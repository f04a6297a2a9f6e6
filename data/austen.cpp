#include "data/austen.h"

#include <filesystem>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/sha256.h"
#include "data/r_data.h"
#include "data/text_file.h"

namespace convoy {
namespace {

constexpr std::size_t kPieceBytes = 1 << 16;
constexpr std::size_t kShortestNovel = 200;  // shorter texts in the package are no novels
constexpr int kPiecesPerRound = 20, kValidationPiece = 10;

bool is_space(char c) { return std::string_view(" \t\n\r\f\v").find(c) != std::string_view::npos; }

// The lines joined, with exactly four ends of line after the last word.
std::string novel_text(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + '\n';
  const std::size_t begin = text.find_first_not_of('\n');
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of('\n') + 1 - begin) + "\n\n\n\n";
}

// A piece may end before a line that is not indented and follows an empty one.
bool starts_paragraph(std::string_view text, std::size_t at) {
  return text[at - 1] == '\n' && text[at - 2] == '\n' && !is_space(text[at]);
}

std::vector<std::string_view> pieces_of(std::string_view novel) {
  std::vector<std::string_view> pieces;
  std::size_t begin = 0;
  for (std::size_t at = kPieceBytes; at < novel.size(); ++at)
    if (at - begin >= kPieceBytes && starts_paragraph(novel, at)) {
      pieces.push_back(novel.substr(begin, at - begin));
      begin = at;
    }
  pieces.push_back(novel.substr(begin));
  return pieces;
}

}  // namespace

AustenReport write_austen_corpus(const std::string& package, const std::string& output) {
  const std::string data = package + "/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb";
  if (!std::filesystem::exists(data))
    throw Error(concat("there is no ", data, "; unpack r-cran-janeaustenr with `dpkg-deb -x FILE ",
                       package, "`"));
  std::string train, val;
  int piece_number = 0;
  for (const auto& lines : read_r_character_vectors(data)) {
    const std::string novel = novel_text(lines);
    if (novel.size() < kShortestNovel) continue;
    for (const std::string_view piece : pieces_of(novel))
      (++piece_number % kPiecesPerRound == kValidationPiece ? val : train) += piece;
  }
  std::filesystem::create_directories(output);
  write_text_file(output + "/austen.train.txt", train);
  write_text_file(output + "/austen.val.txt", val);
  return {std::ssize(train), std::ssize(val), sha256_of(train), sha256_of(val)};
}

}  // namespace convoy
