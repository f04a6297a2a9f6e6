#include "tests/launch/checkpoint_fixture.h"
#include "tests/launch/process.h"

namespace convoy::test {
namespace {

namespace fs = std::filesystem;

class CheckpointVerb : public testing::Test {
 protected:
  CheckpointVerb() {
    const auto backend = make_cpu_backend(NumericsMode::fast);
    CheckpointWriter writer(*backend, {root(), 2, false});
    for (const std::int64_t step : {1, 2}) {
      SmallModel model(step);
      writer.save(step, texts_of(step), model.records());
    }
  }
  fs::path root() const { return folder_.path() / "checkpoints"; }
  ProcessResult verify(const fs::path& path) const {
    return run_convoy("checkpoint verify " + path.string());
  }

  TemporaryFolder folder_;
};

TEST_F(CheckpointVerb, VerifyPassesWhatIsSound) {
  for (const auto& path : {folder_.path(), root(), root() / "step_00000001"}) {
    const auto result = verify(path);
    EXPECT_EQ(result.code, 0) << result.output;
  }
}

// A damaged newest checkpoint must not be passed over for the older one.
TEST_F(CheckpointVerb, VerifyOfARunIsAboutTheCheckpointThatLatestNames) {
  fs::resize_file(root() / "step_00000002" / "shard_00000.h5", 100);
  for (const auto& path : {folder_.path(), root(), root() / "step_00000002"}) {
    const auto result = verify(path);
    EXPECT_NE(result.code, 0) << result.output;
    EXPECT_NE(result.output.find("step_00000002 is damaged"), std::string::npos) << result.output;
  }
  const auto info = run_convoy("checkpoint info " + folder_.path().string());
  EXPECT_EQ(info.code, 0) << info.output;
  EXPECT_NE(info.output.find("note: "), std::string::npos) << info.output;
}

TEST_F(CheckpointVerb, VerifyNamesALostManifestAndAFolderThatIsNone) {
  fs::remove(root() / "step_00000002" / Manifest::kFileName);
  const auto lost = verify(root() / "step_00000002");
  EXPECT_NE(lost.code, 0);
  EXPECT_NE(lost.output.find("manifest.json"), std::string::npos) << lost.output;
  const auto none = verify(folder_.path() / "nowhere");
  EXPECT_NE(none.code, 0);
  EXPECT_NE(none.output.find("no checkpoint in"), std::string::npos) << none.output;
}

}  // namespace
}  // namespace convoy::test
