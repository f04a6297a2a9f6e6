#include "launch/optimizer.h"

#include <optional>

#include "core/backend.h"
#include "launch/own_range.h"
#include "parallel/exact_sum.h"

namespace convoy {
namespace {

Tensor host_view(double* data, std::int64_t count) {
  return {data, DType::f64, DeviceKind::cpu, {count}};
}

// Elements from the beginning of `a` to that of `b`, in the dtype of both.
std::int64_t distance(const Tensor& a, const Tensor& b) {
  const auto* first = static_cast<const std::byte*>(a.data());
  return (static_cast<const std::byte*>(b.data()) - first) /
         static_cast<std::ptrdiff_t>(size_of(a.dtype()));
}

// Elements from the beginning of a part to that of the next, where nothing but padding lies between
// them and value, gradient and master are equally far apart; else none.
std::optional<std::int64_t> step_between(const OwnPart& a, const OwnPart& b) {
  constexpr std::int64_t kMostPadding = 256;  // elements
  const std::int64_t step = distance(a.value, b.value);
  if (step < a.count || step > a.count + kMostPadding) return {};
  if (distance(a.gradient, b.gradient) != step) return {};
  if (!a.master.empty() && distance(a.master, b.master) != step) return {};
  return step;
}

// [count] elements from the beginning of a part's tensor on, into the parts behind it.
Tensor extended(const Tensor& t, std::int64_t count) {
  return t.empty() ? Tensor() : Tensor(t.data(), t.dtype(), t.device(), {count});
}

Communicator& alone() {
  static const auto self = make_self_communicator();  // has no state
  return *self;
}

}  // namespace

std::vector<OwnPart> whole_parts(ParameterStore& store) {
  std::vector<OwnPart> parts;
  for (const auto& p : store.all()) {
    const auto flat = [&](const Tensor& t) { return t.empty() ? t : t.reshape({t.size()}); };
    parts.push_back({&p, 0, p.size(), flat(p.value), flat(p.gradient), flat(p.master)});
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
  place_parts();
  // In a very small model a rank may have no part of anything.
  const DType dtype = parts_.empty() ? DType::f32 : parts_.front().gradient.dtype();
  const std::int64_t extent = parts_.empty() ? 0 : places_.back() + parts_.back().count;
  moment1_ = OwnedTensor(backend, dtype, {extent});
  moment2_ = OwnedTensor(backend, dtype, {extent});
}

Optimizer::Optimizer(Backend& backend, ParameterStore& store, const OptimizerConfig& config)
    : Optimizer(backend, whole_parts(store), {alone()}, config) {}

Tensor Optimizer::moment(const Tensor& flat, std::size_t part) const {
  return flat_range(flat, places_[part], parts_[part].count);
}

// Moments lie as far apart as the parts do, so that a span is one run of elements in all of them.
void Optimizer::place_parts() {
  constexpr std::int64_t kAlignment = 64;  // elements
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const OwnPart& part = parts_[i];
    const double decay = part.parameter->decay == WeightDecay::yes ? config_.weight_decay : 0;
    const auto step = i == 0 ? std::nullopt : step_between(parts_[i - 1], part);
    if (step) {
      places_.push_back(places_.back() + *step);
    } else {
      const std::int64_t end = i == 0 ? 0 : places_.back() + parts_[i - 1].count;
      places_.push_back((end + kAlignment - 1) / kAlignment * kAlignment);
    }
    if (step && spans_.back().decay == decay) {
      spans_.back().count = places_[i] + part.count - places_[spans_.back().first_part];
    } else {
      spans_.push_back({i, part.count, decay});
    }
  }
}

void Optimizer::set(std::size_t part, const Tensor& value, const Tensor& first,
                    const Tensor& second) {
  const OwnPart& p = parts_[part];
  CHECK(value.dtype() == p.exact().dtype() && first.dtype() == moment1_.view().dtype() &&
            second.dtype() == moment2_.view().dtype(),
        p.parameter->name, " from ", value.describe(), ", kept in ", p.exact().describe(),
        "; moments from ", first.describe(), " and ", second.describe(), ", kept in ",
        moment1_.view().describe());
  backend_.copy(p.exact(), value);
  if (!p.master.empty()) backend_.convert(p.value, p.master);
  backend_.copy(moment1(part), first);
  backend_.copy(moment2(part), second);
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

std::vector<Tensor> Optimizer::counted_gradients() const {
  std::vector<Tensor> gradients;
  for (const auto& part : parts_) {
    if (const Tensor gradient = counted(part); !gradient.empty()) gradients.push_back(gradient);
  }
  return gradients;
}

void Optimizer::sum_squares() {
  backend_.fill(sum_of_squares_.view(), 0);
  backend_.add_sums_of_squares(sum_of_squares_.view(), counted_gradients());
  if (ranks_.world.size() == 1) return;
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
  for (const Tensor& gradient : counted_gradients()) add_exactly(exact, gradient);
  exact.all_reduce(ranks_.world);
  double sum = exact.value();
  backend_.copy(sum_of_squares_.view(), host_view(&sum, 1));
}

UpdateResult Optimizer::update(double learning_rate, double loss) {
  set_rate(learning_rate);
  backend_.copy(loss_.view(), host_view(&loss, 1));
  apply(loss_.view());
  return result();
}

void Optimizer::set_rate(double learning_rate) {
  const Tensor rate(control_.view().data(), DType::f64, control_.view().device(), {1});
  static_assert(StepControl::learning_rate == 0, "the rate is the first value of the control");
  backend_.copy(rate, host_view(&learning_rate, 1));
}

void Optimizer::apply(const Tensor& loss) {
  ranks_.mode == NumericsMode::invariant ? sum_squares_exactly() : sum_squares();
  backend_.decide_update(control_.view(), sum_of_squares_.view(), loss,
                         {config_.clip, config_.spike_factor});
  std::vector<AdamWTensors> updated;
  for (const Span& span : spans_) {
    const OwnPart& part = parts_[span.first_part];
    const auto of_span = [&](const Tensor& t) { return extended(t, span.count); };
    updated.push_back({of_span(part.value), of_span(part.master), of_span(moment1(span.first_part)),
                       of_span(moment2(span.first_part)), of_span(part.gradient), span.decay});
  }
  backend_.adamw_all(updated, control_.view(),
                     {config_.betas[0], config_.betas[1], config_.eps, config_.weight_decay});
}

std::unique_ptr<Arrival> Optimizer::fetch(Control& control) const {
  return backend_.copy_behind(host_view(control.data(), StepControl::kCount), control_.view());
}

UpdateResult Optimizer::result_of(const Control& control) {
  return {control[StepControl::gradient_norm], control[StepControl::skip] != 0,
          static_cast<std::int64_t>(control[StepControl::skipped_in_row]),
          static_cast<std::int64_t>(control[StepControl::skipped_total])};
}

}  // namespace convoy
