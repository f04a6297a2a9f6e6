#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "launch/evaluator.h"
#include "launch/json_number.h"
#include "launch/model_instance.h"
#include "launch/run_checkpoint.h"
#include "launch/run_device.h"
#include "launch/verbs.h"
#include "parallel/mpi.h"

namespace convoy {
namespace {

struct EvalArguments {
  std::string checkpoint, data;
  std::int64_t batches = 0, micro_batch = 8;
  bool json = false;
};

void run_eval(const EvalArguments& arguments, const MpiEnvironment& mpi) {
  const auto checkpoint = Checkpoint::open(arguments.checkpoint);
  const RunConfig config = config_of_checkpoint(checkpoint);
  const auto world = mpi.world();
  const auto backend = backend_of_run(config);
  const auto data = open_validation(arguments.data.empty() ? config.data.val : arguments.data,
                                    config.model.seq_len, parse_pack(config.data.pack));
  if (data->vocabulary() > config.model.vocab) {
    throw Error(concat(data->name(), " has a vocabulary of ", data->vocabulary(),
                       ", the model one of ", config.model.vocab,
                       "; tokenise the text with the model's tokenizer"));
  }
  ModelInstance instance(*backend, config.model, dtype_to_run(config, backend->device()),
                         arguments.micro_batch, recompute_blocks_of(config), 0);
  load_parameters(checkpoint, instance.store());
  InstanceLoss model(instance);
  const Replicas replicas{*world, world->size(), world->rank()};
  const EvalResult result = Evaluator(model, replicas, *data, arguments.batches).run();
  if (world->rank() != 0) return;
  if (arguments.json) {
    const nlohmann::ordered_json json = {
        {"loss", result.loss},
        {"bits_per_byte", json_number(result.bits_per_byte)},
        {"accuracy", result.accuracy},
        {"last_token_accuracy", json_number(result.last_token_accuracy)},
        {"targets", result.targets},
        {"bytes", result.bytes}};
    return fmt::print("{}\n", json.dump(2));
  }
  fmt::print("loss {:.6f} nats, accuracy {:.6f}, over {} targets", result.loss, result.accuracy,
             result.targets);
  if (result.bytes > 0) {
    fmt::print(", {:.6f} bits per byte of {} bytes", result.bits_per_byte, result.bytes);
  }
  if (!std::isnan(result.last_token_accuracy)) {
    fmt::print("; by the last token alone {:.6f}", result.last_token_accuracy);
  }
  fmt::print("\n");
}

}  // namespace

void add_eval_verb(CLI::App& app, const MpiEnvironment& mpi) {
  const auto arguments = std::make_shared<EvalArguments>();
  auto* verb = app.add_subcommand("eval", "Loss and bits per byte of a checkpoint on a token file");
  verb->add_option("checkpoint", arguments->checkpoint, "checkpoint or run directory")->required();
  verb->add_option("--data", arguments->data, "token file; the run's validation file by default");
  verb->add_option("--batches", arguments->batches, "micro-batches to evaluate; 0: all");
  verb->add_option("--micro-batch", arguments->micro_batch, "sequences at a time")
      ->check(CLI::PositiveNumber);
  verb->add_flag("--json", arguments->json, "print JSON");
  verb->footer("Example: convoy eval runs/first --data corpora/austen.val.h5");
  verb->callback([arguments, &mpi] { run_eval(*arguments, mpi); });
}

}  // namespace convoy
