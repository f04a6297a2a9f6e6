#include "models/parameters.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "core/backend.h"
#include "core/random.h"

namespace convoy {
namespace {

constexpr std::int64_t kAlignment = 64;  // elements; the start of each group of adjacent parameters

std::int64_t aligned(std::int64_t offset) {
  return (offset + kAlignment - 1) / kAlignment * kAlignment;
}

double initial_value(const Parameter& p, const RandomStream& random, std::int64_t index) {
  const double scale = p.initializer.scale;
  switch (p.initializer.kind) {
    case Initializer::Kind::constant: return scale;
    case Initializer::Kind::normal: return scale * random.normal(static_cast<std::uint64_t>(index));
    case Initializer::Kind::uniform:
      return scale * (2 * random.uniform(static_cast<std::uint64_t>(index)) - 1);
    case Initializer::Kind::first_row_one: return index < p.placement.shape.back() ? scale : 0;
  }
  return 0;
}

Tensor view_of(const Tensor& flat, std::int64_t offset, std::span<const std::int64_t> shape) {
  auto* start = static_cast<std::byte*>(flat.data()) +
                static_cast<std::size_t>(offset) * size_of(flat.dtype());
  return {start, flat.dtype(), flat.device(), shape};
}

}  // namespace

Parameter& ParameterStore::declare(std::string name, Placement placement, Initializer initializer,
                                   WeightDecay decay, Adjacent adjacent) {
  CHECK(backend_ == nullptr, name, " is declared after the parameters were laid out");
  if (const auto problem = placement_problem(name, placement, mesh_)) throw Error(*problem);
  Shard shard(placement, mesh_, position_);
  auto shape = shard.shape();
  parameters_.push_back({std::move(name),
                         std::move(placement),
                         std::move(shard),
                         std::move(shape),
                         initializer,
                         decay,
                         0,
                         {},
                         {},
                         {}});
  Parameter& parameter = parameters_.back();
  parameter.offset = adjacent == Adjacent::yes ? extent_ : aligned(extent_);
  extent_ = parameter.offset + parameter.size();
  return parameter;
}

Tensor& ParameterStore::declare_second_gradient(Parameter& parameter) {
  second_gradients_.push_back({&parameter, 0, {}});
  return second_gradients_.back().tensor;
}

void ParameterStore::allocate(Backend& backend, DType dtype, MasterWeights masters) {
  backend_ = &backend;
  const DType gradient_dtype = dtype == DType::f64 ? DType::f64 : DType::f32;
  gradient_extent_ = aligned(extent_);
  for (auto& second : second_gradients_) {
    second.offset = gradient_extent_;
    gradient_extent_ = aligned(gradient_extent_ + second.parameter->size());
  }
  values_ = OwnedTensor(backend, dtype, {aligned(extent_)});
  gradients_ = OwnedTensor(backend, gradient_dtype, {gradient_extent_});
  if (dtype == DType::bf16 && masters == MasterWeights::yes) {
    masters_ = OwnedTensor(backend, DType::f32, {aligned(extent_)});
  }
  for (auto& parameter : parameters_) {
    parameter.value = view_of(values_.view(), parameter.offset, parameter.shape);
    parameter.gradient = view_of(gradients_.view(), parameter.offset, parameter.shape);
    if (masters_.view().empty()) continue;
    parameter.master = view_of(masters_.view(), parameter.offset, parameter.shape);
  }
  for (auto& second : second_gradients_) {
    second.tensor = view_of(gradients_.view(), second.offset, second.parameter->shape);
  }
}

// A rank on a CPU is one thread; one that drives a GPU has the cores of the host to itself.
void ParameterStore::initialize(std::uint64_t seed) {
  constexpr std::int64_t kShare = std::int64_t{1} << 16;  // elements worth a thread
  const unsigned cores = backend_->device() == DeviceKind::cpu
                             ? 1
                             : std::clamp(std::thread::hardware_concurrency(), 1u, 32u);
  for (auto& parameter : parameters_) {
    const RandomStream random(seed, parameter.name);
    std::vector<double> host(static_cast<std::size_t>(parameter.size()));
    const auto fill = [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const auto index = parameter.shard.global_index_of(i);
        host[static_cast<std::size_t>(i)] = index ? initial_value(parameter, random, *index) : 0;
      }
    };
    const std::int64_t threads =
        std::clamp<std::int64_t>(parameter.size() / kShare, 1, static_cast<std::int64_t>(cores));
    const std::int64_t share = (parameter.size() + threads - 1) / threads;
    std::vector<std::jthread> helpers;
    for (std::int64_t i = 1; i < threads; ++i) {
      helpers.emplace_back(fill, i * share, std::min((i + 1) * share, parameter.size()));
    }
    fill(0, std::min(share, parameter.size()));
    helpers.clear();
    set(parameter, Tensor(host.data(), DType::f64, DeviceKind::cpu, parameter.shape));
  }
}

void ParameterStore::set(const Parameter& parameter, const Tensor& host) const {
  backend_->convert(parameter.exact(), host);
  if (!parameter.master.empty()) backend_->convert(parameter.value, parameter.master);
}

std::int64_t ParameterStore::count() const {
  std::int64_t total = 0;
  for (const auto& parameter : parameters_) total += parameter.size();
  return total;
}

void ParameterStore::zero_gradients() { backend_->fill(gradients_.view(), 0); }

void ParameterStore::add_second_gradients() {
  for (const auto& second : second_gradients_) {
    backend_->add(second.parameter->gradient, second.parameter->gradient, second.tensor);
  }
}

void reduce_partial_gradients(ParameterStore& store, Communicator& tp) {
  std::vector<Work> in_flight;
  for (const auto& parameter : store.all()) {
    if (!parameter.partial_over_tp()) continue;
    in_flight.push_back(tp.all_reduce(parameter.gradient, Reduction::sum));
  }
  for (auto& work : in_flight) work.wait();
}

Tensor ParameterStore::joined(const Tensor& first, std::int64_t rows, std::int64_t columns) {
  return {first.data(), first.dtype(), first.device(), {rows, columns}};
}

}  // namespace convoy
