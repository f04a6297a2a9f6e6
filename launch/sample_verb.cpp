#include <CLI/CLI.hpp>
#include <cstdio>

#include "data/tokenizer.h"
#include "launch/run_checkpoint.h"
#include "launch/run_device.h"
#include "launch/sampler.h"
#include "launch/verbs.h"

namespace convoy {
namespace {

struct SampleArguments {
  std::string checkpoint, prompt = "\n";
  SamplingOptions options;
};

void print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void run_sample(const SampleArguments& arguments) {
  const auto checkpoint = Checkpoint::open(arguments.checkpoint);
  const RunConfig config = config_of_checkpoint(checkpoint);
  const auto tokenizer = tokenizer_of_checkpoint(checkpoint);
  const auto backend = backend_of_run(config);
  ModelInstance instance(*backend, config.model, dtype_to_run(config, backend->device()), 1, 0, 0);
  load_parameters(checkpoint, instance.store());
  const auto prompt = tokenizer->encode(arguments.prompt);
  if (prompt.empty()) throw Error("--prompt is empty; give at least one character");
  print(arguments.prompt);
  Sampler(instance).run(prompt, tokenizer->end_of_text(), arguments.options,
                        [&](std::int32_t token) {
                          if (token < tokenizer->vocabulary()) print(tokenizer->bytes_of(token));
                        });
  print("\n");
}

}  // namespace

void add_sample_verb(CLI::App& app) {
  const auto arguments = std::make_shared<SampleArguments>();
  auto* verb = app.add_subcommand("sample", "Let a checkpoint continue a text");
  verb->add_option("checkpoint", arguments->checkpoint, "checkpoint or run directory")->required();
  verb->add_option("--prompt", arguments->prompt, "text to continue");
  verb->add_option("--tokens", arguments->options.tokens, "at most so many");
  verb->add_option("--temperature", arguments->options.temperature, "0: the most likely token")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--top-k", arguments->options.top_k, "draw among the k most likely; 0: all");
  verb->add_option("--seed", arguments->options.seed, "of the draws");
  verb->footer("Example: convoy sample runs/first --prompt \"It is a truth\" --tokens 200");
  verb->callback([arguments] { run_sample(*arguments); });
}

}  // namespace convoy
