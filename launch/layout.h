// Layout: who computes what. From the configuration and the number of ranks follow, by pure
// functions, the mesh, the pipeline's schedule, the piece of the model of each stage and the
// micro-batches of each rank; Layout is where one rank stands among them.
#pragma once

#include <string>
#include <vector>

#include "launch/config.h"
#include "models/transformer_stage.h"
#include "parallel/mesh.h"
#include "parallel/schedule/schedule.h"
#include "parallel/tree_sum.h"

namespace convoy {

MeshShape mesh_shape(const RunConfig& config, int ranks);
PipelineShape pipeline_shape(const RunConfig& config, const MeshShape& mesh);
// With every transfer, and under ZeRO-3 with gathers and releases of weights; proven to run.
Schedule complete_schedule(const RunConfig& config, const PipelineShape& shape);
ModelPiece piece_of_stage(const ModelConfig& model, const PipelineShape& shape, int stage);
Overlap overlap_of(const RunConfig& config);
// Whether a schedule has backward passes in two halves.
bool splits_backward(const PipelineShape& shape);
// Everything in [parallel] that cannot be, for this many ranks, with the numbers and a remedy.
std::vector<std::string> layout_problems(const RunConfig& config, int ranks);

class Layout {
 public:
  // Collective over `world`, which must outlive this.
  Layout(const RunConfig& config, Communicator& world);

  Communicator& world() const { return world_; }
  const Mesh& mesh() const { return mesh_; }
  const Sharding& sharding() const { return sharding_; }
  const Schedule& schedule() const { return schedule_; }
  const PipelineShape& pipeline() const { return schedule_.shape; }
  std::vector<int> own_stages() const { return pipeline().stages_of(mesh_.pp().rank()); }

  // Global indices; every rank of a pipeline has the same ones.
  MicroBatchRange micro_batches() const { return micro_batches_of(mesh_.position().dp); }
  MicroBatchRange micro_batches_of(int dp) const;
  // Those of each rank of the gradient group.
  std::vector<MicroBatchRange> micro_batches_of_group() const;

 private:
  Communicator& world_;
  Mesh mesh_;
  Sharding sharding_;
  Schedule schedule_;
};

}  // namespace convoy
