#include "launch/bench_overlap.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "core/cpu/cpu_backend.h"
#include "launch/stopwatch.h"
#include "parallel/delayed_communicator.h"
#include "parallel/thread_communicator.h"
#include "parallel/trace_picture.h"
#include "parallel/traced_communicator.h"

namespace convoy {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

double over_ranks(Communicator& ranks, double value, Reduction reduction) {
  ranks.all_reduce(Tensor(&value, DType::f64, DeviceKind::cpu, {1}), reduction).wait();
  return value;
}

class Measurement {
 public:
  Measurement(CoSchedule what, Overlap overlap, Communicator& pair, NumericsMode mode)
      : what_(what),
        pair_(pair),
        backend_(make_cpu_backend(mode)),
        delayed_(delay(pair, link_)),
        traced_(trace_communicator(*delayed_, "pair", trace_)),
        workload_(make_overlap_workload(what, overlap, *traced_, *backend_, mode)) {
    backend_->trace_to(&trace_);
    link_.only = collective_of(what);
  }

  OverlapMeasurement run(const OverlapOptions& options) {
    OverlapMeasurement best;
    best.cover = kNever;
    for (int i = 0; i < options.repeats; ++i) {
      pass(0);
      double cover = 0;
      for (const auto& span : trace_.spans()) cover += is_cover(what_, span) ? span.seconds() : 0;
      best.cover = std::min(best.cover, over_ranks(pair_, cover, Reduction::maximum));
    }
    const double rate = static_cast<double>(link_.bytes()) / (options.share * best.cover);
    double least = kNever;
    best.pass = kNever;
    for (int i = 0; i < options.repeats; ++i) {
      best.pass = std::min(best.pass, pass(rate));
      const double blocked = trace_.total(Trace::Kind::wait);
      const double of_both = over_ranks(pair_, blocked, Reduction::sum);
      if (of_both >= least) continue;
      least = of_both;
      best.transfer = link_.seconds();
      best.blocked = blocked;
      best.trace = trace_;
    }
    return best;
  }

 private:
  // One pass with a link of so many bytes a second (0: no delay); its seconds.
  double pass(double rate) {
    link_.bytes_per_second = 0;
    workload_->prepare();
    link_.restart();
    link_.bytes_per_second = rate;
    pair_.barrier();
    trace_.begin();
    const Stopwatch watch;
    workload_->run();
    const double seconds = watch.seconds();
    trace_.end();
    return seconds;
  }

  CoSchedule what_;
  Communicator& pair_;
  Link link_;
  Trace trace_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Communicator> delayed_, traced_;
  std::unique_ptr<OverlapWorkload> workload_;
};

TracePanel panel_of(const char* name, const std::vector<OverlapMeasurement>& ranks) {
  double blocked = 0, transfer = 0;
  TracePanel panel;
  for (const auto& rank : ranks) {
    blocked += rank.blocked;
    transfer += rank.transfer;
    panel.ranks.push_back(rank.trace);
  }
  const double share = 100 * std::max(0.0, 1 - blocked / transfer);
  panel.caption = fmt::format("overlap {}: {:.0f} % of communication hidden", name, share);
  return panel;
}

}  // namespace

OverlapMeasurement measure_overlap(CoSchedule what, Overlap overlap, Communicator& pair,
                                   const OverlapOptions& options) {
  return Measurement(what, overlap, pair, options.mode).run(options);
}

std::vector<OverlapMeasurement> measure_overlap_on_threads(CoSchedule what, Overlap overlap,
                                                           const OverlapOptions& options) {
  std::vector<OverlapMeasurement> ranks(2);
  run_on_threads(2, [&](Communicator& pair) {
    ranks[static_cast<std::size_t>(pair.rank())] = measure_overlap(what, overlap, pair, options);
  });
  return ranks;
}

std::string overlap_picture(CoSchedule what, const std::vector<OverlapMeasurement>& with,
                            const std::vector<OverlapMeasurement>& without) {
  return svg_trace(std::string(described(what)), {panel_of("on", with), panel_of("off", without)});
}

}  // namespace convoy
