#include "launch/inspection.h"

#include <algorithm>

#include "core/null_backend.h"
#include "launch/checkpoint/safetensors.h"
#include "launch/checkpoint/safetensors_file.h"
#include "launch/model_instance.h"
#include "launch/run_checkpoint.h"
#include "launch/run_data.h"
#include "launch/run_device.h"

namespace convoy {
namespace {

Batch batch_of(const RunConfig& config, const TrainingData& data, std::int64_t first_sample,
               std::int64_t sequences) {
  Batch batch(sequences, config.model.seq_len);
  for (std::int64_t row = 0; row < sequences; ++row) data.fill(batch, row, first_sample + row);
  return batch;
}

SafetensorsEntry entry_of(std::string name, std::vector<std::int64_t> shape,
                          const std::vector<std::int32_t>& values) {
  return {std::move(name), DType::i32, std::move(shape), [&values](const Tensor& host) {
            std::copy(values.begin(), values.end(), host.data<std::int32_t>());
          }};
}

void add_batch(std::vector<SafetensorsEntry>& entries, const Batch& batch,
               const std::vector<std::int64_t>& shape) {
  entries.push_back(entry_of("tokens", shape, batch.tokens));
  entries.push_back(entry_of("targets", shape, batch.targets));
  entries.push_back(entry_of("document_start", shape, batch.document_start));
}

SafetensorsEntry entry_of(std::string name, std::vector<std::int64_t> shape, Backend& backend,
                          const Tensor& values) {
  return {std::move(name), values.dtype(), std::move(shape), [&backend, values](const Tensor& to) {
            backend.copy(Tensor(to.data(), to.dtype(), to.device(), values.shape()), values);
          }};
}

// The passes of a model over one micro-batch, in memory of their own.
class Passes {
 public:
  Passes(Backend& backend, const InspectedModel& model)
      : backend_(backend),
        config_(model.config),
        instance_(backend, config_.model, dtype_of_run(config_), config_.train.micro_batch,
                  recompute_blocks_of(config_), static_cast<std::uint64_t>(config_.train.seed),
                  MasterWeights::yes),
        batch_(backend, config_.train.micro_batch, config_.model.seq_len),
        forward_arena_(backend, "forward pass", forward_bytes()),
        losses_(backend, DType::f64, {batch_.view().rows()}) {
    if (model.checkpoint) load_parameters(*model.checkpoint, instance_.store());
  }

  void run(const Batch& batch) {
    const auto targets = std::count_if(batch.targets.begin(), batch.targets.end(),
                                       [](std::int32_t target) { return target >= 0; });
    if (targets == 0) {
      throw Error("the micro-batch has no target that counts; choose another --sample");
    }
    const BatchView& view = batch_.load(batch);
    instance_.store().zero_gradients();
    instance_.model().train(instance_.context(), view, losses_.view(),
                            1 / static_cast<double>(targets));
    instance_.store().add_second_gradients();
    logits_ = instance_.model().logits({backend_, forward_arena_, instance_.context().dtype}, view);
  }

  void add_to(std::vector<SafetensorsEntry>& entries) {
    const std::int64_t sequences = config_.train.micro_batch, length = config_.model.seq_len;
    entries.push_back(
        entry_of("logits", {sequences, length, config_.model.vocab}, backend_, logits_));
    entries.push_back(entry_of("losses", {sequences, length}, backend_, losses_.view()));
    for (const Parameter& p : instance_.store().all()) {
      const std::string name = exported_name(p.name);
      entries.push_back(entry_of(name, p.shape, backend_, p.exact()));
      entries.push_back(entry_of("gradient." + name, p.shape, backend_, p.gradient));
    }
  }

 private:
  // What a forward pass with all its logits takes, by the model's own code.
  std::size_t forward_bytes() const {
    NullBackend null(backend_.device());
    Arena arena = Arena::measuring(null, "measuring");
    const BatchView view =
        batch_without_memory(config_.train.micro_batch, config_.model.seq_len, one_rank(),
                             backend_.device(), config_.model.seq_len);
    ParameterStore store;
    const Transformer model(store, config_.model);
    store.allocate(null, dtype_of_run(config_));
    model.logits({null, arena, dtype_of_run(config_)}, view);
    return arena.high_water();
  }

  Backend& backend_;
  const RunConfig& config_;
  ModelInstance instance_;
  DeviceBatch batch_;
  Arena forward_arena_;
  OwnedTensor losses_;
  Tensor logits_;  // in the forward arena
};

}  // namespace

InspectedModel open_inspected(const std::filesystem::path& source,
                              const std::vector<std::string>& overrides) {
  InspectedModel model;
  if (std::filesystem::is_directory(source)) {
    model.checkpoint = Checkpoint::open(source);
    model.config = config_of_checkpoint(*model.checkpoint, overrides);
  } else {
    model.config = read_config(source.string(), overrides);
  }
  require_trainable(model.config, 1);
  return model;
}

void write_gradients(const InspectedModel& model, std::int64_t first_sample,
                     const std::filesystem::path& output) {
  const RunConfig& config = model.config;
  const TrainingData data(training_data_of(config));
  data.require_vocabulary(static_cast<int>(config.model.vocab));
  const auto backend = backend_of_run(config);
  const Batch batch = batch_of(config, data, first_sample, config.train.micro_batch);
  Passes passes(*backend, model);
  passes.run(batch);
  std::vector<SafetensorsEntry> entries;
  add_batch(entries, batch, {batch.sequences, batch.length});
  passes.add_to(entries);
  write_safetensors(output, entries);
}

void write_batches(const RunConfig& config, std::int64_t steps,
                   const std::filesystem::path& output) {
  const TrainingData data(training_data_of(config));
  const std::int64_t sequences = config.train.batch_tokens / config.model.seq_len;
  const Batch batch = batch_of(config, data, 0, steps * sequences);
  std::vector<SafetensorsEntry> entries;
  add_batch(entries, batch, {steps, sequences, batch.length});
  write_safetensors(output, entries);
}

}  // namespace convoy
