#include "launch/optimizer.h"

#include "core/backend.h"
#include "launch/own_range.h"
#include "parallel/exact_sum.h"

namespace convoy {
namespace {

Tensor host_view(double* data, std::int64_t count) {
  return {data, DType::f64, DeviceKind::cpu, {count}};
}

Communicator& alone() {
  static const auto self = make_self_communicator();  // has no state
  return *self;
}

}  // namespace

std::vector<OwnPart> whole_parts(ParameterStore& store) {
  std::vector<OwnPart> parts;
  for (const auto& p : store.all()) {
    const auto flat = [&](const Tensor& t) { return t.reshape({t.size()}); };
    parts.push_back({&p, 0, p.size(), flat(p.value), flat(p.gradient)});
  }
  return parts;
}

Optimizer::Optimizer(Backend& backend, std::vector<OwnPart> parts, const NormRanks& ranks,
                     const OptimizerConfig& config)
    : backend_(backend),
      parts_(std::move(parts)),
      ranks_(ranks),
      config_(config),
      control_(backend, DType::f64, {StepControl::kCount}),
      sum_of_squares_(backend, DType::f64, {1}),
      loss_(backend, DType::f64, {1}) {
  constexpr std::int64_t kAlignment = 64;  // elements
  std::int64_t extent = 0;
  for (const auto& part : parts_) {
    places_.push_back(extent);
    extent += (part.count + kAlignment - 1) / kAlignment * kAlignment;
  }
  // In a very small model a rank may have no part of anything.
  const DType dtype = parts_.empty() ? DType::f32 : parts_.front().gradient.dtype();
  moment1_ = OwnedTensor(backend, dtype, {extent});
  moment2_ = OwnedTensor(backend, dtype, {extent});
}

Optimizer::Optimizer(Backend& backend, ParameterStore& store, const OptimizerConfig& config)
    : Optimizer(backend, whole_parts(store), {alone()}, config) {}

Tensor Optimizer::moment(const Tensor& flat, std::size_t part) const {
  return flat_range(flat, places_[part], parts_[part].count);
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

// What this rank counts of a part: all that it alone has, its share of what others have too.
Tensor Optimizer::counted(const OwnPart& part) const {
  if (part.is_copy) return {};
  if (!part.is_shared) return part.gradient;
  const std::int64_t begin = part.count * ranks_.index / ranks_.sharers;
  const std::int64_t end = part.count * (ranks_.index + 1) / ranks_.sharers;
  return begin == end ? Tensor() : flat_range(part.gradient, begin, end - begin);
}

void Optimizer::sum_squares() {
  backend_.fill(sum_of_squares_.view(), 0);
  for (const auto& part : parts_) {
    const Tensor gradient = counted(part);
    if (!gradient.empty()) backend_.add_sum_of_squares(sum_of_squares_.view(), gradient);
  }
  double sum = 0;
  backend_.copy(host_view(&sum, 1), sum_of_squares_.view());
  ranks_.world.all_reduce(host_view(&sum, 1), Reduction::sum).wait();
  backend_.copy(sum_of_squares_.view(), host_view(&sum, 1));
}

void Optimizer::add_exactly(ExactSum& sum, const Tensor& values) const {
  std::vector<std::byte> memory;
  Tensor host = values;
  if (values.device() != DeviceKind::cpu) {
    memory.resize(values.bytes());
    host = Tensor(memory.data(), values.dtype(), DeviceKind::cpu, values.shape());
    backend_.copy(host, values);
  }
  dispatch_real(host.dtype(), [&]<class T>() {
    sum.add_squares(std::span<const T>(host.data<T>(), static_cast<std::size_t>(host.size())));
  });
}

void Optimizer::sum_squares_exactly() {
  ExactSum exact;
  for (const auto& part : parts_) {
    const Tensor gradient = counted(part);
    if (!gradient.empty()) add_exactly(exact, gradient);
  }
  exact.all_reduce(ranks_.world);
  double sum = exact.value();
  backend_.copy(sum_of_squares_.view(), host_view(&sum, 1));
}

UpdateResult Optimizer::update(double learning_rate, double loss) {
  const Tensor rate(control_.view().data(), DType::f64, control_.view().device(), {1});
  static_assert(StepControl::learning_rate == 0, "the rate is the first value of the control");
  backend_.copy(rate, host_view(&learning_rate, 1));
  backend_.copy(loss_.view(), host_view(&loss, 1));
  ranks_.mode == NumericsMode::invariant ? sum_squares_exactly() : sum_squares();
  backend_.decide_update(control_.view(), sum_of_squares_.view(), loss_.view(),
                         {config_.clip, config_.spike_factor});
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const OwnPart& part = parts_[i];
    const double decay = part.parameter->decay == WeightDecay::yes ? config_.weight_decay : 0;
    backend_.adamw(part.value, moment1(i), moment2(i), part.gradient, control_.view(),
                   {config_.betas[0], config_.betas[1], config_.eps, decay});
  }
  const Control after = control();
  return {after[StepControl::gradient_norm], after[StepControl::skip] != 0,
          static_cast<std::int64_t>(after[StepControl::skipped_in_row]),
          static_cast<std::int64_t>(after[StepControl::skipped_total])};
}

}  // namespace convoy
