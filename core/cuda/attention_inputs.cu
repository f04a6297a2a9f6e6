// Attention's inputs in one launch: the low-rank convolutions of q, k and v in bf16, then the norm
// of heads and RoPE while the outputs are in registers. A block walks down the rows of 128 channels
// (of as many whole heads as fit) of one of them.
//
// Backward, q and k with a norm: RoPE and the norm back in one pass, which makes the convolution's
// output again instead of reading it (as many bytes, and the forward pass need not write it); the
// convolutions' own backward passes follow. Where there is no norm, RoPE back is a pass in place.
#include "core/cuda/cuda_backend.h"
#include "core/cuda/head_tiles.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/partial_sums.cuh"

namespace convoy {
namespace cuda {
namespace {

constexpr int kMostInputs = 3;

struct Input {
  QuadConv conv;
  Rows<bf16> y;         // forward
  Rows<const bf16> dy;  // backward
  Rows<bf16> dconvolved;
  float* dnorm;  // [chunks, blocks, heads of a block, head_width], partial sums
  Rows<float> rstd;
  const bf16* norm;  // null: none
  bool rotates;
  int first_block, blocks;
};

struct InputsCall {
  Input input[kMostInputs];
  int count, head_width;
  float epsilon;
  const double* frequency;  // turns a position, [head_width / 2]
  const std::int32_t *reach, *positions;
  std::int64_t rows, chunk_rows;

  __host__ __device__ int block_heads() const { return kQuadChannels / head_width; }
  __host__ __device__ int block_channels() const { return block_heads() * head_width; }
};

// What a lane works on.
struct Place {
  QuadLane lane;
  int slot;             // of the tile in the ring
  int channel0;         // of the block
  std::int64_t t, end;  // the lane's first token, and where the block's rows end
  bool inside;          // the lane's channels exist

  __device__ bool has(int i) const { return inside && t + i < end; }
};

// The convolution's output becomes y, normalized and rotated.
__device__ inline void forward_tile(float (&v)[4][8], const HeadShared& shared,
                                    const InputsCall& call, const Input& input,
                                    const Place& place) {
  const QuadLane& lane = place.lane;
  if (input.norm != nullptr) {
    float sums[4], weight[8];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sums[i] = 0;
#pragma unroll
      for (int e = 0; e < 8; ++e) sums[i] += v[i][e] * v[i][e];
    }
    sum_over_heads(sums, shared, call.head_width);
    load_norm(weight, shared, lane);
    const int channel = place.channel0 + lane.lower;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float rstd = 1.0f / sqrtf(sums[i] / static_cast<float>(call.head_width) + call.epsilon);
      if (place.has(i) && channel % call.head_width == 0) {
        input.rstd.row(place.t + i)[channel / call.head_width] = rstd;
      }
#pragma unroll
      for (int e = 0; e < 8; ++e) v[i][e] *= rstd * weight[e];
    }
  }
  if (input.rotates) rotate<false>(v, shared, LaneRows(place.slot), lane, call.head_width / 2);
}

// dy of the lane's quads, zeros where there is none.
__device__ inline void load_gradient(Pair (&dy)[4][4], const Input& input, const Place& place) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    uint2 low = {0, 0}, high = {0, 0};
    if (place.has(i)) {
      const bf16* row = input.dy.row(place.t + i) + place.channel0;
      low = *reinterpret_cast<const uint2*>(row + place.lane.lower);
      high = *reinterpret_cast<const uint2*>(row + place.lane.upper);
    }
    dy[i][0] = low.x, dy[i][1] = low.y, dy[i][2] = high.x, dy[i][3] = high.y;
  }
}

// The convolution's output becomes its gradient r (w d - n mean(w d n)), with n = v r and d what
// comes back through the rotation; dnorm gets d n.
__device__ inline void backward_tile(float (&v)[4][8], float (&dnorm)[8], const Pair (&dy)[4][4],
                                     const HeadShared& shared, const InputsCall& call,
                                     const Input& input, const Place& place) {
  float d[4][8], weight[8], sums[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      d[i][2 * q] = low_of(dy[i][q]), d[i][2 * q + 1] = high_of(dy[i][q]);
    }
  }
  if (input.rotates) rotate<true>(d, shared, LaneRows(place.slot), place.lane, call.head_width / 2);
  load_norm(weight, shared, place.lane);
  const int head = (place.channel0 + place.lane.lower) / call.head_width;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float rstd = place.has(i) ? input.rstd.row(place.t + i)[head] : 0.0f;
    sums[i] = 0;
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      v[i][e] *= rstd;
      dnorm[e] += d[i][e] * v[i][e];
      d[i][e] *= weight[e];
      sums[i] += d[i][e] * v[i][e];
      d[i][e] *= rstd;
    }
    sums[i] *= rstd / static_cast<float>(call.head_width);
  }
  sum_over_heads(sums, shared, call.head_width);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int e = 0; e < 8; ++e) v[i][e] = d[i][e] - v[i][e] * sums[i];
  }
}

