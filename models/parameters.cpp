#include "models/parameters.h"

#include <algorithm>
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

void ParameterStore::allocate(Backend& backend, DType dtype) {
  backend_ = &backend;
  const DType gradient_dtype = dtype == DType::f64 ? DType::f64 : DType::f32;
  gradient_extent_ = aligned(extent_);
  for (auto& second : second_gradients_) {
    second.offset = gradient_extent_;
    gradient_extent_ = aligned(gradient_extent_ + second.parameter->size());
  }
  values_ = OwnedTensor(backend, dtype, {aligned(extent_)});
  gradients_ = OwnedTensor(backend, gradient_dtype, {gradient_extent_});
  for (auto& parameter : parameters_) {
    parameter.value = view_of(values_.view(), parameter.offset, parameter.shape);
    parameter.gradient = view_of(gradients_.view(), parameter.offset, parameter.shape);
  }
  for (auto& second : second_gradients_) {
    second.tensor = view_of(gradients_.view(), second.offset, second.parameter->shape);
  }
}

void ParameterStore::initialize(std::uint64_t seed) {
  for (auto& parameter : parameters_) {
    const RandomStream random(seed, parameter.name);
    std::vector<double> host(static_cast<std::size_t>(parameter.size()));
    for (std::size_t i = 0; i < host.size(); ++i) {
      const auto index = parameter.shard.global_index_of(static_cast<std::int64_t>(i));
      host[i] = index ? initial_value(parameter, random, *index) : 0;
    }
    backend_->convert(parameter.value,
                      Tensor(host.data(), DType::f64, DeviceKind::cpu, parameter.shape));
  }
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
