// Runs of launch/configs/tiny.toml on a text of their own, as processes, alone or under mpirun.
#pragma once

#include "core/random.h"
#include "tests/launch/process.h"
#include "tests/launch/temporary_folder.h"

namespace convoy::test {

class TinyRun : public testing::Test {
 protected:
  TinyRun() {
    const RandomStream random(1, "text");
    std::string text;
    for (std::uint64_t i = 0; i < 20000; ++i) {
      text += "the cat sat on a mat.\n"[random.bits(i / 3)[0] % 22];
    }
    replace_text(folder_.path() / "text.txt", text);
    const auto made = run_convoy("prepare --input " + path("text.txt") +
                                 " --tokenizer bytes --output " + path("text.h5"));
    CHECK(made.code == 0, made.output);
  }

  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }

  std::string train_command(const std::string& output, const std::string& more, int ranks = 1) {
    const std::string launcher =
        ranks == 1 ? "" : kSource + "/launch/run_mpi -n " + std::to_string(ranks) + " ";
    return launcher + kConvoy + " train " + kSource +
           "/launch/configs/tiny.toml --set data.train=" + path("text.h5") +
           " --set data.val=" + path("text.h5") +
           " --set eval.batches=4 --set train.steps=40 --set train.device=cpu --output " +
           path(output) + " " + more;
  }
  ProcessResult train(const std::string& output, const std::string& more = "", int ranks = 1) {
    return run_shell(train_command(output, more, ranks));
  }

  void expect_equal_runs(const std::string& a, const std::string& b) {
    EXPECT_EQ(tensor_sums(folder_.path() / a), tensor_sums(folder_.path() / b));
    for (const char* name : {"train_loss", "lr", "grad_norm"}) {
      EXPECT_EQ(column(folder_.path() / a, "train", name),
                column(folder_.path() / b, "train", name));
    }
    EXPECT_EQ(column(folder_.path() / a, "eval", "val_loss"),
              column(folder_.path() / b, "eval", "val_loss"));
  }

  TemporaryFolder folder_;
};

}  // namespace convoy::test
