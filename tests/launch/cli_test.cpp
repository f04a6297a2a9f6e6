#include "core/random.h"
#include "tests/launch/process.h"
#include "tests/launch/temporary_folder.h"

namespace convoy::test {
namespace {

TEST(CommandLine, EveryVerbHelpsWithAnExample) {
  for (const char* verb : {"prepare", "corpus austen", "tokenizer train", "tokenizer encode",
                           "tokenizer decode", "train", "eval", "sample", "plan", "checkpoint info",
                           "checkpoint verify", "checkpoint export", "inspect gradients",
                           "inspect batches", "bench", "report", "fit", "compare"}) {
    const auto help = run_convoy(std::string(verb) + " --help");
    EXPECT_EQ(help.code, 0) << verb;
    EXPECT_NE(help.output.find("Example"), std::string::npos) << verb << "\n" << help.output;
  }
}

TEST(CommandLine, PlanNeedsTheModelAlone) {
  const auto plan = run_convoy("plan " + kSource + "/launch/configs/paper_300m.toml --json");
  ASSERT_EQ(plan.code, 0) << plan.output;
  const auto json = nlohmann::json::parse(plan.output);
  EXPECT_EQ(json.at("parameters"), 305169408);
  EXPECT_EQ(json.at("parameters_non_embedding"), 305169408 - 100352 * 1024);
  EXPECT_EQ(json.at("flops_per_token").at("head"), 616562688.0);
  for (const char* part : {"weights", "gradients", "optimizer", "activations"}) {
    EXPECT_GT(json.at("memory_bytes").at(part), 0) << part;
  }
}

TEST(CommandLine, PlanRefusesWhatCannotFit) {
  const auto plan = run_convoy(
      "plan " + kSource + "/launch/configs/paper_2b.toml --device h100 --set train.micro_batch=64");
  EXPECT_EQ(plan.code, 1);
  EXPECT_NE(plan.output.find("more than the 80 GiB"), std::string::npos) << plan.output;
}

TEST(CommandLine, MistakesAreReportedTogetherWithRemedies) {
  const auto result =
      run_convoy("train " + kSource +
                 "/launch/configs/tiny.toml --set data.trian=x --set model.n_heads=3"
                 " --set train.precision=bf16 --output /nonexistent/run");
  EXPECT_EQ(result.code, 1);
  for (const char* part :
       {"did you mean data.train?", "n_heads 3", "use \"f32\" on a CPU", "data.train is missing"}) {
    EXPECT_NE(result.output.find(part), std::string::npos) << part << " in\n" << result.output;
  }
}

TEST(CommandLine, TextToTokensToTextIsTheIdentityOnRandomBytes) {
  const TemporaryFolder folder;
  const std::string base = folder.path().string();
  const RandomStream random(4, "bytes");
  std::string bytes, letters;
  for (std::uint64_t i = 0; i < 50000; ++i) {
    bytes.push_back(static_cast<char>(random.bits(i)[0]));
    letters.push_back("aabc de\n"[random.bits(i)[1] % 8]);
  }
  replace_text(folder.path() / "random", bytes);
  replace_text(folder.path() / "letters", letters);
  const auto trained = run_convoy("tokenizer train --vocabulary 300 --input " + base +
                                  "/letters --output " + base + "/t.tiktoken");
  ASSERT_EQ(trained.code, 0) << trained.output;
  for (const std::string& tokenizer : {std::string("bytes"), base + "/t.tiktoken"}) {
    for (const char* name : {"random", "letters"}) {
      const auto round =
          run_shell(kConvoy + " tokenizer encode --tokenizer " + tokenizer + " --input " + base +
                    "/" + name + " | " + kConvoy + " tokenizer decode --tokenizer " + tokenizer +
                    " | cmp - " + base + "/" + name);
      EXPECT_EQ(round.code, 0) << tokenizer << ' ' << name << ' ' << round.output;
    }
  }
}

TEST(CommandLine, AMissingFileIsNamed) {
  for (const char* command : {"plan nowhere.toml", "eval nowhere", "sample nowhere",
                              "prepare --input nowhere.txt --output /tmp/x.h5", "report nowhere",
                              "fit nowhere --law power", "compare nowhere"}) {
    const auto result = run_convoy(command);
    EXPECT_NE(result.code, 0) << command;
    EXPECT_NE(result.output.find("nowhere"), std::string::npos) << command << ": " << result.output;
  }
}

}  // namespace
}  // namespace convoy::test