// The block's share of the norm's gradient, a row a head.
__device__ inline void store_norm_gradient(float (&dnorm)[8], const InputsCall& call,
                                           const Input& input, const QuadLane& lane) {
#pragma unroll
  for (int e = 0; e < 8; ++e) {
    for (int other = 4; other < 32; other *= 2) {
      dnorm[e] += __shfl_xor_sync(~0u, dnorm[e], other);
    }
  }
  if (!lane.inside || threadIdx.x % 32 >= 4) return;
  const std::int64_t block =
      blockIdx.y * std::int64_t{input.blocks} + blockIdx.x - input.first_block;
  float* to = input.dnorm + block * call.block_channels();
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    to[lane.lower + e] = dnorm[e];
    to[lane.upper + e] = dnorm[4 + e];
  }
}

template <bool Backward>
__global__ void __launch_bounds__(kQuadThreads, 2)
    inputs_kernel(const __grid_constant__ InputsCall call) {
  extern __shared__ __align__(16) char memory[];
  wait_for_previous();
  allow_next();
  int index = 0;
  while (index + 1 < call.count && blockIdx.x >= call.input[index + 1].first_block) ++index;
  const Input& input = call.input[index];
  const HeadShared shared(shared_address(memory));
  const QuadOrder order{call.head_width / 2};
  const int width = call.block_channels();
  const QuadChannels channels{static_cast<int>(blockIdx.x - input.first_block) * width, width};
  const std::int64_t first = blockIdx.y * call.chunk_rows;
  const std::int64_t end = min(first + call.chunk_rows, call.rows);
  QuadLoader<1> loader(shared_address(memory), &input.conv, channels, call.reach, call.positions,
                       call.rows, first);
  for (int block = 0; block < 3; ++block) loader.next();
  load_quad_filters(shared, &input.conv, channels, order);
  load_head_constants(shared, call.frequency, input.norm, call.head_width);
  __syncthreads();
  ColumnFilters filters[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) filters[j].load(shared, j);
  const QuadLane lane(order, width);
  const Rows<bf16>& to = Backward ? input.dconvolved : input.y;
  const bool inside = lane.inside && channels.first + lane.lower < input.conv.channels;
  float dnorm[8] = {};
  for (int tile = 0; first + tile * kTokens < end; ++tile) {
    wait_copies<1>();
    __syncthreads();
    loader.next();
    const std::int64_t tile_first = first + tile * kTokens;
    const Place place{lane,
                      (kLead + tile * kTokens) % kRing,
                      channels.first,
                      tile_first + threadIdx.x % 32 / 4 * 4,
                      end,
                      inside};
    Pair packed[4][4];
    if (Backward) load_gradient(packed, input, place);  // used after the convolution
    float v[4][8];
    convolve_tile<true>(v, filters, shared, place.slot, lane, input.conv);
    if (Backward) {
      backward_tile(v, dnorm, packed, shared, call, input, place);
    } else {
      forward_tile(v, shared, call, input, place);
    }
    pack_quads(packed, v);
    if (inside) store_quads({to.data + channels.first, to.stride}, packed, lane, tile_first, end);
  }
  wait_copies<0>();
  if (Backward) store_norm_gradient(dnorm, call, input, lane);
}

bool takes(std::span<const AttentionInput> inputs, const HeadsShape& shape) {
  const std::int64_t width = shape.head_width;
  bool all = !inputs.empty() && inputs.size() <= kMostInputs && inputs[0].x.size() > 0 &&
             width % 32 == 0 && width <= kQuadChannels;
  for (const AttentionInput& in : inputs) {
    all = all && quads_take(in.filters, in.conv, shape.rows, in.x) && packable(16, {in.y});
  }
  return all;
}

// A call for the inputs that `add` gives to it, one by one.
class InputsLaunch {
 public:
  InputsLaunch(const HeadsShape& shape, const double* frequency) {
    call_.head_width = static_cast<int>(shape.head_width);
    call_.epsilon = static_cast<float>(shape.norm_epsilon);
    call_.frequency = frequency;
    call_.reach = shape.rows.reach.data<std::int32_t>();
    call_.positions = shape.positions.data<std::int32_t>();
  }

