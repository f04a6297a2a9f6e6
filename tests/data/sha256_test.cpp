#include "core/sha256.h"

#include <gtest/gtest.h>

#include "data/text_file.h"
#include "tests/data/fixtures.h"

namespace convoy {
namespace {

constexpr std::string_view kSumOfAbc =
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";  // FIPS 180-2, B.1

TEST(Sha256, GivesThePublishedSums) {
  EXPECT_EQ(sha256_of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_of("abc"), kSumOfAbc);
}

TEST(Sha256, DoesNotDependOnHowTheBytesArrive) {
  Sha256 sum;
  sum.update("a");
  sum.update("");
  sum.update("bc");
  EXPECT_EQ(sum.hex(), kSumOfAbc);
}

TEST(Sha256, OfAFileIsThatOfItsBytes) {
  const TemporaryFolder folder;
  const std::string text = random_text((std::size_t{1} << 20) + 17);
  write_text_file(folder / "file", text);
  EXPECT_EQ(sha256_of_file(folder / "file"), sha256_of(text));
  expect_error("cannot open", [&] { sha256_of_file(folder / "absent"); });
}

}  // namespace
}  // namespace convoy
