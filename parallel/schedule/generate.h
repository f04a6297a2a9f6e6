// The generators behind make_schedule: the compute actions of each rank, in order.
#pragma once

#include <vector>

#include "parallel/schedule/schedule.h"

namespace convoy {

using ActionLists = std::vector<std::vector<Action>>;  // [rank][order]

ActionLists generate_gpipe(const PipelineShape& shape);
ActionLists generate_1f1b(const PipelineShape& shape);
ActionLists generate_interleaved(const PipelineShape& shape);
ActionLists generate_zb_h1(const PipelineShape& shape);
ActionLists generate_zb_v(const PipelineShape& shape);

}  // namespace convoy
