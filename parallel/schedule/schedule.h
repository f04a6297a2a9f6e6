// A pipeline schedule is data: for each rank the list of its actions, in order. Generators write
// the compute actions (make_schedule), passes add the rest (add_transfers, add_weight_gathers,
// add_gradient_reductions), validate() proves the result, and one executor runs whatever it says.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "parallel/schedule/action.h"

namespace convoy {

enum class ScheduleKind : std::uint8_t {
  gpipe,        // all forward passes, then all backward passes (Huang et al., arXiv 1811.06965)
  one_f_one_b,  // alternates as soon as it can (Narayanan et al., arXiv 2006.09503)
  interleaved,  // 1f1b over several virtual stages a rank (Narayanan et al., arXiv 2104.04473)
  zb_h1,        // weight gradients fill the bubble (Qi et al., arXiv 2401.10241)
  zb_v,         // the same over a V of two virtual stages a rank (as zb-h1, section 6)
};

std::string_view name_of(ScheduleKind kind);              // "1f1b"
ScheduleKind parse_schedule_kind(std::string_view name);  // throws Error with the known names

struct PipelineShape {
  ScheduleKind kind = ScheduleKind::one_f_one_b;
  int ranks = 1;
  int virtual_stages = 1;  // of each rank; zb-v: 2, interleaved: at least 2, otherwise 1
  int micro_batches = 1;

  int stages() const { return ranks * virtual_stages; }
  // Interleaved: stage modulo ranks. zb-v: down the ranks and up again, so that rank r owns r and
  // 2 ranks - 1 - r, and the first rank has both embedding and head.
  int rank_of(int stage) const;
  std::vector<int> stages_of(int rank) const;  // ascending
  friend bool operator==(const PipelineShape&, const PipelineShape&) = default;
};

// Throws Error, with the remedy, where the shape cannot be scheduled.
void check_shape(const PipelineShape& shape);

struct Schedule {
  PipelineShape shape;
  std::vector<std::vector<Action>> actions;  // [rank][order]
};

// The compute actions alone.
Schedule make_schedule(const PipelineShape& shape);

}  // namespace convoy
