// Parameters of a model: declared one by one under their global names, then laid out in flat
// buffers (values, gradients) in the order of declaration. Optimizer, checkpoints, reductions and
// initialisation all go over this one list.
//
// A parameter is declared by its global shape and its Placement; what is stored, and what `shape`,
// `value` and `gradient` show, is this rank's shard of it.
//
// The flat buffers are cut into buckets (the embedding, each block, the head): what is summed over
// ranks at one time, and what is divided among them, never by a parameter's dimension, where each
// keeps only a part of the weights, gradients or moments.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "core/memory.h"
#include "parallel/placement.h"

namespace convoy {

// How a parameter starts: a function of the seed, its name and the element's global index.
struct Initializer {
  enum class Kind : std::uint8_t { constant, normal, uniform, first_row_one } kind;
  double scale;  // the constant; the standard deviation; half the uniform's width

  static Initializer constant(double value) { return {Kind::constant, value}; }
  static Initializer normal(double deviation) { return {Kind::normal, deviation}; }
  static Initializer uniform(double half_width) { return {Kind::uniform, half_width}; }
  static Initializer first_row_one() { return {Kind::first_row_one, 1}; }
};

enum class WeightDecay : bool { no, yes };
// A parameter stored right behind the one declared before, so that both are one taller matrix.
enum class Adjacent : bool { no, yes };

struct Parameter {
  std::string name;                 // global, "blocks.7.attention.q.conv.U"
  Placement placement;              // with the global shape
  Shard shard;                      // what this rank holds of it
  std::vector<std::int64_t> shape;  // local, padding included
  Initializer initializer;
  WeightDecay decay;
  std::int64_t offset = 0;  // elements from the start of the flat buffers
  Tensor value;             // in the dtype of the run
  Tensor master;            // f32, of which a bf16 value is the rounding; absent where not kept
  Tensor gradient;          // f32; f64 in an f64 run

  std::int64_t size() const { return shard.size(); }  // local
  const Tensor& exact() const { return master.empty() ? value : master; }
  // Whether each tp rank has a share of the gradient only: see reduce_partial_gradients.
  bool partial_over_tp() const { return placement.gradient == LocalGradient::partial_over_tp; }
};

// Whether f32 weights are kept beside bf16 ones, for training.
enum class MasterWeights : bool { no, yes };

// A range of the flat buffers. Where a parameter is used in two places (a tied table), the second
// accumulator of its gradient is a bucket that lies behind all others and has no values: `begin`
// and `size` are those of the parameter's own bucket.
struct Bucket {
  std::int64_t begin, size;     // elements of the value buffer
  std::int64_t gradient_begin;  // of the gradient buffer: the same but for a second accumulator
  bool second = false;
};

// Elements [first, first + count) of a parameter, row-major.
struct ParameterPart {
  const Parameter* parameter;
  std::int64_t first, count;
};

// Which flat buffers allocate() makes; what it does not make is bound by bucket. Masters are made
// beside bf16 values only.
struct StoreMemory {
  bool values = true, gradients = true;
  MasterWeights masters = MasterWeights::no;
};

class ParameterStore {
 public:
  ParameterStore() = default;  // of a lone rank
  ParameterStore(const MeshShape& mesh, const MeshPosition& position)
      : mesh_(mesh), position_(position) {}
  ParameterStore(const ParameterStore&) = delete;
  ParameterStore& operator=(const ParameterStore&) = delete;

  Parameter& declare(std::string name, Placement placement, Initializer initializer,
                     WeightDecay decay, Adjacent adjacent = Adjacent::no);
  // A second gradient accumulator, in a bucket of its own, for a parameter that is used in two
  // places and alone in its bucket. It is added to the parameter's gradient once a step.
  Tensor& declare_second_gradient(Parameter& parameter);

  // Makes every bucket a multiple of `parts` aligned parts. Before anything is declared.
  void divide_buckets(int parts);
  // What is declared from here on belongs to a new bucket; returns its index.
  std::size_t begin_bucket();
  const std::vector<Bucket>& buckets() const { return buckets_; }
  std::int64_t extent() const { return extent_; }  // elements of the value buffer, gaps included
  DType dtype() const { return dtype_; }           // of values
  DType gradient_dtype() const { return dtype_ == DType::f64 ? DType::f64 : DType::f32; }

  void allocate(Backend& backend, DType dtype, StoreMemory memory = {});
  // Each element by its global index, so every layout starts from the same model; padding is 0.
  void initialize(std::uint64_t seed);
  // Sets a parameter from host memory, in any floating dtype.
  void set(const Parameter& parameter, const Tensor& host) const;
  // The initial values of elements [begin, begin + out.size()) of the value buffer.
  void initial_values(std::uint64_t seed, std::int64_t begin, const Tensor& out) const;

  // Lets a bucket's parameters live in memory of the caller's, [bucket.size].
  void bind_values(std::size_t bucket, const Tensor& flat);
  void bind_gradients(std::size_t bucket, const Tensor& flat);
  // A bucket's part of the buffers that allocate() made.
  Tensor bucket_values(std::size_t bucket) const;
  Tensor bucket_masters(std::size_t bucket) const;  // empty where none are kept
  Tensor bucket_gradients(std::size_t bucket) const;

  // What lies in [begin, end) of the value buffer, in order.
  std::vector<ParameterPart> parts_of(std::int64_t begin, std::int64_t end) const;

  std::deque<Parameter>& all() { return parameters_; }
  const std::deque<Parameter>& all() const { return parameters_; }
  std::int64_t count() const;  // of all parameters, this rank's elements

  Tensor values() const { return values_.view(); }
  Tensor masters() const { return masters_.view(); }      // empty where none are kept
  Tensor gradients() const { return gradients_.view(); }  // second accumulators included
  void zero_gradients();
  void add_second_gradients();

  // Rows of consecutive adjacent parameters of `columns` columns, as one matrix.
  static Tensor joined(const Tensor& first, std::int64_t rows, std::int64_t columns);

 private:
  struct SecondGradient {
    Parameter* parameter;
    std::size_t bucket;
    Tensor tensor;
  };

  void end_bucket();

  MeshShape mesh_;
  MeshPosition position_;
  std::deque<Parameter> parameters_;
  std::deque<SecondGradient> second_gradients_;
  std::vector<Bucket> buckets_;
  std::int64_t alignment_ = 64;  // elements; of where buckets begin and end
  std::int64_t extent_ = 0;
  std::int64_t gradient_extent_ = 0;  // the same with second accumulators
  DType dtype_ = DType::f32;
  Backend* backend_ = nullptr;
  OwnedTensor values_, masters_, gradients_;
};

// Sums over tp the gradients of which each rank has a share. Once per step, after the last
// micro-batch, before they are summed over the gradient group. Collective over tp.
void reduce_partial_gradients(ParameterStore& store, Communicator& tp);

}  // namespace convoy
