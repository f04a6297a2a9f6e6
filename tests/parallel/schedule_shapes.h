// Pipelines for the tests of schedules: every kind over many sizes, even and odd, with more and
// with fewer micro-batches than ranks.
#pragma once

#include <string>
#include <vector>

#include "core/error.h"
#include "parallel/schedule/passes.h"

namespace convoy::test {

inline std::string describe(const PipelineShape& shape) {
  return concat(name_of(shape.kind), " p ", shape.ranks, " v ", shape.virtual_stages, " m ",
                shape.micro_batches);
}

inline std::vector<PipelineShape> shapes_of(int ranks, int micro_batches) {
  std::vector<PipelineShape> shapes;
  for (const auto kind : {ScheduleKind::gpipe, ScheduleKind::one_f_one_b, ScheduleKind::zb_h1}) {
    shapes.push_back({kind, ranks, 1, micro_batches});
  }
  for (const int v : {2, 3, 4}) {
    shapes.push_back({ScheduleKind::interleaved, ranks, v, micro_batches});
  }
  shapes.push_back({ScheduleKind::zb_v, ranks, 2, micro_batches});
  return shapes;
}

inline std::vector<PipelineShape> many_shapes() {
  std::vector<PipelineShape> shapes;
  for (const int p : {1, 2, 3, 4, 5, 6, 7, 8, 12, 16}) {
    for (const int m : {1, 2, 3, 4, 5, 7, 8, 11, 16, 24, 33, 64}) {
      const auto some = shapes_of(p, m);
      shapes.insert(shapes.end(), some.begin(), some.end());
    }
  }
  return shapes;
}

// With every pass, as an executor with ZeRO-3 would run it.
inline Schedule complete_schedule(const PipelineShape& shape, const Costs& costs = {}) {
  return add_gradient_reductions(
      add_weight_gathers(add_transfers(make_schedule(shape), costs), {.prefetch = 2, .keep = 3}));
}

// What calling f throws.
template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace convoy::test
