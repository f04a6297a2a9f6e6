#include "tests/fuzz/fuzz_run.h"

#include <cmath>

#include "core/cpu/cpu_backend.h"
#include "launch/gradient_step.h"
#include "launch/optimizer.h"
#include "models/transformer.h"

namespace convoy::test {
namespace {

std::int64_t global_size(const Parameter& parameter) {
  std::int64_t size = 1;
  for (const auto dim : parameter.placement.shape) size *= dim;
  return size;
}

// All elements of all ranks. Each has one rank that counts it, so that the sum only gathers.
template <class Select>
WholeTensors gather(const RunConfig& config, const Layout& layout, const PipelineModel& model,
                    Select tensor_of) {
  // Names and sizes of all parameters, in one order, from a model without memory.
  ParameterStore names;
  const Transformer whole(names, config.model);
  WholeTensors tensors;
  for (const auto& parameter : names.all()) {
    tensors[parameter.name].assign(static_cast<std::size_t>(global_size(parameter)), 0.0);
  }
  const bool counts = layout.mesh().gradient().rank() == 0;
  for (const auto& part : model.own_parts()) {
    if (part.is_copy || (part.is_shared && !counts)) continue;
    auto& target = tensors.at(part.parameter->name);
    const double* values = tensor_of(part).template data<double>();
    for (std::int64_t i = 0; i < part.count; ++i) {
      const auto index = part.parameter->shard.global_index_of(part.first + i);
      if (index) target[static_cast<std::size_t>(*index)] += values[i];
    }
  }
  for (auto& [name, values] : tensors) {
    const Tensor all(values.data(), DType::f64, DeviceKind::cpu, {std::ssize(values)});
    layout.world().all_reduce(all, Reduction::sum).wait();
  }
  return tensors;
}

double norm_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double x : values) sum += x * x;
  return std::sqrt(sum);
}

double norm_of(const WholeTensors& tensors) {
  double sum = 0;
  for (const auto& [name, values] : tensors) sum += norm_of(values) * norm_of(values);
  return std::sqrt(sum);
}

// `bound` of each tensor's norm. A gradient that is zero but for rounding (that of a key where a
// window has one position) has no digits to compare: a few units of rounding of the largest terms
// that cancelled are allowed, and those are no larger than all gradients together.
std::optional<std::string> difference(const WholeTensors& many, const WholeTensors& one,
                                      double bound) {
  const double floor = bound == 0 ? 0 : 4 * unit_roundoff(DType::f64) * norm_of(one);
  if (many.size() != one.size()) return concat(many.size(), " tensors, not ", one.size());
  for (const auto& [name, expected] : one) {
    const auto& found = many.at(name);
    if (found == expected) continue;
    std::vector<double> error(expected.size());
    for (std::size_t i = 0; i < error.size(); ++i) error[i] = found[i] - expected[i];
    const double size = norm_of(error), allowed = bound * norm_of(expected) + floor;
    if (!(size <= allowed)) {
      return concat(name, " differs by ", size, " of ", norm_of(expected));
    }
  }
  return {};
}

std::optional<std::string> difference(const std::vector<double>& many,
                                      const std::vector<double>& one, double bound) {
  for (std::size_t i = 0; i < one.size(); ++i) {
    if (!(std::abs(many.at(i) - one[i]) <= bound * std::abs(one[i]))) {
      return concat(many[i], " instead of ", one[i], " in step ", i + 1);
    }
  }
  return {};
}

}  // namespace

FuzzOutcome run_case(const RunConfig& config, Communicator& world) {
  const auto backend = make_cpu_backend(config.numerics);
  TrainingDataOptions options;
  options.sources = {{config.data.train.front(), 1.0}};
  options.seq_len = config.model.seq_len;
  options.pack = parse_pack(config.data.pack);
  options.seed = static_cast<std::uint64_t>(config.data.seed);
  const TrainingData data(options);
  const Layout layout(config, world);
  PipelineModel model(config, layout, *backend);
  const NormRanks norm{world, layout.mesh().gradient().size(), layout.mesh().gradient().rank(),
                       config.numerics};
  Optimizer optimizer(*backend, model.own_parts(), norm, config.optimizer);
  GradientStep gradients(config, layout, model, data);
  FuzzOutcome outcome;
  for (std::int64_t step = 1; step <= config.train.steps; ++step) {
    const double loss = gradients.run(step, false).loss;
    outcome.losses.push_back(loss);
    outcome.gradients.push_back(
        gather(config, layout, model, [](const OwnPart& part) { return part.gradient; }));
    outcome.norms.push_back(optimizer.update(config.optimizer.lr, loss).gradient_norm);
    model.publish();
  }
  outcome.weights = gather(config, layout, model, [](const OwnPart& part) { return part.value; });
  return outcome;
}

std::optional<std::string> difference(const FuzzCase& fuzz, const FuzzOutcome& many,
                                      const FuzzOutcome& one) {
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
