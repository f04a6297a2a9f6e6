#include "models/parameters.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "core/backend.h"
#include "core/random.h"

namespace convoy {
namespace {

constexpr std::int64_t kAlignment = 64;  // elements; the start of each group of adjacent parameters

std::int64_t aligned(std::int64_t offset, std::int64_t alignment = kAlignment) {
  return (offset + alignment - 1) / alignment * alignment;
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
  if (buckets_.empty() || buckets_.back().second) begin_bucket();
  Parameter& parameter = parameters_.back();
  parameter.offset = adjacent == Adjacent::yes ? extent_ : aligned(extent_);
  extent_ = parameter.offset + parameter.size();
  return parameter;
}

void ParameterStore::divide_buckets(int parts) {
  CHECK(parameters_.empty(), "buckets are divided before anything is declared");
  alignment_ = kAlignment * parts;
}

std::size_t ParameterStore::begin_bucket() {
  end_bucket();
  buckets_.push_back({extent_, 0, extent_});
  return buckets_.size() - 1;
}

// Completes the bucket at hand; a second time it changes nothing.
void ParameterStore::end_bucket() {
  if (buckets_.empty() || buckets_.back().second) return;
  extent_ = aligned(extent_, alignment_);
  buckets_.back().size = extent_ - buckets_.back().begin;
}

Tensor& ParameterStore::declare_second_gradient(Parameter& parameter) {
  end_bucket();
  const auto own = std::find_if(buckets_.begin(), buckets_.end(), [&](const Bucket& bucket) {
    return bucket.begin == parameter.offset && !bucket.second;
  });
  CHECK(own != buckets_.end() && own->size == aligned(parameter.size(), alignment_), parameter.name,
        " is not alone in its bucket");
  buckets_.push_back({own->begin, own->size, 0, true});
  second_gradients_.push_back({&parameter, buckets_.size() - 1, {}});
  return second_gradients_.back().tensor;
}

void ParameterStore::allocate(Backend& backend, DType dtype, StoreMemory memory) {
  end_bucket();
  backend_ = &backend;
  dtype_ = dtype;
  gradient_extent_ = extent_;
  for (auto& bucket : buckets_) {
    if (!bucket.second) continue;
    bucket.gradient_begin = gradient_extent_;
    gradient_extent_ += bucket.size;
  }
  if (memory.values) values_ = OwnedTensor(backend, dtype, {extent_});
  if (memory.gradients) gradients_ = OwnedTensor(backend, gradient_dtype(), {gradient_extent_});
  if (dtype == DType::bf16 && memory.masters == MasterWeights::yes) {
    masters_ = OwnedTensor(backend, DType::f32, {extent_});
  }
  for (std::size_t i = 0; i < buckets_.size(); ++i) {
    if (memory.values && !buckets_[i].second) bind_values(i, bucket_values(i));
    if (memory.gradients) bind_gradients(i, bucket_gradients(i));
  }
  if (masters_.view().empty()) return;
  for (auto& parameter : parameters_) {
    parameter.master = view_of(masters_.view(), parameter.offset, parameter.shape);
  }
}

Tensor ParameterStore::bucket_values(std::size_t bucket) const {
  const std::int64_t size = buckets_.at(bucket).size;
  return view_of(values_.view(), buckets_[bucket].begin, {&size, 1});
}

Tensor ParameterStore::bucket_masters(std::size_t bucket) const {
  if (masters_.view().empty()) return {};
  const std::int64_t size = buckets_.at(bucket).size;
  return view_of(masters_.view(), buckets_[bucket].begin, {&size, 1});
}

Tensor ParameterStore::bucket_gradients(std::size_t bucket) const {
  const std::int64_t size = buckets_.at(bucket).size;
  return view_of(gradients_.view(), buckets_[bucket].gradient_begin, {&size, 1});
}

void ParameterStore::bind_values(std::size_t bucket, const Tensor& flat) {
  const Bucket& range = buckets_.at(bucket);
  CHECK(!range.second && flat.size() == range.size, "bucket ", bucket, " of ", range.size,
        " elements is bound to ", flat.describe());
  for (auto& parameter : parameters_) {
    const std::int64_t place = parameter.offset - range.begin;
    if (place < 0 || place >= range.size) continue;
    parameter.value = view_of(flat, place, parameter.shape);
  }
}

void ParameterStore::bind_gradients(std::size_t bucket, const Tensor& flat) {
  const Bucket& range = buckets_.at(bucket);
  CHECK(flat.size() == range.size, "bucket ", bucket, " of ", range.size, " elements is bound to ",
        flat.describe());
  for (auto& second : second_gradients_) {
    if (second.bucket != bucket) continue;
    second.tensor = view_of(flat, 0, second.parameter->shape);
    return;
  }
  for (auto& parameter : parameters_) {
    const std::int64_t place = parameter.offset - range.begin;
    if (place < 0 || place >= range.size) continue;
    parameter.gradient = view_of(flat, place, parameter.shape);
  }
}

std::vector<ParameterPart> ParameterStore::parts_of(std::int64_t begin, std::int64_t end) const {
  std::vector<ParameterPart> parts;
  for (const auto& parameter : parameters_) {
    const std::int64_t from = std::max(begin, parameter.offset);
    const std::int64_t to = std::min(end, parameter.offset + parameter.size());
    if (from < to) parts.push_back({&parameter, from - parameter.offset, to - from});
  }
  return parts;
}

void ParameterStore::initialize(std::uint64_t seed) {
  for (std::size_t i = 0; i < buckets_.size(); ++i) {
    if (buckets_[i].second) continue;
    const Tensor values = bucket_values(i), masters = bucket_masters(i);
    initial_values(seed, buckets_[i].begin, masters.empty() ? values : masters);
    if (!masters.empty()) backend_->convert(values, masters);
  }
}

// A rank on a CPU is one thread; one that drives a GPU has the cores of the host to itself.
void ParameterStore::initial_values(std::uint64_t seed, std::int64_t begin,
                                    const Tensor& out) const {
  constexpr std::int64_t kShare = std::int64_t{1} << 16;  // elements worth a thread
  const unsigned cores = backend_->device() == DeviceKind::cpu
                             ? 1
                             : std::clamp(std::thread::hardware_concurrency(), 1u, 32u);
  for (const auto& place : parts_of(begin, begin + out.size())) {
    const RandomStream random(seed, place.parameter->name);
    std::vector<double> host(static_cast<std::size_t>(place.count));
    const auto fill = [&](std::int64_t from, std::int64_t to) {
      for (std::int64_t i = from; i < to; ++i) {
        const auto index = place.parameter->shard.global_index_of(place.first + i);
        host[static_cast<std::size_t>(i)] =
            index ? initial_value(*place.parameter, random, *index) : 0;
      }
    };
    const std::int64_t threads =
        std::clamp<std::int64_t>(place.count / kShare, 1, static_cast<std::int64_t>(cores));
    const std::int64_t share = (place.count + threads - 1) / threads;
    std::vector<std::jthread> helpers;
    for (std::int64_t i = 1; i < threads; ++i) {
      helpers.emplace_back(fill, i * share, std::min((i + 1) * share, place.count));
    }
    fill(0, std::min(share, place.count));
    helpers.clear();
    const Tensor from(host.data(), DType::f64, DeviceKind::cpu, {place.count});
    backend_->convert(view_of(out, place.parameter->offset + place.first - begin, from.shape()),
                      from);
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
