#include "launch/layout.h"

#include <algorithm>

#include "parallel/schedule/passes.h"
#include "parallel/schedule/split_layers.h"
#include "parallel/schedule/validate.h"

namespace convoy {

MeshShape mesh_shape(const RunConfig& config, int ranks) {
  const auto& p = config.parallel;
  MeshShape shape;
  shape.pp = static_cast<int>(p.pp);
  shape.cp = static_cast<int>(p.cp);
  shape.tp = static_cast<int>(p.tp);
  shape.ep = static_cast<int>(p.ep);
  const int rest = shape.pp * shape.cp * shape.tp;
  shape.dp = p.dp > 0 ? static_cast<int>(p.dp) : rest > 0 ? std::max(1, ranks / rest) : 1;
  return shape;
}

PipelineShape pipeline_shape(const RunConfig& config, const MeshShape& mesh) {
  PipelineShape shape;
  shape.kind = parse_schedule_kind(config.parallel.schedule);
  shape.ranks = mesh.pp;
  shape.virtual_stages = static_cast<int>(config.parallel.virtual_stages);
  if (shape.virtual_stages == 0) {
    const bool several =
        shape.kind == ScheduleKind::interleaved || shape.kind == ScheduleKind::zb_v;
    shape.virtual_stages = several ? 2 : 1;
  }
  // A batch that is too small or does not divide is refused elsewhere (layout_problems).
  shape.micro_batches =
      static_cast<int>(std::max<std::int64_t>(1, micro_batches(config) / mesh.dp));
  return shape;
}

Schedule complete_schedule(const RunConfig& config, const PipelineShape& shape) {
  Schedule schedule = add_transfers(make_schedule(shape));
  // Between two uses that are not neighbours the weights go: their memory is what ZeRO-3 saves.
  if (config.parallel.zero == 3) schedule = add_weight_gathers(schedule, {1, 1});
  validate(schedule);
  return schedule;
}

ModelPiece piece_of_stage(const ModelConfig& model, const PipelineShape& shape, int stage) {
  const auto ranges = split_layers(static_cast<int>(model.n_layers), shape.stages());
  const LayerRange& range = ranges.at(static_cast<std::size_t>(stage));
  return {range.begin, range.count, stage == 0, stage == shape.stages() - 1};
}

bool splits_backward(const PipelineShape& shape) {
  return shape.kind == ScheduleKind::zb_h1 || shape.kind == ScheduleKind::zb_v;
}

Overlap overlap_of(const RunConfig& config) {
  return config.parallel.overlap ? Overlap::yes : Overlap::no;
}

Layout::Layout(const RunConfig& config, Communicator& world)
    : world_(world),
      mesh_(world, mesh_shape(config, world.size())),
      sharding_(sharding_of(
          mesh_, config.parallel.sequence_parallel ? SequenceParallel::yes : SequenceParallel::no,
          overlap_of(config))),
      schedule_(complete_schedule(config, pipeline_shape(config, mesh_.shape()))) {}

MicroBatchRange Layout::micro_batches_of(int dp) const {
  const std::int64_t count = pipeline().micro_batches;
  return {dp * count, (dp + 1) * count};
}

std::vector<MicroBatchRange> Layout::micro_batches_of_group() const {
  std::vector<MicroBatchRange> ranges;
  for (int i = 0; i < mesh_.gradient().size(); ++i) {
    ranges.push_back(micro_batches_of(i / mesh_.shape().cp));
  }
  return ranges;
}

}  // namespace convoy