  Input& add(const AttentionInput& in) {
    Input& input = call_.input[call_.count++];
    input = {};
    input.conv = describe_quads(in.filters, in.conv, in.x);
    input.y = rows_of<bf16>(in.y);
    input.rstd = rows_of<float>(in.rstd);
    input.norm = in.norm_weight.empty() ? nullptr : data_of<bf16>(in.norm_weight);
    input.rotates = in.rotates;
    input.first_block = blocks_;
    input.blocks = ceil_div(input.conv.channels, call_.block_channels());
    blocks_ += input.blocks;
    call_.rows = in.x.rows();
    call_.chunk_rows = quad_chunk_rows(call_.rows, blocks_);
    return input;
  }
  std::int64_t chunks() const { return ceil_div(call_.rows, call_.chunk_rows); }
  // Rows of an input's partial sums of the norm's gradient.
  std::int64_t norm_rows(int i) const {
    return chunks() * call_.input[i].blocks * call_.block_heads();
  }
  Input& input(int i) { return call_.input[i]; }
  int count() const { return call_.count; }

  template <bool Backward>
  void run(cudaStream_t stream) const {
    const dim3 grid(static_cast<unsigned>(blocks_), static_cast<unsigned>(chunks()));
    launch_overlapped(inputs_kernel<Backward>, grid, kQuadThreads, HeadShared::kAllBytes, stream,
                      call_);
  }

 private:
  InputsCall call_{};
  int blocks_ = 0;
};

}  // namespace
}  // namespace cuda

void CudaBackend::attention_inputs_forward(std::span<const AttentionInput> inputs,
                                           const HeadsShape& shape) {
  using namespace cuda;
  if (!takes(inputs, shape)) return Backend::attention_inputs_forward(inputs, shape);
  InputsLaunch launch(shape, rope_frequencies(shape.head_width, shape.rope_theta));
  for (const AttentionInput& in : inputs) launch.add(in);
  launch.run<false>(stream_);
}

void CudaBackend::attention_inputs_backward(std::span<const AttentionInputGradients> gradients,
                                            std::span<const AttentionInput> inputs,
                                            const HeadsShape& shape) {
  using namespace cuda;
  const bool made_again = takes(inputs, shape);  // the forward pass left `convolved` unwritten
  bool one_pass = made_again && mode_ == NumericsMode::fast;
  bool normed = false;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].norm_weight.empty()) continue;
    normed = true;
    one_pass = one_pass && packable(16, {gradients[i].dy, gradients[i].dconvolved});
  }
  if (!one_pass || !normed) {
    for (const AttentionInput& in : inputs) {
      if (!made_again || in.norm_weight.empty()) continue;
      conv_forward(in.convolved, in.x, in.filters, in.conv, shape.rows);
    }
    return Backend::attention_inputs_backward(gradients, inputs, shape);
  }

  InputsLaunch launch(shape, rope_frequencies(shape.head_width, shape.rope_theta));
  Tensor dnorm_weights[kMostInputs];
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].norm_weight.empty()) continue;
    dnorm_weights[launch.count()] = gradients[i].dnorm_weight;
    Input& input = launch.add(inputs[i]);
    input.dy = read_rows<bf16>(gradients[i].dy);
    input.dconvolved = rows_of<bf16>(gradients[i].dconvolved);
  }
  std::int64_t partial_rows = 0;
  for (int i = 0; i < launch.count(); ++i) partial_rows += launch.norm_rows(i);
  workspace_->begin(static_cast<std::size_t>(partial_rows * shape.head_width) * sizeof(float) +
                    kMostInputs * 256);
  for (int i = 0; i < launch.count(); ++i) {
    launch.input(i).dnorm = workspace_->take<float>(launch.norm_rows(i) * shape.head_width);
  }
  launch.run<true>(stream_);
  for (int i = 0; i < launch.count(); ++i) {
    add_partials(data_of<float>(dnorm_weights[i]), launch.input(i).dnorm, shape.head_width,
                 launch.norm_rows(i), stream_);
  }
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const AttentionInput& in = inputs[i];
    const bool back = !in.norm_weight.empty();
    if (in.rotates && !back) {
      rope(gradients[i].dy, shape.positions, shape.head_width, shape.rope_theta,
           RopeDirection::backward);
    }
    conv_backward(gradients[i].conv, back ? gradients[i].dconvolved : gradients[i].dy, in.x,
                  in.filters, in.conv, shape.rows);
  }
}

}  // namespace convoy
