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

Optimizer::Control Optimizer::control() const {
  Control host{};
  backend_.copy(host_view(host.data(), StepControl::kCount), control_.view());
  return host;
}

void Optimizer::set_control(const Control& control) {
  Control host = control;
  backend_.copy(control_.view(), host_view(host.data(), StepControl::kCount));
}

UpdateResult Optimizer::update(double learning_rate, double loss) {
  const Tensor rate(control_.view().data(), DType::f64, control_.view().device(), {1});
  static_assert(StepControl::learning_rate == 0, "the rate is the first value of the control");
  backend_.copy(rate, host_view(&learning_rate, 1));
  backend_.copy(loss_.view(), host_view(&loss, 1));
  backend_.fill(sum_of_squares_.view(), 0);
  for (const auto& parameter : store_.all()) {
    backend_.add_sum_of_squares(sum_of_squares_.view(), parameter.gradient);
  }
  backend_.decide_update(control_.view(), sum_of_squares_.view(), loss_.view(),
                         {config_.clip, config_.spike_factor});
  for (const auto& parameter : store_.all()) {
    const double decay = parameter.decay == WeightDecay::yes ? config_.weight_decay : 0;
    backend_.adamw(parameter.value, moment1(parameter), moment2(parameter), parameter.gradient,
                   control_.view(), {config_.betas[0], config_.betas[1], config_.eps, decay});
  }
  const Control after = control();
  return {after[StepControl::gradient_norm], after[StepControl::skip] != 0,
          static_cast<std::int64_t>(after[StepControl::skipped_in_row]),
          static_cast<std::int64_t>(after[StepControl::skipped_total])};
}

}  // namespace convoy
