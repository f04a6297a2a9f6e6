// Memory of each rank of a layout, from the model's own code run without computing.
#pragma once

#include "launch/layout.h"
#include "launch/planner.h"

namespace convoy {

// `on_gpu`: f32 masters beside weights in the run's dtype.
RankBytes plan_rank_memory(const RunConfig& config, const MeshShape& mesh, int pipeline_rank,
                           bool on_gpu);
// Of the rank that needs most; on a GPU the run's dtype is bf16.
RankBytes plan_largest_memory(const RunConfig& config, const MeshShape& mesh, bool on_gpu);

}  // namespace convoy
