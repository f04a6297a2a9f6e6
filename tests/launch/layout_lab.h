// Runs of one small model on any layout, as threads, and what they leave: losses, norms and every
// tensor of the last checkpoint. U, G and s start from N(0, 0.1): at zero they hide the generator.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/cpu/cpu_backend.h"
#include "core/random.h"
#include "data/byte_tokenizer.h"
#include "data/token_file_writer.h"
#include "launch/trainer.h"
#include "parallel/thread_communicator.h"
#include "tests/launch/process.h"
#include "tests/launch/temporary_folder.h"

namespace convoy::test {

struct LayoutCase {
  int dp = 1, zero = 0, pp = 1;
  std::string schedule = "1f1b", recompute = "none";
  int tp = 1, cp = 1;
  bool sequence_parallel = false;

  int ranks() const { return dp * pp * tp * cp; }
  std::string describe() const {
    std::string text = concat("dp", dp, " zero", zero, " pp", pp, " ", schedule);
    if (recompute != "none") text += " recompute";
    if (tp > 1 || cp > 1) text += concat(" tp", tp, " cp", cp, sequence_parallel ? " sp" : "");
    return text;
  }
  std::vector<std::string> overrides() const {
    return {concat("parallel.dp=", dp),
            concat("parallel.pp=", pp),
            concat("parallel.tp=", tp),
            concat("parallel.cp=", cp),
            concat("parallel.zero=", zero),
            concat("parallel.schedule=", schedule),
            concat("parallel.recompute=", recompute),
            concat("parallel.sequence_parallel=", sequence_parallel ? "true" : "false")};
  }
};

struct RunOutcome {
  std::map<std::int64_t, double> losses, norms;
  std::map<std::int64_t, double> validation;
  std::map<std::string, std::vector<std::byte>> tensors;  // whole, under their global names
};

class LayoutLab {
 public:
  explicit LayoutLab(std::string model_toml) : toml_(std::move(model_toml)) {
    const ByteTokenizer tokenizer;
    TokenFileWriter writer(data(), tokenizer);
    const RandomStream random(3, "documents");
    for (std::uint64_t document = 0; document < 60; ++document) {
      std::vector<std::int32_t> tokens(1 + random.bits(document)[0] % 60);
      for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
        tokens[i] = static_cast<std::int32_t>(97 + random.bits(1000 + 64 * document + i)[0] % 26);
      }
      tokens.back() = tokenizer.end_of_text();
      writer.add_document(tokens);
    }
    writer.finish("sum");
  }

  std::filesystem::path folder(const std::string& name) const { return folder_.path() / name; }

  RunConfig config(const LayoutCase& layout, const std::vector<std::string>& more = {}) const {
    auto overrides = layout.overrides();
    overrides.push_back("data.train=" + data());
    overrides.push_back("data.val=" + data());
    overrides.insert(overrides.end(), more.begin(), more.end());
    overrides.emplace_back("log.console=quiet");
    return parse_config(toml_, "the test's model", overrides);
  }

  // Trains to the end; `resume`: from the newest checkpoint of the same folder.
  void train(const LayoutCase& layout, const std::string& name,
             const std::vector<std::string>& more = {}, bool resume = false) const {
    const RunConfig run = config(layout, more);
    require_trainable(run, layout.ranks());
    run_on_threads(layout.ranks(), [&](Communicator& world) {
      const auto backend = make_cpu_backend(run.numerics);
      TrainOptions options{folder(name), {}, {}};
      if (resume) options.resume.emplace();
      Trainer trainer(run, options, *backend, world);
      trainer.run();
    });
  }

  RunOutcome outcome(const std::string& name) const {
    RunOutcome result;
    result.losses = column(folder(name), "train", "train_loss");
    result.norms = column(folder(name), "train", "grad_norm");
    result.validation = column(folder(name), "eval", "val_loss");
    const Checkpoint checkpoint = Checkpoint::open(folder(name));
    for (const auto& tensor : checkpoint.manifest().tensors) {
      auto& bytes = result.tensors[tensor.name];
      bytes.resize(static_cast<std::size_t>(tensor.size()) * size_of(tensor.dtype));
      checkpoint.read(tensor.name, 0,
                      Tensor(bytes.data(), tensor.dtype, DeviceKind::cpu, {tensor.size()}));
    }
    return result;
  }

  // As if the run had been killed after the checkpoint of `step`.
  void forget_after(const std::string& name, std::int64_t step) const {
    const auto root = folder(name) / "checkpoints";
    std::filesystem::remove(root / "latest");
    std::vector<std::filesystem::path> later;
    for (const auto& entry : std::filesystem::directory_iterator(root)) {
      if (entry.path().filename() > checkpoint_name(step)) later.push_back(entry.path());
    }
    for (const auto& path : later) std::filesystem::remove_all(path);
    ASSERT_TRUE(verify_checkpoint(root / checkpoint_name(step)).empty());
  }

  RunOutcome run(const LayoutCase& layout, const std::string& name,
                 const std::vector<std::string>& more = {}) const {
    train(layout, name, more);
    return outcome(name);
  }

 private:
  std::string data() const { return (folder_.path() / "tokens.h5").string(); }

  TemporaryFolder folder_;
  std::string toml_;
};

inline void expect_same_bits(const RunOutcome& a, const RunOutcome& b) {
  EXPECT_EQ(a.losses, b.losses);
  EXPECT_EQ(a.norms, b.norms);
  EXPECT_EQ(a.validation, b.validation);
  ASSERT_EQ(a.tensors.size(), b.tensors.size());
  std::vector<std::string> differ;
  for (const auto& [name, bytes] : a.tensors) {
    if (b.tensors.at(name) != bytes) differ.push_back(name);
  }
  EXPECT_TRUE(differ.empty()) << differ.size() << " tensors differ, the first is "
                              << differ.front();
}

}  // namespace convoy::test
