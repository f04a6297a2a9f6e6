#include "core/matmul_choices.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "core/error.h"

namespace convoy {
namespace {

// A file that is gone again when the test is over.
class TableFile {
 public:
  explicit TableFile(const std::string& name)
      : path_(std::filesystem::temp_directory_path() / ("convoy_" + name + ".txt")) {}
  ~TableFile() { std::filesystem::remove(path_); }
  std::string path() const { return path_.string(); }
  void fill(const std::string& text) const { std::ofstream(path_) << text; }

 private:
  std::filesystem::path path_;
};

std::string message_of(const std::string& path) {
  try {
    MatmulChoices::read(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(MatmulChoices, AreReadAsTheyWereWritten) {
  MatmulChoices choices;
  const std::string one = MatmulChoices::key("Card 80GB", "Lib 1", "8 9 10"),
                    other = MatmulChoices::key("Card 80GB", "Lib 2", "8 9 10");
  choices.set(one, {"00ff", 12.5e-6, 13e-6});
  choices.set(other, {"11", 1e-3, 2e-3});
  const TableFile file("matmul_choices");
  choices.write(file.path());
  const MatmulChoices read = MatmulChoices::read(file.path());
  ASSERT_EQ(read.all().size(), 2u);
  ASSERT_NE(read.find(one), nullptr);
  EXPECT_EQ(read.find(one)->algorithm, "00ff");
  EXPECT_NEAR(read.find(one)->seconds, 12.5e-6, 1e-15);
  EXPECT_EQ(read.find(other)->algorithm, "11");
  EXPECT_EQ(read.find(MatmulChoices::key("Card", "Lib 1", "8 9 10")), nullptr);
}

TEST(MatmulChoices, WhatIsNoTableIsRefusedByName) {
  const TableFile file("matmul_choices_bad");
  EXPECT_NE(message_of("/no/such/table").find("/no/such/table cannot be read"), std::string::npos);
  file.fill("something else\n");
  EXPECT_NE(message_of(file.path()).find("is no table of matmul choices"), std::string::npos);
  file.fill("# convoy matmul choices 1\na\tb\tc\n");
  EXPECT_NE(message_of(file.path()).find(":2 has 3 fields"), std::string::npos);
  file.fill("# convoy matmul choices 1\n\na\tb\tc\td\t1\tsoon\n");
  EXPECT_NE(message_of(file.path()).find(":3: \"soon\" is not a time"), std::string::npos);
}

}  // namespace
}  // namespace convoy
