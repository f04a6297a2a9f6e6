// StepTrace: what every rank does in some steps of a run (log.trace, log.trace_steps), as one file
// for chrome://tracing or ui.perfetto.dev.
#pragma once

#include <filesystem>
#include <memory>

#include "core/backend.h"
#include "core/trace.h"
#include "launch/config.h"
#include "parallel/communicator.h"

namespace convoy {

class StepTrace {
 public:
  // A relative file lies in `folder`. Without log.trace this does nothing.
  StepTrace(const LogConfig& config, const std::filesystem::path& folder, Backend& backend,
            Communicator& world);

  // What the run has to communicate through, to be traced.
  Communicator& ranks() const { return traced_ ? *traced_ : world_; }

  void begin(std::int64_t step);
  // After the last traced step the ranks write the file. Collective.
  void end(std::int64_t step);

 private:
  bool covers(std::int64_t step) const {
    return traced_ && step >= config_.trace_steps[0] && step <= config_.trace_steps[1];
  }
  void write() const;
  std::filesystem::path piece_of(int rank) const;

  LogConfig config_;
  std::filesystem::path path_;
  Backend& backend_;
  Communicator& world_;
  Trace trace_;
  std::unique_ptr<Communicator> traced_;
  Trace::Clock::time_point step_start_;
};

}  // namespace convoy
