// A small manifest that tests change line by line.
#pragma once

#include <string>

#include "core/error.h"
#include "experiments/manifest/sweep_plan.h"

namespace convoy::test {

struct ManifestText {
  std::string base =
      "[base.model]\nvocab = 257\nseq_len = 64\n"
      "[base.train]\nbatch_tokens = 256\nmicro_batch = 2\n"
      "[base.data]\ntrain = \"nowhere/train.h5\"\n";
  std::string archs =
      "[arch.transformer]\n"
      "[arch.conv]\nmodel.conv = { kind = \"lowrank\", rank = 4 }\n";
  std::string sizes =
      "[[size]]\nid = \"S\"\nmodel = { d_model = 32, n_layers = 2, n_heads = 2, "
      "d_ff = 64 }\n"
      "[[size]]\nid = \"M\"\nmodel = { d_model = 48, n_layers = 3, n_heads = 2, "
      "d_ff = 128 }\n";
  std::string plan = "[plan]\ntokens_per_param = [5]\n";
  std::string rest;

  std::string text() const {
    return "schema = 1\nname = \"test\"\n" + base + archs + sizes + plan + rest;
  }
  SweepManifest manifest() const { return parse_sweep_manifest(text(), "test.toml"); }
  SweepPlan expanded() const { return expand(manifest()); }

  // What reading or planning it complains about; empty: nothing.
  std::string complaint() const {
    try {
      expanded();
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  }
};

}  // namespace convoy::test
