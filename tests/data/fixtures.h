// What the tests of data share: a folder that vanishes, reproducible bytes, small token files, and
// the message of an Error.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "data/token_file_writer.h"

namespace convoy {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "convoy_XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string operator/(std::string_view name) const { return (path_ / name).string(); }
  std::ptrdiff_t entries() const {
    return std::distance(std::filesystem::directory_iterator(path_), {});
  }

 private:
  std::filesystem::path path_;
};

// `size` bytes; all values occur, or only the `alphabet`'s.
inline std::string random_text(std::size_t size, std::string_view alphabet = {},
                               std::uint64_t seed = 1) {
  const RandomStream random(seed, "test text");
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) {
    const std::uint32_t bits = random.bits(i)[0];
    text[i] = alphabet.empty() ? static_cast<char>(bits & 255u) : alphabet[bits % alphabet.size()];
  }
  return text;
}

inline void write_token_file(const std::string& path, const Tokenizer& tokenizer,
                             const std::vector<std::vector<std::int32_t>>& documents) {
  TokenFileWriter writer(path, tokenizer);
  for (const auto& document : documents) writer.add_document(document);
  writer.finish("sum");
}

inline std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

// EXPECT_THAT(message, HasSubstr(part)) without depending on gmock.
inline void expect_error(std::string_view part, const std::function<void()>& action) {
  const std::string message = error_of(action);
  EXPECT_NE(message.find(part), std::string::npos) << "in: " << message << "\nmissing: " << part;
}

}  // namespace convoy
