#include "launch/pipeline_model.h"

#include <algorithm>

namespace convoy {
namespace {

// The most stages of a rank whose weights are gathered at one time.
int most_gathered(const std::vector<Action>& list) {
  int held = 0, most = 0;
  for (const Action& action : list) {
    if (action.op == Op::gather_weights) most = std::max(most, ++held);
    if (action.op == Op::release_weights) --held;
  }
  return most;
}

}  // namespace

PipelineModel::PipelineModel(const RunConfig& config, const Layout& layout, Backend& backend)
    : config_(config), layout_(layout), backend_(backend) {
  make_workspace();
  const MemoryPlan plan(layout.schedule());
  std::vector<Stage*> stages;
  for (const int stage : layout.own_stages()) {
    stages_.push_back(std::make_unique<StageInstance>(backend, settings_of(stage), layout,
                                                      plan.slots_of(stage), memory_));
    stages.push_back(stages_.back().get());
  }
  make_gather_pool();
  const DType dtype = dtype_of_run(config);
  const BoundaryShape boundary{own_rows(), config.model.d_model, dtype};
  Communicator& pp = layout.mesh().pp();
  ExecutorOptions options;
  if (pp.in_order()) options.receive_ahead = 0;
  executor_.emplace(layout.schedule(), pp, backend, boundary, stages, options);
  if (layout.pipeline().stages() > 1) {
    evaluation_in_ = OwnedTensor(backend, dtype, {boundary.rows, boundary.columns});
    evaluation_out_ = OwnedTensor(backend, dtype, {boundary.rows, boundary.columns});
  }
  for (const auto& stage : stages_) {
    stage->weights().initialize(static_cast<std::uint64_t>(config.train.seed));
    list_parts(*stage);
  }
}

StageSettings PipelineModel::settings_of(int stage) const {
  return {config_, layout_.sharding(), piece_of_stage(config_.model, layout_.pipeline(), stage),
          splits_backward(layout_.pipeline())};
}

std::int64_t PipelineModel::own_rows() const {
  return config_.train.micro_batch * layout_.sharding().own_rows(config_.model.seq_len).rows();
}

void PipelineModel::make_workspace() {
  std::size_t bytes = 0;
  for (const int stage : layout_.own_stages()) {
    bytes = std::max(bytes, measure_stage(settings_of(stage), backend_.device()).workspace);
  }
  memory_.workspace.emplace(backend_, "workspace", bytes);
  for (auto& tensor : memory_.rows) {
    tensor = memory_.workspace->take(dtype_of_run(config_), {own_rows(), config_.model.d_model});
  }
}

void PipelineModel::make_gather_pool() {
  if (config_.parallel.zero < 3) return;
  std::int64_t elements = 0;
  for (const auto& stage : stages_) elements = std::max(elements, stage->store().extent());
  // Evaluation gathers all stages at once, one behind the other.
  const auto& list =
      layout_.schedule().actions[static_cast<std::size_t>(layout_.mesh().pp().rank())];
  const int count = std::max(most_gathered(list), static_cast<int>(stages_.size()));
  memory_.gathered.emplace(backend_, dtype_of_run(config_), elements, count);
}

void PipelineModel::list_parts(StageInstance& stage) {
  const bool is_copy = config_.model.tie_embeddings && !stage.piece().first;
  const OwnRange& range = stage.weights().range();
  const auto& buckets = stage.store().buckets();
  for (std::size_t i = 0; i < buckets.size(); ++i) {
    if (buckets[i].second) continue;
    const Tensor values = stage.weights().own(i), gradients = stage.sums().total(i);
    const Tensor masters = stage.weights().own_masters(i);
    const std::int64_t begin = range.begin(buckets[i]), end = begin + range.size(buckets[i]);
    for (const auto& [parameter, first, count] : stage.store().parts_of(begin, end)) {
      const std::int64_t place = parameter->offset + first - begin;
      const bool is_replica = !parameter->placement.split && layout_.mesh().tp().rank() > 0;
      const bool is_head = i == stage.model().head_bucket();
      parts_.push_back({parameter, first, count, flat_range(values, place, count),
                        flat_range(gradients, place, count),
                        masters.empty() ? Tensor() : flat_range(masters, place, count),
                        is_replica || (is_copy && is_head), config_.parallel.zero == 0});
    }
  }
}

void PipelineModel::run_step(const StepInput& input) {
  for (const auto& stage : stages_) stage->begin_step(input);
  executor_->run();
  for (const auto& stage : stages_) stage->end_step();
  finish_gradients();
}

void PipelineModel::load(const StepInput& input) {
  for (const auto& stage : stages_) stage->load(input);
}

void PipelineModel::run_loaded_step() {
  for (const auto& stage : stages_) stage->begin_loaded_step();
  executor_->run();
  finish_gradients();
}

std::vector<std::int64_t> PipelineModel::loaded_shape() const {
  std::vector<std::int64_t> shape;
  for (const auto& stage : stages_) stage->describe_loaded(shape);
  return shape;
}

void PipelineModel::finish_gradients() {
  const Doing doing("sum of gradients");
  for (const auto& stage : stages_) stage->sums().finish();
  sum_over_tp();
  if (config_.model.tie_embeddings) add_tied_gradients();
}

// What the tp ranks have shares of: once a step, and after the sum over the other ranks, because
// then there is less of it.
void PipelineModel::sum_over_tp() {
  std::vector<Work> works;
  for (const auto& part : parts_) {
    if (!part.parameter->partial_over_tp()) continue;
    works.push_back(layout_.mesh().tp().all_reduce(part.gradient, Reduction::sum));
  }
  for (auto& work : works) work.wait();
}

StageInstance* PipelineModel::stage_with(bool first) const {
  for (const auto& stage : stages_) {
    if (first ? stage->piece().first : stage->piece().last) return stage.get();
  }
  return nullptr;
}

// The table's gradient is that of the look-up plus that of the head, on whichever stages they are.
void PipelineModel::add_tied_gradients() {
  StageInstance* const lookup = stage_with(true);
  StageInstance* const head = stage_with(false);
  const auto lookup_sum = [&] { return lookup->sums().total(*lookup->model().embedding_bucket()); };
  const auto head_sum = [&] { return head->sums().total(*head->model().head_bucket()); };
  const PipelineShape& shape = layout_.pipeline();
  if (lookup != nullptr && head != nullptr) {
    backend_.add(lookup_sum(), lookup_sum(), head_sum());
    if (lookup != head) backend_.copy(head_sum(), lookup_sum());
  } else if (lookup != nullptr) {
    exchange_tied(lookup_sum(), shape.rank_of(shape.stages() - 1));
  } else if (head != nullptr) {
    exchange_tied(head_sum(), shape.rank_of(0));
  }
}

void PipelineModel::exchange_tied(const Tensor& gradient, int peer) {
  if (tied_.view().empty()) tied_ = OwnedTensor(backend_, gradient.dtype(), {gradient.size()});
  const std::array<Transfer, 2> both = {Transfer{Transfer::Kind::send, gradient, peer},
                                        Transfer{Transfer::Kind::receive, tied_.view(), peer}};
  layout_.mesh().pp().exchange(both).wait();
  backend_.add(gradient, gradient, tied_.view());  // a + b and b + a have the same bits
}

void PipelineModel::publish() {
  for (const auto& stage : stages_) stage->weights().publish();
}

void PipelineModel::begin_evaluation() {
  if (config_.parallel.zero < 3) return;
  for (const auto& stage : stages_) stage->gather_weights();
}

void PipelineModel::end_evaluation() {
  if (config_.parallel.zero < 3) return;
  for (const auto& stage : stages_) stage->release_weights();
}

// Micro-batches pass the stages one after the other, in the same order on all ranks.
BatchScore PipelineModel::score(const Batch& batch) {
  const PipelineShape& shape = layout_.pipeline();
  Communicator& ranks = layout_.mesh().pp();
  const std::vector<int> own = layout_.own_stages();
  BatchScore sum;
  for (std::size_t i = 0; i < own.size(); ++i) {
    const bool first = own[i] == 0, last = own[i] == shape.stages() - 1;
    const int from = first ? ranks.rank() : shape.rank_of(own[i] - 1);
    const int to = last ? ranks.rank() : shape.rank_of(own[i] + 1);
    if (from != ranks.rank()) {
      const Transfer message{Transfer::Kind::receive, evaluation_in_.view(), from};
      ranks.exchange({&message, 1}).wait();
    }
    const BatchScore found = stages_[i]->evaluate(batch, first ? Tensor() : evaluation_in_.view(),
                                                  last ? Tensor() : evaluation_out_.view());
    sum.nats += found.nats;
    sum.right += found.right;
    if (to != ranks.rank()) {
      const Transfer message{Transfer::Kind::send, evaluation_out_.view(), to};
      ranks.exchange({&message, 1}).wait();
    }
    std::swap(evaluation_in_, evaluation_out_);  // for a next stage on this rank
  }
  return sum;
}

}  // namespace convoy
