// How much of communication is hidden: each co-schedule on two ranks with a link so slow that its
// transfers take half as long as the computation that they may run under.
#pragma once

#include <vector>

#include "launch/overlap_workload.h"

namespace convoy {

struct OverlapOptions {
  int repeats = 5;
  double share = 0.5;  // seconds in flight / seconds of computation
  NumericsMode mode = NumericsMode::fast;
};

// Of one rank; times in seconds.
struct OverlapMeasurement {
  double cover = 0;     // of the computation, on the slower rank: the shortest of some passes
  double transfer = 0;  // in flight in one pass
  double blocked = 0;   // that the rank waited in the pass where both ranks did so least
  double pass = 0;      // the shortest
  Trace trace;          // of that pass

  double hidden() const { return 1 - blocked / transfer; }
};

// Collective over `pair`, two ranks of which the other may be absent (a null communicator).
OverlapMeasurement measure_overlap(CoSchedule what, Overlap overlap, Communicator& pair,
                                   const OverlapOptions& options = {});

// The same on two threads: of both ranks.
std::vector<OverlapMeasurement> measure_overlap_on_threads(CoSchedule what, Overlap overlap,
                                                           const OverlapOptions& options = {});
// With the overlap above without.
std::string overlap_picture(CoSchedule what, const std::vector<OverlapMeasurement>& with,
                            const std::vector<OverlapMeasurement>& without);

}  // namespace convoy
