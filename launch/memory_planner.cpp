#include "launch/memory_planner.h"

#include <algorithm>

#include "core/null_backend.h"
#include "launch/gpu_overheads.h"
#include "launch/model_instance.h"
#include "launch/stage_instance.h"
#include "parallel/null_communicator.h"
#include "parallel/schedule/memory_plan.h"

namespace convoy {
namespace {

// The elements of a stage's flat buffers.
struct StageElements {
  double values = 0, gradients = 0, largest_bucket = 0;
};

StageElements elements_of(const RunConfig& config, const ModelPiece& piece,
                          const Sharding& sharding) {
  ParameterStore store(sharding.mesh, sharding.position);
  store.divide_buckets(sharding.mesh.dp * sharding.mesh.cp);
  const TransformerStage stage(store, config.model, piece, recompute_blocks_of(config), sharding);
  NullBackend backend;
  store.allocate(backend, DType::f32);
  StageElements elements;
  elements.values = static_cast<double>(store.extent());
  for (const auto& bucket : store.buckets()) {
    const auto size = static_cast<double>(bucket.size);
    elements.gradients += size;
    elements.largest_bucket = std::max(elements.largest_bucket, size);
  }
  return elements;
}

// What ZeRO leaves of gradients: all; all and an own part; an own part and two buckets.
double gradient_elements(const RunConfig& config, const StageElements& stage, double parts) {
  if (config.parallel.zero == 0) return stage.gradients;
  const double own = stage.gradients / parts;
  return own + (config.parallel.zero == 1 ? stage.gradients : 2 * stage.largest_bucket);
}

}  // namespace

RankBytes plan_rank_memory(const RunConfig& config, const MeshShape& mesh, int pipeline_rank,
                           bool on_gpu) {
  MeshPosition position;
  position.pp = pipeline_rank;
  const auto tp = make_null_communicator(0, mesh.tp), cp = make_null_communicator(0, mesh.cp);
  const auto sequence = make_null_communicator(0, mesh.cp * mesh.tp);
  const bool rows_split = config.parallel.sequence_parallel && mesh.tp > 1;
  const Sharding sharding{
      *tp,          *cp,  *sequence, rows_split ? SequenceParallel::yes : SequenceParallel::no,
      Overlap::yes, mesh, position,  {}};
  const PipelineShape shape = pipeline_shape(config, mesh);
  const Schedule schedule = complete_schedule(config, shape);
  const MemoryPlan slots(schedule);
  const double state =
      dtype_of_run(config) == DType::f64 ? 8 : 4;  // bytes of a gradient, moment or master
  const bool has_masters = on_gpu && dtype_of_run(config) == DType::bf16;
  const double weight = has_masters ? 2 : state;
  const double parts = config.parallel.zero == 0 ? 1 : mesh.dp * mesh.cp;
  RankBytes memory;
  double workspace = 0;
  for (const int index : shape.stages_of(pipeline_rank)) {
    const StageSettings settings{config, sharding, piece_of_stage(config.model, shape, index),
                                 splits_backward(shape)};
    const StageElements stage = elements_of(config, settings.piece, sharding);
    const StageBytes bytes = measure_stage(settings, on_gpu ? DeviceKind::cuda : DeviceKind::cpu);
    // Under ZeRO-3 the gathered weights of a stage in use count, like all of them elsewhere.
    memory.weights += stage.values * weight;
    if (has_masters || config.parallel.zero > 0) memory.weights += stage.values * state / parts;
    memory.gradients += gradient_elements(config, stage, parts) * state;
    memory.optimizer += 2 * stage.values * state / parts;
    memory.activations += static_cast<double>(bytes.slot) * slots.slots_of(index);
    workspace = std::max(workspace, static_cast<double>(bytes.workspace));
  }
  memory.activations += workspace;
  if (on_gpu) {
    memory.workspace = gpu_workspace(config, mesh);
    memory.runtime = kGpuRuntime;
  }
  return memory;
}

RankBytes plan_largest_memory(const RunConfig& config, const MeshShape& mesh, bool on_gpu) {
  RunConfig planned = config;
  if (on_gpu) planned.train.precision = "bf16";
  RankBytes largest;
  for (int rank = 0; rank < mesh.pp; ++rank) {
    const RankBytes memory = plan_rank_memory(planned, mesh, rank, on_gpu);
    if (memory.total() > largest.total()) largest = memory;
  }
  return largest;
}

}  // namespace convoy
