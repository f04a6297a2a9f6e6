#include "launch/stage_instance.h"

#include <algorithm>

#include "core/null_backend.h"
#include "launch/model_instance.h"
#include "launch/run_labels.h"

namespace convoy {
namespace {

TransformerStage::Ends ends_of(const ModelPiece& piece, const Tensor& rows, const Tensor& losses) {
  return {piece.last ? Tensor() : rows, piece.first ? Tensor() : rows, losses, 1};
}

ParameterStore& divided(ParameterStore& store, const Layout& layout) {
  store.divide_buckets(layout.mesh().gradient().size());
  return store;
}

GradientSumOptions sum_options(const RunConfig& config, const Layout& layout) {
  return {config.numerics, static_cast<int>(config.parallel.zero), layout.mesh().gradient().rank(),
          layout.micro_batches_of_group(), overlap_of(config)};
}

}  // namespace

StageBytes measure_stage(const StageSettings& settings, DeviceKind device) {
  const RunConfig& config = settings.config;
  const ModelPiece& piece = settings.piece;
  const SilentSharding silent(settings.sharding);
  NullBackend backend(device);
  ParameterStore store(settings.sharding.mesh, settings.sharding.position);
  const TransformerStage stage(store, config.model, piece, recompute_blocks_of(config),
                               silent.view());
  const DType dtype = dtype_of_run(config);
  store.allocate(backend, dtype);
  Arena slot = Arena::measuring(backend, "slot"), workspace = Arena::measuring(backend, "space");
  const Context context{backend, slot, dtype}, space{backend, workspace, dtype};
  const BatchView batch = batch_without_memory(config.train.micro_batch, config.model.seq_len,
                                               settings.sharding, device, labels_of_window(config));
  const auto rows = [&] { return space.take({batch.own_rows(), config.model.d_model}); };
  const std::array<Tensor, 2> two = {rows(), rows()};
  const auto losses = Tensor(two[0].data(), DType::f64, device, {batch.rows()});
  const DType wide = dtype == DType::bf16 ? DType::f32 : dtype;
  const auto statistics = Tensor(two[0].data(), wide, device, {batch.rows(), 3});
  const Tensor input = piece.first ? Tensor() : two[0], output = piece.last ? Tensor() : two[1];
  TransformerStage::Saved saved;
  GradientHooks none;
  const TransformerStage::Pass pass{context, batch, saved};
  stage.forward(pass, input, output);
  if (piece.last) {
    const ArenaScope scope(workspace);
    stage.losses({space, batch, saved}, losses, statistics);
  }
  if (settings.splits_backward) {
    stage.backward_input(pass, ends_of(piece, two[0], losses), none);
    stage.backward_weight(pass, none);
  } else {
    stage.backward(pass, ends_of(piece, two[0], losses), {space, two}, none);
  }
  return {slot.high_water(), workspace.high_water()};
}

StageInstance::StageInstance(Backend& backend, const StageSettings& settings, const Layout& layout,
                             int slots, RankMemory& memory)
    : backend_(backend),
      settings_(settings),
      memory_(memory),
      dtype_(dtype_of_run(settings.config)),
      store_(layout.mesh().shape(), layout.mesh().position()),
      model_(divided(store_, layout), settings.config.model, settings.piece,
             recompute_blocks_of(settings.config), settings.sharding),
      weights_(backend, allocated(layout), layout.mesh().gradient(),
               static_cast<int>(settings.config.parallel.zero)),
      sums_(make_gradient_sums(backend, store_, layout.mesh().gradient(),
                               sum_options(settings.config, layout))) {
  const std::size_t bytes = measure_stage(settings, backend.device()).slot;
  for (int i = 0; i < slots; ++i) {
    slots_.push_back(
        std::make_unique<Slot>(Slot{Arena(backend, concat("slot ", i), bytes), new_batch(), {}}));
  }
  if (!settings.piece.last) return;
  scores_.emplace(backend, slots_.front()->batch.view().rows(), dtype_);
  const MicroBatchRange own = layout.micro_batches();
  nats_ = OwnedTensor(backend, DType::f64, {std::max<std::int64_t>(own.end - own.begin, 1)});
}

// The parameters, laid out in the memory that the layout wants.
ParameterStore& StageInstance::allocated(const Layout& layout) {
  const RunConfig& config = settings_.config;
  store_.allocate(
      backend_, dtype_,
      {config.parallel.zero < 3, GradientSums::wants_gradient_buffer(sum_options(config, layout)),
       config.parallel.zero == 0 ? MasterWeights::yes : MasterWeights::no});
  return store_;
}

DeviceBatch StageInstance::new_batch() const {
  const RunConfig& config = settings_.config;
  return {backend_, config.train.micro_batch, config.model.seq_len, settings_.sharding,
          labels_of_window(config)};
}

void StageInstance::begin_step(const StepInput& input) {
  input_ = input;
  is_loaded_ = false;
  sums_->begin_step();
}

void StageInstance::load(const StepInput& input) {
  if (scale_.view().empty()) scale_ = OwnedTensor(backend_, DType::f64, {1});
  while (loaded_.size() < input.batches.size()) loaded_.push_back(new_batch());
  for (std::size_t i = 0; i < input.batches.size(); ++i) loaded_[i].load(input.batches[i]);
  double scale = input.scale;
  backend_.copy(scale_.view(), Tensor(&scale, DType::f64, DeviceKind::cpu, {1}));
}

void StageInstance::begin_loaded_step() {
  is_loaded_ = true;
  sums_->begin_step();
}

void StageInstance::describe_loaded(std::vector<std::int64_t>& shape) const {
  for (const DeviceBatch& batch : loaded_) {
    shape.push_back(batch.view().one_document ? 1 : 0);
    const Labels& labels = batch.view().labels;
    if (!labels.place.empty()) shape.push_back(labels.rows.size());
  }
}

const BatchView& StageInstance::batch_of(Slot& slot, std::int64_t micro_batch) {
  const auto i = static_cast<std::size_t>(micro_batch);
  return is_loaded_ ? loaded_.at(i).view() : slot.batch.load(input_.batches[i]);
}

Tensor StageInstance::nats_of(std::int64_t micro_batch) const {
  return flat_range(nats_.view(), micro_batch, 1);
}

void StageInstance::sum_losses(std::int64_t micro_batch) {
  if (settings_.sharding.tp.rank() > 0) return;  // 0 as it was allocated
  backend_.sum(nats_of(micro_batch), scores_->losses());
}

// Once a step, so that the host may be ahead of the device until then.
void StageInstance::end_step() {
  if (!settings_.piece.last) return;
  const auto count = static_cast<std::int64_t>(input_.nats.size());
  backend_.copy(Tensor(input_.nats.data(), DType::f64, DeviceKind::cpu, {count}),
                flat_range(nats_.view(), 0, count));
}

void StageInstance::forward(Visit visit, Tensor input, Tensor output) {
  Slot& slot = *slots_.at(static_cast<std::size_t>(visit.slot));
  slot.arena.release(0);
  slot.saved = {};  // nothing of the micro-batch before
  slot.view = &batch_of(slot, visit.micro_batch);
  weights_.ready();
  model_.forward(pass(slot, context(slot.arena)), input, output);
}

// Where the schedule has no halves, both are done here, block by block, and backward_weight has
// nothing left to do.
void StageInstance::backward_input(Visit visit, Tensor d_output, Tensor d_input) {
  Slot& slot = *slots_.at(static_cast<std::size_t>(visit.slot));
  const Tensor losses = scores_ ? scores_->losses() : Tensor();
  const Scalar scale = is_loaded_ ? Scalar(scale_.view()) : Scalar(input_.scale);
  const TransformerStage::Ends ends{d_output, d_input, losses, scale};
  weights_.ready();
  sums_->visit(visit.micro_batch);
  const Context slot_context = context(slot.arena);
  if (settings_.splits_backward) {
    model_.backward_input(pass(slot, slot_context), ends, *sums_);
  } else {
    const Context space = context(*memory_.workspace);
    model_.backward(pass(slot, slot_context), ends, {space, memory_.rows}, *sums_);
  }
  if (!settings_.piece.last) return;
  sum_losses(visit.micro_batch);
}

void StageInstance::backward_weight(Visit visit) {
  if (!settings_.splits_backward) return;
  Slot& slot = *slots_.at(static_cast<std::size_t>(visit.slot));
  weights_.ready();
  sums_->visit(visit.micro_batch);
  model_.backward_weight(pass(slot, context(slot.arena)), *sums_);
}

BatchScore StageInstance::evaluate(const Batch& batch, Tensor input, Tensor output) {
  Slot& slot = *slots_.front();
  slot.arena.release(0);
  slot.saved = {};
  slot.view = &slot.batch.load(batch);
  weights_.ready();
  model_.forward(pass(slot, context(slot.arena)), input, output);
  if (!settings_.piece.last) return {};
  const ArenaScope scope(*memory_.workspace);
  model_.losses(pass(slot, context(*memory_.workspace)), scores_->losses(), scores_->statistics());
  if (settings_.sharding.tp.rank() > 0) return {};
  return scores_->sum(slot.batch.view().targets);
}

}  // namespace convoy
