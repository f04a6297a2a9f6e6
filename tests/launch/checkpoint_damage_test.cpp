#include <algorithm>
#include <random>

#include "tests/launch/checkpoint_fixture.h"

namespace convoy::test {
namespace {

namespace fs = std::filesystem;

class CheckpointDamage : public testing::Test {
 protected:
  CheckpointDamage() {
    const auto backend = make_cpu_backend(NumericsMode::fast);
    CheckpointWriter writer(*backend, {folder_.path(), 2, false});
    SmallModel model(9);
    writer.save(9, texts_of(9), model.records());
  }
  fs::path place() const { return folder_.path() / "step_00000009"; }

  TemporaryFolder folder_;
};

char flip(const fs::path& file, std::int64_t offset, char change) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(offset);
  const char old = static_cast<char>(stream.get());
  stream.seekp(offset);
  stream.put(static_cast<char>(old ^ change));
  return old;
}

// The tensor whose bytes include `offset` of a file, by the manifest; empty where none does.
std::string tensor_at(const Manifest& manifest, const std::string& file, std::int64_t offset) {
  for (const auto& t : manifest.tensors) {
    for (const auto& p : t.pieces) {
      if (p.file == file && offset >= p.offset && offset < p.offset + p.bytes) return t.name;
    }
  }
  return "";
}

TEST_F(CheckpointDamage, EveryFlippedByteOfAnyFileIsFoundAndNamed) {
  const Manifest manifest = Manifest::read(place());
  std::vector<fs::path> files;
  std::int64_t total = 0;
  for (const auto& entry : fs::directory_iterator(place())) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  for (const auto& file : files) total += static_cast<std::int64_t>(fs::file_size(file));
  std::mt19937_64 random(1);
  int in_tensors = 0;
  for (int i = 0; i < 200; ++i) {
    auto offset = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(total));
    auto file = files.begin();
    while (offset >= static_cast<std::int64_t>(fs::file_size(*file))) {
      offset -= static_cast<std::int64_t>(fs::file_size(*file++));
    }
    const auto change = static_cast<char>(1 + random() % 255);
    flip(*file, offset, change);
    const auto problems = verify_checkpoint(place());
    flip(*file, offset, change);
    const std::string name = file->filename().string();
    const std::string tensor = tensor_at(manifest, name, offset);
    ASSERT_EQ(problems.size(), 1u) << name << " byte " << offset;
    EXPECT_NE(problems[0].find(name), std::string::npos) << problems[0];
    EXPECT_NE(problems[0].find(tensor), std::string::npos) << problems[0];
    in_tensors += tensor.empty() ? 0 : 1;
  }
  EXPECT_GT(in_tensors, 5);  // the draw reached tensors too
  EXPECT_TRUE(verify_checkpoint(place()).empty());
}

TEST_F(CheckpointDamage, MissingExtraAndShortFilesAreNamed) {
  std::ofstream(place() / "stranger") << "?";
  fs::remove(place() / "config.toml");
  fs::resize_file(place() / "state.json", 3);
  const auto problems = verify_checkpoint(place());
  std::string text;
  for (const auto& p : problems) text += p + "\n";
  EXPECT_EQ(problems.size(), 3u) << text;
  for (const char* part :
       {"stranger does not belong", "config.toml is missing", "state.json has 3"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in " << text;
  }
}

// Not a draw: every byte of the small files and every fifth of the tensors' file, one bit each.
TEST_F(CheckpointDamage, NoByteOfAnyFileIsUnguarded) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(place())) files.push_back(entry.path());
  ASSERT_EQ(files.size(), 4u);
  for (const auto& file : files) {
    const auto bytes = static_cast<std::int64_t>(fs::file_size(file));
    const int stride = file.extension() == ".h5" ? 5 : 1;
    for (std::int64_t offset = 0; offset < bytes; offset += stride) {
      const auto change = static_cast<char>(1 << offset % 8);
      flip(file, offset, change);
      ASSERT_FALSE(verify_checkpoint(place()).empty()) << file << " byte " << offset;
      flip(file, offset, change);
    }
  }
  EXPECT_TRUE(verify_checkpoint(place()).empty());
}

TEST_F(CheckpointDamage, ATruncatedFileNamesTheTensorsThatItLost) {
  const Manifest manifest = Manifest::read(place());
  const auto last = std::max_element(
      manifest.tensors.begin(), manifest.tensors.end(),
      [](const auto& a, const auto& b) { return a.pieces[0].offset < b.pieces[0].offset; });
  const auto end = last->pieces[0].offset + last->pieces[0].bytes;
  fs::resize_file(place() / "shard_00000.h5", static_cast<std::uintmax_t>(end - 1));
  const auto problems = verify_checkpoint(place());
  ASSERT_EQ(problems.size(), 2u);
  EXPECT_NE(problems[0].find("shard_00000.h5 has"), std::string::npos) << problems[0];
  EXPECT_NE(problems[1].find(last->name), std::string::npos) << problems[1];
}

TEST_F(CheckpointDamage, AFolderInPlaceOfAFileIsAProblemAmongOthers) {
  fs::remove(place() / "state.json");
  fs::create_directory(place() / "state.json");
  fs::remove(place() / "config.toml");
  EXPECT_EQ(verify_checkpoint(place()).size(), 2u);
}

}  // namespace
}  // namespace convoy::test
