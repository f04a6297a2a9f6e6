#include "core/hdf5.h"
#include "core/sha256.h"
#include "tests/launch/checkpoint_fixture.h"

namespace convoy::test {
namespace {

namespace fs = std::filesystem;

class CheckpointTest : public testing::Test {
 protected:
  void save(CheckpointWriter& writer, std::int64_t step) {
    SmallModel model(step);
    writer.save(step, texts_of(step), model.records());
    model.set(-99);  // the snapshot must not see this
  }
  CheckpointWriter writer(std::int64_t keep = 2, bool async = true) {
    return {*backend_, {root(), keep, async}};
  }
  fs::path root() const { return folder_.path() / "checkpoints"; }
  std::vector<std::string> visible() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(root())) {
      names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  TemporaryFolder folder_;
  std::unique_ptr<Backend> backend_ = make_cpu_backend(NumericsMode::fast);
};

template <class Function>
std::string message_of(Function function) {
  try {
    function();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

TEST_F(CheckpointTest, WhatIsSavedIsReadBackFromAnyNameOfIt) {
  auto w = writer();
  save(w, 12);
  w.finish();
  for (const fs::path& path : {root() / "step_00000012", root(), folder_.path()}) {
    const auto checkpoint = Checkpoint::open(path);
    expect_consistent(checkpoint);
    EXPECT_EQ(checkpoint.parameters(), 67);
  }
  EXPECT_TRUE(verify_checkpoint(root() / "step_00000012").empty());
}

TEST_F(CheckpointTest, ARangeOfElementsIsReadAlone) {
  auto w = writer();
  save(w, 3);
  w.finish();
  std::vector<float> part(20);
  Checkpoint::open(root()).read("parameters/a.weight", 11,
                                Tensor(part.data(), DType::f32, DeviceKind::cpu, {20}));
  const SmallModel expected(3);
  for (std::size_t i = 0; i < 20; ++i) EXPECT_EQ(part[i], expected.weight[11 + i]);
}

TEST_F(CheckpointTest, TheNewestAreKeptAndLatestNamesTheNewest) {
  auto w = writer(2);
  for (const std::int64_t step : {1, 2, 3, 40}) save(w, step);
  w.finish();
  EXPECT_EQ(visible(), (std::vector<std::string>{"latest", "step_00000003", "step_00000040"}));
  EXPECT_EQ(fs::read_symlink(root() / "latest"), "step_00000040");
}

TEST_F(CheckpointTest, PinnedStepsStayBesideTheNewest) {
  SmallModel model;
  CheckpointWriter writer(*backend_, {root(), 2, true, {1, 3}});
  for (std::int64_t step = 1; step <= 6; ++step) {
    model.set(step);
    writer.save(step, texts_of(step), model.records());
  }
  writer.finish();
  std::vector<std::int64_t> steps;
  for (std::int64_t step = 1; step <= 6; ++step) {
    if (std::filesystem::exists(root() / checkpoint_name(step))) steps.push_back(step);
  }
  EXPECT_EQ(steps, (std::vector<std::int64_t>{1, 3, 5, 6}));
  expect_consistent(Checkpoint::open(root() / checkpoint_name(3)));
}

TEST_F(CheckpointTest, SynchronousAndAsynchronousWritesAgree) {
  auto a = writer(5, true);
  save(a, 7);
  a.finish();
  const auto asynchronous = Manifest::read(root() / "step_00000007");
  fs::remove_all(root());
  auto b = writer(5, false);
  save(b, 7);
  const auto synchronous = Manifest::read(root() / "step_00000007");
  ASSERT_EQ(synchronous.tensors.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(synchronous.tensors[i].pieces[0].sha256, asynchronous.tensors[i].pieces[0].sha256);
  }
}

TEST_F(CheckpointTest, TheSameStepMayBeSavedAgain) {
  auto w = writer();
  save(w, 5);
  save(w, 5);
  w.finish();
  expect_consistent(Checkpoint::open(root()));
  EXPECT_EQ(visible(), (std::vector<std::string>{"latest", "step_00000005"}));
}

TEST_F(CheckpointTest, LeftoversOfAKilledWriterAreReplaced) {
  for (const char* name :
       {".step_00000005.partial", ".step_00000009.partial", ".step_00000004.old"}) {
    fs::create_directories(root() / name);
    std::ofstream(root() / name / "junk") << "half";
  }
  auto w = writer();
  save(w, 5);
  w.finish();
  EXPECT_TRUE(verify_checkpoint(root() / "step_00000005").empty());
  EXPECT_EQ(visible(), (std::vector<std::string>{"latest", "step_00000005"}));
}

// Two writers' halves of one tensor, as several ranks will write them.
TEST_F(CheckpointTest, ATensorInPiecesIsReadAcrossThemAndMustBeWhole) {
  const SmallModel model(4);
  Manifest manifest{4, {}, {{"parameters/a.weight", DType::f32, {4, 15}, {}}}};
  fs::create_directories(root() / "step_00000004");
  for (const std::int64_t first : {0, 25}) {
    const std::int64_t count = first == 0 ? 25 : 35;
    const std::string name = first == 0 ? "shard_00000.h5" : "shard_00001.h5";
    const std::string path = root() / "step_00000004" / name;
    Hdf5File file(path, Hdf5File::Mode::create);
    file.write("a", ElementType::f32, {&count, 1}, model.weight.data() + first);
    file.flush();
    const auto offset = file.file_offset("a").value();
    file.close();
    const std::string_view bytes(reinterpret_cast<const char*>(model.weight.data() + first),
                                 static_cast<std::size_t>(count) * 4);
    manifest.files.push_back(
        {name, static_cast<std::int64_t>(fs::file_size(path)), sha256_of_file(path)});
    manifest.tensors[0].pieces.push_back(
        {name, "a", first, count, offset, count * 4, sha256_of(bytes)});
  }
  std::ofstream(root() / "step_00000004" / Manifest::kFileName) << manifest.to_text();
  EXPECT_TRUE(verify_checkpoint(root() / "step_00000004").empty());
  std::vector<float> middle(20);
  Checkpoint::open(root() / "step_00000004")
      .read("parameters/a.weight", 15, Tensor(middle.data(), DType::f32, DeviceKind::cpu, {20}));
  for (std::size_t i = 0; i < 20; ++i) EXPECT_EQ(middle[i], model.weight[15 + i]);

  manifest.tensors[0].pieces.pop_back();
  EXPECT_NE(message_of([&] { Manifest::parse(manifest.to_text(), "m"); }).find("25 of 60"),
            std::string::npos);
}

TEST_F(CheckpointTest, ABrokenLatestFallsBackToTheNewestWholeOne) {
  auto w = writer(3);
  for (const std::int64_t step : {1, 2, 3}) save(w, step);
  w.finish();
  fs::remove(root() / "step_00000003" / "state.json");
  std::string note;
  EXPECT_EQ(find_latest(root(), &note)->filename(), "step_00000002");
  EXPECT_NE(note.find("state.json is missing"), std::string::npos) << note;
  EXPECT_EQ(Checkpoint::open(root()).note(), note);
  EXPECT_EQ(Checkpoint::open(root() / "step_00000001").note(), "");
  fs::remove_all(root() / "step_00000003");
  EXPECT_EQ(find_latest(root())->filename(), "step_00000002");
  EXPECT_FALSE(find_latest(folder_.path() / "nowhere").has_value());
}

TEST_F(CheckpointTest, ErrorsNameTheFileTheTensorAndBothShapes) {
  auto w = writer();
  save(w, 1);
  w.finish();
  const auto checkpoint = Checkpoint::open(root());
  std::vector<float> space(60);
  const Tensor wrong(space.data(), DType::f32, DeviceKind::cpu, {15, 4});
  const std::string shapes = message_of([&] { checkpoint.read("parameters/a.weight", wrong); });
  EXPECT_NE(shapes.find("parameters/a.weight is f32[4, 15], but this model needs f32[15, 4]"),
            std::string::npos)
      << shapes;
  EXPECT_NE(message_of([&] { checkpoint.read("parameters/none", wrong); }).find("no tensor"),
            std::string::npos);
  EXPECT_NE(message_of([&] { Checkpoint::open(folder_.path() / "empty"); }).find("no checkpoint"),
            std::string::npos);
}

TEST_F(CheckpointTest, AFailureOfTheBackgroundWriterSurfaces) {
  std::ofstream(root().string()) << "a file where the folder should be";
  auto w = writer();
  save(w, 1);
  EXPECT_NE(message_of([&] { w.finish(); }), "");
}

}  // namespace
}  // namespace convoy::test
