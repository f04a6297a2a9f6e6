#include "tests/fuzz/judge.h"

namespace convoy::test {

TrainingTrace run_case(const RunConfig& config, Communicator& world) {
  return trace_training(config, world, {.gradient_steps = config.train.steps});
}

std::optional<std::string> difference(const FuzzCase& fuzz, const TrainingTrace& many,
                                      const TrainingTrace& one) {
  const double bound = fuzz.is_bitwise() ? 0 : 1e-12;
  if (const auto d = difference(many.losses, one.losses, bound)) return "loss " + *d;
  for (std::size_t step = 0; step < one.gradients.size(); ++step) {
    if (const auto d = difference(many.gradients[step], one.gradients[step], bound)) {
      return concat("step ", step + 1, ": gradient of ", *d);
    }
  }
  if (const auto d = difference(many.norms, one.norms, bound)) return "gradient norm " + *d;
  if (const auto d = difference(many.weights, one.weights, bound)) return "final " + *d;
  return {};
}

}  // namespace convoy::test
