// Files that tests compare with what the code writes today. With CONVOY_UPDATE_GOLDEN=1 in the
// environment a test writes them instead; look at the difference before committing it.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace convoy::test {

inline std::filesystem::path project_file(const std::string& name) {
  return std::filesystem::path(CONVOY_SOURCE_DIR) / name;
}

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline bool updating_golden() { return std::getenv("CONVOY_UPDATE_GOLDEN") != nullptr; }

inline void write_text(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

inline void expect_golden(const std::string& name, const std::string& text) {
  const auto path = project_file(name);
  if (updating_golden()) write_text(path, text);
  EXPECT_EQ(read_text(path), text) << name << ": rerun with CONVOY_UPDATE_GOLDEN=1 if it is meant";
}

}  // namespace convoy::test
