// A stage that is one multiplication, for tests of the executor on any communicator.
#pragma once

#include <gtest/gtest.h>

#include <limits>
#include <memory>
#include <vector>

#include "core/cpu/cpu_backend.h"
#include "parallel/pipeline/executor.h"

namespace convoy::test {

inline constexpr std::int64_t kRows = 3, kColumns = 2;

// y = w x + micro-batch, elementwise; the first stage makes its own x, the last one the gradient
// dy = y. It keeps no copy of what it is given, so a tensor that is reused too early shows.
class ScaleStage final : public Stage {
 public:
  ScaleStage(int stage, int stages, int slots)
      : first_(stage == 0), last_(stage == stages - 1), weight_(1 + 0.125 * stage), slots_(slots) {}

  void forward(Visit visit, Tensor input, Tensor output) override {
    Slot& slot = take(visit);
    EXPECT_EQ(input.empty(), first_);
    EXPECT_EQ(output.empty(), last_);
    if (first_) {
      for (std::size_t i = 0; i < slot.own.size(); ++i) {
        slot.own[i] = 0.3 * static_cast<double>(i + 1) / (visit.micro_batch + 1);
      }
      input = view(slot.own);
    }
    slot.input = input;
    if (last_) output = view(slot.result);
    for (std::int64_t i = 0; i < input.size(); ++i) {
      output.data<double>()[i] = weight_ * input.data<double>()[i] + visit.micro_batch;
    }
  }

  void backward_input(Visit visit, Tensor d_output, Tensor d_input) override {
    Slot& slot = holding(visit);
    EXPECT_EQ(d_output.empty(), last_);
    EXPECT_EQ(d_input.empty(), first_);
    slot.d_output = last_ ? view(slot.result) : d_output;
    if (first_) return;
    for (std::int64_t i = 0; i < d_input.size(); ++i) {
      d_input.data<double>()[i] = weight_ * slot.d_output.data<double>()[i];
    }
  }

  void backward_weight(Visit visit) override {
    Slot& slot = holding(visit);
    for (std::int64_t i = 0; i < slot.input.size(); ++i) {
      gradient_ += slot.input.data<double>()[i] * slot.d_output.data<double>()[i];
    }
    slot.micro_batch = -1;
  }

  void gather_weights() override { ++gathered_; }
  void release_weights() override { --gathered_; }
  void reduce_gradients() override { reduced_ = gradient_; }

  double gradient() const { return gradient_; }
  double reduced() const { return reduced_; }
  int gathered() const { return gathered_; }

 private:
  struct Slot {
    std::vector<double> own = std::vector<double>(kRows * kColumns);
    std::vector<double> result = std::vector<double>(kRows * kColumns);
    Tensor input, d_output;
    int micro_batch = -1;
  };

  static Tensor view(std::vector<double>& values) {
    return {values.data(), DType::f64, DeviceKind::cpu, {kRows, kColumns}};
  }
  Slot& take(Visit visit) {
    Slot& slot = slots_.at(visit.slot);
    EXPECT_LT(slot.micro_batch, 0) << "slot " << visit.slot << " is in use";
    slot.micro_batch = visit.micro_batch;
    return slot;
  }
  Slot& holding(Visit visit) {
    Slot& slot = slots_.at(visit.slot);
    EXPECT_EQ(slot.micro_batch, visit.micro_batch) << "slot " << visit.slot;
    return slot;
  }

  bool first_, last_;
  double weight_;
  std::vector<Slot> slots_;
  double gradient_ = 0, reduced_ = -1;
  int gathered_ = 0;
};

// What one rank does of some steps of a schedule.
struct RankOutcome {
  std::vector<double> gradients;  // [own stage]
  std::vector<TimedAction> executed;
};

inline RankOutcome run_rank(const Schedule& schedule, Communicator& ranks,
                            const ExecutorOptions& options = {}, int steps = 1) {
  const PipelineShape& shape = schedule.shape;
  const auto backend = make_cpu_backend(NumericsMode::fast);
  const MemoryPlan memory(schedule);
  std::vector<std::unique_ptr<ScaleStage>> stages;
  std::vector<Stage*> pointers;
  for (const int stage : shape.stages_of(ranks.rank())) {
    stages.push_back(std::make_unique<ScaleStage>(stage, shape.stages(), memory.slots_of(stage)));
    pointers.push_back(stages.back().get());
  }
  PipelineExecutor executor(schedule, ranks, *backend, {kRows, kColumns, DType::f64}, pointers,
                            options);
  for (int step = 0; step < steps; ++step) executor.run();
  RankOutcome outcome{{}, executor.executed()};
  for (const auto& stage : stages) {
    EXPECT_EQ(stage->gathered(), 0);
    EXPECT_EQ(stage->reduced(), stage->gradient());
    outcome.gradients.push_back(stage->gradient());
  }
  return outcome;
}

// The same arithmetic without stages, slots or messages.
inline std::vector<double> gradients_without_pipeline(int stages, int micro_batches) {
  std::vector<double> gradients(stages, 0);
  const std::size_t n = kRows * kColumns;
  for (int j = 0; j < micro_batches; ++j) {
    std::vector<std::vector<double>> x(stages + 1, std::vector<double>(n));
    for (std::size_t i = 0; i < n; ++i) x[0][i] = 0.3 * static_cast<double>(i + 1) / (j + 1);
    for (int s = 0; s < stages; ++s) {
      for (std::size_t i = 0; i < n; ++i) x[s + 1][i] = (1 + 0.125 * s) * x[s][i] + j;
    }
    std::vector<double> dy = x[stages];
    for (int s = stages - 1; s >= 0; --s) {
      for (std::size_t i = 0; i < n; ++i) gradients[s] += x[s][i] * dy[i];
      for (double& value : dy) value *= 1 + 0.125 * s;
    }
  }
  return gradients;
}

// What a correct gradient may differ by. All terms are positive: the sum of n of them is right to n
// roundings, of the two sums, and the terms themselves to a few for each stage passed twice.
inline double gradient_tolerance(double reference, int stages, int micro_batches) {
  const double roundings = 2.0 * kRows * kColumns * micro_batches + 8.0 * stages;
  return roundings * std::numeric_limits<double>::epsilon() * reference;
}

}  // namespace convoy::test
