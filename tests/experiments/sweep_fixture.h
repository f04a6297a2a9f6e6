// Tiny sweeps of the program itself, on a few kilobytes of the project's own documents.
#pragma once

#include <fstream>

#include "launch/files.h"
#include "tests/launch/process.h"
#include "tests/launch/temporary_folder.h"

namespace convoy::test {

class Sweep : public testing::Test {
 protected:
  Sweep() {
    prepare_text("train.h5", "docs/design.md");
    prepare_text("val.h5", "docs/numerics.md");
  }

  void prepare_text(const std::string& name, const std::string& source) {
    const auto made = run_convoy("prepare --input " + kSource + "/" + source +
                                 " --tokenizer bytes --output " + path(name));
    CHECK(made.code == 0, made.output);
  }

  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }

  std::string base() const {
    return "schema = 1\nname = \"tiny\"\n"
           "[base.model]\nvocab = 257\nseq_len = 32\n"
           "[base.train]\nbatch_tokens = 256\nmicro_batch = 2\n"
           "[base.numerics]\nmode = \"invariant\"\n"
           "[base.data]\ntrain = \"" +
           path("train.h5") + "\"\nval = \"" + path("val.h5") +
           "\"\n"
           "[base.eval]\nbatches = 4\nevery = 25\n[base.checkpoint]\nevery = 5\n";
  }
  static std::string size(const std::string& id, int d_model) {
    return concat("[[size]]\nid = \"", id, "\"\nmodel = { d_model = ", d_model,
                  ", n_layers = 1, n_heads = 2, d_ff = ", 2 * d_model, " }\n");
  }
  static std::string two_arms() {
    return "[arch.transformer]\n[arch.conv]\nmodel.conv = { kind = \"lowrank\", rank = 2 }\n";
  }
  static std::string plan(const std::string& more = "") {
    return "[plan]\nmode = \"grid\"\ntokens = [25600]\nepochs = 100\n" + more;
  }
  static std::string branches() {
    return "[rules]\nlr = \"1e-3\"\nwarmup_tokens = \"batch*5\"\nschedule = \"wsd\"\n"
           "cooldown = 0.2\nbranch_at = [\"0.5x\", \"1x\"]\n";
  }

  void write_manifest(const std::string& name, const std::string& text) const {
    replace_text(folder_.path() / name, text);
  }

  std::string sweep_command(const std::string& verb, const std::string& manifest,
                            const std::string& store, const std::string& more = "") const {
    return kConvoy + " sweep " + verb + " " + path(manifest) + " --store " + path(store) +
           " --output " + path(store + "_output") + " " + more;
  }
  ProcessResult sweep(const std::string& verb, const std::string& manifest,
                      const std::string& store, const std::string& more = "") const {
    return run_shell(sweep_command(verb, manifest, store, more));
  }

  static std::size_t count(const std::string& text, const std::string& part) {
    std::size_t n = 0;
    for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
    return n;
  }

  std::vector<std::filesystem::path> folders(const std::string& store) const {
    std::vector<std::filesystem::path> found;
    for (const auto& entry : std::filesystem::directory_iterator(path(store))) {
      found.push_back(entry.path());
    }
    std::sort(found.begin(), found.end());
    return found;
  }

  TemporaryFolder folder_;
};

// A CSV table without the columns that depend on when and how fast it ran.
inline std::string without_columns(const std::string& csv, const std::set<std::string>& dropped) {
  std::istringstream lines(csv);
  std::string result;
  std::vector<bool> keep;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream cells(line + ",");
    std::size_t at = 0;
    for (std::string cell; std::getline(cells, cell, ','); ++at) {
      if (keep.size() == at) keep.push_back(!dropped.contains(cell));  // the header
      if (keep[at]) result += cell + ",";
    }
    result += '\n';
  }
  return result;
}

}  // namespace convoy::test
