#include "launch/optimizer.h"

#include "core/backend.h"

namespace convoy {
namespace {

Tensor host_view(double* data, std::int64_t count) {
  return {data, DType::f64, DeviceKind::cpu, {count}};
}

}  // namespace

Optimizer::Optimizer(Backend& backend, ParameterStore& store, const OptimizerConfig& config)
    : backend_(backend),
      store_(store),
      config_(config),
      moment1_(backend, store.gradients().dtype(), {store.values().size()}),
      moment2_(backend, store.gradients().dtype(), {store.values().size()}),
      control_(backend, DType::f64, {StepControl::kCount}),
      sum_of_squares_(backend, DType::f64, {1}),
      loss_(backend, DType::f64, {1}) {}

Tensor Optimizer::part(const Tensor& flat, const Parameter& parameter) {
  const Tensor elements =
      flat.reshape({flat.size(), 1}).row_range(parameter.offset, parameter.size());
  return {elements.data(), flat.dtype(), flat.device(), parameter.shape};
}

void Optimizer::set_moments(const Parameter& parameter, const Tensor& first, const Tensor& second) {
  const Tensor m = moment1(parameter), v = moment2(parameter);
  CHECK(first.dtype() == m.dtype() && second.dtype() == v.dtype(), parameter.name, ": moments of ",
        first.describe(), ", expected ", m.describe());
  backend_.copy(m, first);
  backend_.copy(v, second);
}

Optimizer::Control Optimizer::control() const {
  Control host{};
  backend_.copy(host_view(host.data(), StepControl::kCount), control_.view());
  return host;
}

void Optimizer::set_control(const Control& control) {
  Control host = control;
  backend_.copy(control_.view(), host_view(host.data(), StepControl::kCount));
}

std::vector<Optimizer::Span> Optimizer::spans() const {
  std::vector<Span> spans;
  for (const auto& parameter : store_.all()) {
    const double decay = parameter.decay == WeightDecay::yes ? config_.weight_decay : 0;
    const std::int64_t end = parameter.offset + parameter.size();
    if (!spans.empty() && spans.back().decay == decay) {
      spans.back().count = end - spans.back().first;
    } else {
      spans.push_back({parameter.offset, end - parameter.offset, decay});
    }
  }
  return spans;
}

UpdateResult Optimizer::update(double learning_rate, double loss) {
  const Tensor rate(control_.view().data(), DType::f64, control_.view().device(), {1});
  static_assert(StepControl::learning_rate == 0, "the rate is the first value of the control");
  backend_.copy(rate, host_view(&learning_rate, 1));
  backend_.copy(loss_.view(), host_view(&loss, 1));
  backend_.fill(sum_of_squares_.view(), 0);
  std::vector<Tensor> gradients;
  for (const auto& parameter : store_.all()) gradients.push_back(parameter.gradient);
  backend_.add_sums_of_squares(sum_of_squares_.view(), gradients);
  backend_.decide_update(control_.view(), sum_of_squares_.view(), loss_.view(),
                         {config_.clip, config_.spike_factor});
  for (const Span& span : spans()) {
    const auto part = [&](const Tensor& flat) {
      if (flat.empty()) return Tensor{};
      return flat.reshape({flat.size(), 1}).row_range(span.first, span.count).reshape({span.count});
    };
    backend_.adamw(part(store_.values()), part(store_.masters()), part(moment1_.view()),
                   part(moment2_.view()), part(store_.gradients()), control_.view(),
                   {config_.betas[0], config_.betas[1], config_.eps, span.decay});
  }
  const Control after = control();
  return {after[StepControl::gradient_norm], after[StepControl::skip] != 0,
          static_cast<std::int64_t>(after[StepControl::skipped_in_row]),
          static_cast<std::int64_t>(after[StepControl::skipped_total])};
}

}  // namespace convoy
