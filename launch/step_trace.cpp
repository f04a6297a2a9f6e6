#include "launch/step_trace.h"

#include "launch/files.h"
#include "parallel/chrome_trace.h"
#include "parallel/traced_communicator.h"

namespace convoy {

StepTrace::StepTrace(const LogConfig& config, const std::filesystem::path& folder, Backend& backend,
                     Communicator& world)
    : config_(config), path_(folder / config.trace), backend_(backend), world_(world) {
  if (!config.trace.empty()) traced_ = trace_communicator(world, "world", trace_);
}

void StepTrace::begin(std::int64_t step) {
  if (!covers(step)) return;
  if (step == config_.trace_steps[0]) {
    world_.barrier();  // so that the ranks' clocks start together
    backend_.trace_to(&trace_);
    trace_.begin();
  }
  step_start_ = Trace::Clock::now();
}

void StepTrace::end(std::int64_t step) {
  if (!covers(step)) return;
  trace_.add(Trace::Kind::action, concat("step ", step), step_start_, Trace::Clock::now());
  if (step < config_.trace_steps[1]) return;
  trace_.end();
  backend_.trace_to(nullptr);
  write();
}

std::filesystem::path StepTrace::piece_of(int rank) const {
  return path_.string() + concat(".rank_", rank);
}

// Every rank leaves its events beside the file, and rank 0 puts them together.
void StepTrace::write() const {
  ChromeTrace own;
  own.rank(world_.rank(), trace_);
  replace_text(piece_of(world_.rank()), own.events());
  world_.barrier();
  if (world_.rank() > 0) return;
  std::string all;
  for (int rank = 0; rank < world_.size(); ++rank) {
    if (rank > 0) all += ChromeTrace::kSeparator;
    all += read_text(piece_of(rank));
    std::filesystem::remove(piece_of(rank));
  }
  replace_text(path_, ChromeTrace::document(all));
}

}  // namespace convoy
