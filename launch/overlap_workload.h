// The four places where communication runs under computation, each as a workload for two ranks:
// the model's own code on shapes of which the pass at hand is most of the work.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "core/trace.h"
#include "models/sharding.h"
#include "parallel/communication_log.h"

namespace convoy {

enum class CoSchedule : std::uint8_t {
  halo,              // rows before a segment travel; the interior is convolved meanwhile
  sequence_gather,   // rows of other ranks travel; those that are there are projected and convolved
  weight_gradients,  // dx is summed over ranks; the weights' and taps' gradients are computed
  gradient_buckets,  // a bucket's gradients are summed over ranks; the next blocks run backward
};
inline constexpr std::array<CoSchedule, 4> kCoSchedules = {
    CoSchedule::halo, CoSchedule::sequence_gather, CoSchedule::weight_gradients,
    CoSchedule::gradient_buckets};

std::string_view name_of(CoSchedule what);    // "halo"
std::string_view described(CoSchedule what);  // one line for a title
// What travels; other operations of a pass are beside the point. Nothing: all of them.
std::optional<Collective> collective_of(CoSchedule what);
// Whether an operation of a pass is what the transfers are to hide under.
bool is_cover(CoSchedule what, const Trace::Span& span);

class OverlapWorkload {
 public:
  virtual ~OverlapWorkload() = default;
  virtual void prepare() {}  // before each run(), not part of it
  virtual void run() = 0;
  virtual std::vector<float> result() const = 0;  // everything that run() computed
};

// `pair` is a communicator of two ranks.
std::unique_ptr<OverlapWorkload> make_overlap_workload(CoSchedule what, Overlap overlap,
                                                       Communicator& pair, Backend& backend,
                                                       NumericsMode mode);

}  // namespace convoy
