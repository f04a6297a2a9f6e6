#include "tests/launch/training_trace.h"

#include <cmath>
#include <limits>

#include "core/cpu/cpu_backend.h"
#include "core/random.h"
#include "launch/gradient_step.h"
#include "launch/optimizer.h"
#include "models/transformer.h"
#include "parallel/thread_communicator.h"

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
    const Tensor values = tensor_of(part);
    dispatch_real(values.dtype(), [&]<class T>() {
      for (std::int64_t i = 0; i < part.count; ++i) {
        const auto index = part.parameter->shard.global_index_of(part.first + i);
        if (index) target[static_cast<std::size_t>(*index)] += double(values.data<T>()[i]);
      }
    });
  }
  for (auto& [name, values] : tensors) {
    const Tensor all(values.data(), DType::f64, DeviceKind::cpu, {std::ssize(values)});
    layout.world().all_reduce(all, Reduction::sum).wait();
  }
  return tensors;
}

// Zeros stay: their neighbours are not near in any relative sense.
void move_by_an_ulp(PipelineModel& model, std::uint64_t seed) {
  for (const auto& part : model.own_parts()) {
    const RandomStream random(seed, part.parameter->name);
    dispatch_real(part.value.dtype(), [&]<class T>() {
      constexpr T kInfinity = std::numeric_limits<T>::infinity();
      T* const values = part.value.data<T>();
      for (std::int64_t i = 0; i < part.count; ++i) {
        const auto index = part.parameter->shard.global_index_of(part.first + i);
        if (!index || values[i] == 0) continue;
        const bool up = random.bits(static_cast<std::uint64_t>(*index))[0] % 2 == 0;
        values[i] = std::nextafter(values[i], up ? kInfinity : -kInfinity);
      }
    });
  }
  model.publish();
}

TrainingData training_data(const RunConfig& config) {
  TrainingDataOptions options;
  options.sources = {{config.data.train.front(), 1.0}};
  options.seq_len = config.model.seq_len;
  options.pack = parse_pack(config.data.pack);
  options.seed = static_cast<std::uint64_t>(config.data.seed);
  return TrainingData(options);
}

}  // namespace

TrainingTrace trace_training(const RunConfig& config, Communicator& world,
                             const TraceOptions& options) {
  const auto backend = make_cpu_backend(config.numerics);
  const TrainingData data = training_data(config);
  const Layout layout(config, world);
  PipelineModel model(config, layout, *backend);
  if (options.moved_by_an_ulp) move_by_an_ulp(model, *options.moved_by_an_ulp);
  const NormRanks norm{world, layout.mesh().gradient().size(), layout.mesh().gradient().rank(),
                       config.numerics};
  Optimizer optimizer(*backend, model.own_parts(), norm, config.optimizer);
  GradientStep gradients(config, layout, model, data);
  TrainingTrace trace;
  for (std::int64_t step = 1; step <= config.train.steps; ++step) {
    const double loss = gradients.run(step, false).loss;
    trace.losses.push_back(loss);
    if (step <= options.gradient_steps) {
      trace.gradients.push_back(
          gather(config, layout, model, [](const OwnPart& part) { return part.gradient; }));
    }
    trace.norms.push_back(optimizer.update(config.optimizer.lr, loss).gradient_norm);
    model.publish();
  }
  trace.weights = gather(config, layout, model, [](const OwnPart& part) { return part.value; });
  return trace;
}

TrainingTrace trace_on_threads(const RunConfig& config, int ranks, const TraceOptions& options) {
  TrainingTrace trace;
  run_on_threads(ranks, [&](Communicator& world) {
    TrainingTrace found = trace_training(config, world, options);
    if (world.rank() == 0) trace = std::move(found);
  });
  return trace;
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

std::optional<std::string> difference(const WholeTensors& many, const WholeTensors& one,
                                      double bound, DType dtype) {
  const double floor = bound == 0 ? 0 : 4 * unit_roundoff(dtype) * norm_of(one);
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
  if (many.size() != one.size()) return concat(many.size(), " steps, not ", one.size());
  for (std::size_t i = 0; i < one.size(); ++i) {
    if (!(std::abs(many[i] - one[i]) <= bound * std::abs(one[i]))) {
      return concat(many[i], " instead of ", one[i], " in step ", i + 1);
    }
  }
  return {};
}

}  // namespace convoy::test
