#include "experiments/sweep/arm_speeds.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "launch/bench.h"
#include "launch/run_device.h"

namespace convoy {
namespace {

struct Candidate {
  const PlannedRun* run;  // the first of its arm and size: seeds and rates cost the same
  RunConfig config;
};

std::vector<Candidate> candidates(const SweepPlan& plan, std::int64_t sequences) {
  std::vector<Candidate> found;
  for (const PlannedRun& run : plan.runs) {
    const auto same = [&](const Candidate& other) {
      return other.run->arch == run.arch && other.run->size == run.size;
    };
    if (std::any_of(found.begin(), found.end(), same)) continue;
    found.push_back({&run, run.config});
    if (sequences > 0) found.back().config.train.micro_batch = sequences;
  }
  return found;
}

}  // namespace

ArmSpeeds time_arms(const SweepPlan& plan, const TimingOptions& options,
                    const AfterRound& after_round) {
  const auto models = candidates(plan, options.sequences);
  if (models.empty()) throw Error("the manifest plans no run, so there is nothing to time");
  ArmSpeeds measured{.device = describe_device(*backend_of_run(models.front().config))};
  for (const auto& [run, config] : models)
    measured.speeds.push_back(
        {run->arch, run->size, config.train.micro_batch, config.model.seq_len});
  for (int round = 0; round < options.rounds; ++round) {
    for (std::size_t i = 0; i < models.size(); ++i) {
      const StepMeasurement step = bench_step(models[i].config, options.repeats);
      ArmSpeed& best = measured.speeds[i];
      best.tokens_per_s = std::max(best.tokens_per_s, step.tokens_per_s);
      best.flops_per_s = std::max(best.flops_per_s, step.flops_per_s);
    }
    after_round(measured, round + 1);
  }
  return measured;
}

std::string speeds_csv(const ArmSpeeds& measured) {
  std::string text = "arch,size,sequences,length,tokens_per_s,flops_per_s,device\n";
  for (const ArmSpeed& speed : measured.speeds)
    text +=
        fmt::format("{},{},{},{},{:.9g},{:.9g},\"{}\"\n", speed.arch, speed.size, speed.sequences,
                    speed.length, speed.tokens_per_s, speed.flops_per_s, measured.device);
  return text;
}

std::string speeds_table(const ArmSpeeds& measured, const std::string& reference) {
  std::string text = fmt::format("{}\n{:<16} {:>8} {:>10} {:>12} {:>12} {:>12}\n", measured.device,
                                 "arm", "size", "tokens", "tokens/s", "GFLOP/s", "FLOP/s ratio");
  for (const ArmSpeed& speed : measured.speeds) {
    const auto base = std::find_if(
        measured.speeds.begin(), measured.speeds.end(),
        [&](const ArmSpeed& other) { return other.arch == reference && other.size == speed.size; });
    const std::string ratio = base == measured.speeds.end()
                                  ? "-"
                                  : fmt::format("{:.3f}", speed.flops_per_s / base->flops_per_s);
    text += fmt::format("{:<16} {:>8} {:>10} {:>12.0f} {:>12.1f} {:>12}\n", speed.arch, speed.size,
                        speed.sequences * speed.length, speed.tokens_per_s, speed.flops_per_s / 1e9,
                        ratio);
  }
  return text;
}

}  // namespace convoy
