// experiments/best_rates: which learning rate further seeds train at.
#include <gtest/gtest.h>

#include "launch/files.h"
#include "tests/launch/process.h"
#include "tests/launch/temporary_folder.h"

namespace convoy::test {
namespace {

class BestRates : public testing::Test {
 protected:
  ProcessResult chosen(const std::string& table) const {
    const auto file = folder_.path() / "runs.csv";
    replace_text(file, table);
    return run_shell(kSource + "/experiments/best_rates " + file.string() + " 1e-3");
  }
  TemporaryFolder folder_;
};

constexpr const char* kHeadings = "size,arch,seed,status,peak_lr,val_loss,val_accuracy\n";

TEST_F(BestRates, TheHighestAccuracyOfTheFirstSeedDecidesThenTheLowestLoss) {
  const auto result = chosen(std::string(kHeadings) +
                             "S,a,0,done,0.0003,1.0,0.7\n"
                             "S,a,0,done,0.001,3.0,0.9\n"       // less likely, more often right
                             "S,a,0,diverged,0.003,0.1,1\n"     // did not finish
                             "S,a,1,done,0.0003,0.1,1\n"        // another seed
                             "S,b,0,done,0.0003,0.3,0.99999\n"  // the same accuracy to 4 digits
                             "S,b,0,done,0.001,0.2,0.99998\n"
                             "S,b,0,done,0.003,0.25,1\n");
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(result.output,
            "exclude = [\n"
            "  \"size=S,arch=a,lr_multiplier!=1,seed!=0\",\n"
            "  \"size=S,arch=b,lr_multiplier!=1,seed!=0\",\n"
            "]\n");
}

TEST_F(BestRates, WithoutAccuraciesTheLowestLossDecides) {
  const auto result = chosen(
      "size,arch,seed,status,peak_lr,val_loss\nS,a,4,done,0.0003,10.0\nS,a,4,done,0.003,9.0\n");
  EXPECT_NE(result.output.find("arch=a,lr_multiplier!=3,seed!=4"), std::string::npos)
      << result.output;
}

TEST_F(BestRates, ATableThatIsNoneIsRefused) {
  const auto no_column = chosen("size,arch,seed\nS,a,0\n");
  EXPECT_NE(no_column.code, 0);
  EXPECT_NE(no_column.output.find("has no column"), std::string::npos) << no_column.output;
  const auto nothing = chosen(std::string(kHeadings) + "S,a,0,running,0.001,2,0\n");
  EXPECT_NE(nothing.code, 0);
  EXPECT_NE(nothing.output.find("has no finished run"), std::string::npos) << nothing.output;
}

// The manifest says that its exclusions are what the script prints of the committed table.
TEST_F(BestRates, TheRecallManifestLeavesOutWhatTheRuleSays) {
  const auto result = run_shell(kSource + "/experiments/best_rates " + kSource +
                                "/experiments/results/h100/mqar/runs.csv 1e-3");
  ASSERT_EQ(result.code, 0) << result.output;
  const std::string manifest = read_text(kSource + "/experiments/manifests/mqar.toml");
  EXPECT_NE(manifest.find(result.output), std::string::npos) << "mqar.toml does not hold\n"
                                                             << result.output;
}

}  // namespace
}  // namespace convoy::test
