#include "data/austen.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <filesystem>

#include "core/sha256.h"
#include "data/r_data.h"
#include "data/text_file.h"
#include "tests/data/fixtures.h"

namespace convoy {
namespace {

std::string big_endian(std::uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift & 255u);
  return bytes;
}

// A character vector as R 3.5 and later serialise it.
std::string serialised(const std::vector<std::string>& lines, std::uint32_t type = 16) {
  std::string object = "X\n" + big_endian(3) + big_endian(0x00040201) + big_endian(0x00030500) +
                       big_endian(5) + "UTF-8" + big_endian(type) +
                       big_endian(static_cast<std::uint32_t>(lines.size()));
  for (const std::string& line : lines)
    object += big_endian(0x00040009) + big_endian(static_cast<std::uint32_t>(line.size())) + line;
  return object;
}

std::string chunk(const std::string& object) {
  uLongf size = compressBound(object.size());
  std::string compressed(size, '\0');
  compress(reinterpret_cast<Bytef*>(compressed.data()), &size,
           reinterpret_cast<const Bytef*>(object.data()), object.size());
  compressed.resize(size);
  return big_endian(static_cast<std::uint32_t>(object.size())) + compressed;
}

TEST(RData, ReadsEveryCharacterVector) {
  const TemporaryFolder folder;
  const std::vector<std::string> first{"one", "", "three"}, second{"Ελλάδα"};
  write_text_file(folder / "d.rdb", chunk(serialised(first)) + chunk(serialised(second)));
  EXPECT_EQ(read_r_character_vectors(folder / "d.rdb"),
            (std::vector<std::vector<std::string>>{first, second}));
}

TEST(RData, RefusesWhatItDoesNotUnderstand) {
  const TemporaryFolder folder;
  const auto expect_refused = [&](std::string_view message, const std::string& bytes) {
    write_text_file(folder / "d.rdb", bytes);
    expect_error(message, [&] { read_r_character_vectors(folder / "d.rdb"); });
  };
  const std::string good = chunk(serialised({"one", "two"}));
  expect_refused("an object of another type", chunk(serialised({}, 14)));
  expect_refused("not in XDR form", chunk("A\nsomething else"));
  expect_refused("does not decompress", good.substr(0, good.size() - 3));
  expect_refused("ends early", good + "ab");
  const std::string object = serialised({"one", "two"});
  expect_refused("ends early", chunk(object.substr(0, object.size() - 2)));
}

// A novel of 45 paragraphs of 33 lines. Two and a little make a piece of 64 KiB or more.
TEST(Austen, GivesOnePieceInTwentyToValidation) {
  const TemporaryFolder folder;
  std::vector<std::string> novel{"", ""};
  std::string text;
  for (int paragraph = 0; paragraph < 45; ++paragraph) {
    for (int line = 0; line < 33; ++line)
      novel.push_back(concat(paragraph, ' ', std::string(996, 'x')));
    novel.push_back("");
  }
  for (std::size_t i = 2; i < novel.size(); ++i) text += novel[i] + '\n';
  text += "\n\n";  // a novel ends with its last line and three empty ones

  const std::string data = folder / "usr/lib/R/site-library/janeaustenr/data";
  std::filesystem::create_directories(data);
  write_text_file(data + "/Rdata.rdb", chunk(serialised(novel)));
  const AustenReport report = write_austen_corpus(folder / ".", folder / "out");

  const std::string train = read_text_file(folder / "out/austen.train.txt");
  const std::string val = read_text_file(folder / "out/austen.val.txt");
  EXPECT_EQ(val.substr(0, 3), "18 ");  // the tenth piece: paragraphs 18 and 19
  EXPECT_EQ(val.size(), text.find("\n20 ") - text.find("\n18 "));
  EXPECT_EQ(train.substr(0, text.find("\n18 ") + 1) + val + train.substr(text.find("\n18 ") + 1),
            text);
  EXPECT_EQ(report.train_sha256, sha256_of(train));
  EXPECT_EQ(report.val_bytes, std::ssize(val));
}

TEST(Austen, SaysHowToUnpackThePackage) {
  const TemporaryFolder folder;
  expect_error("dpkg-deb -x", [&] { write_austen_corpus(folder / ".", folder / "out"); });
}

}  // namespace
}  // namespace convoy
