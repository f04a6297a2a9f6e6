// Attention's inputs in one launch: the low-rank convolutions of q, k and v in bf16, then the norm
// of heads and RoPE while the outputs are in registers. A block walks down the rows of 128 channels
// (of as many whole heads as fit) of one of them.
//
// Backward, q and k with a norm: RoPE and the norm back in one pass, which makes the convolution's
// output again instead of reading it (as many bytes, and the forward pass need not write it); the
// convolutions' own backward passes follow. Where there is no norm, RoPE back is a pass in place.
#include "core/cuda/conv_mma_heads.cuh"
#include "core/cuda/cuda_backend.h"
#include "core/cuda/partial_sums.cuh"

namespace convoy {
namespace cuda {
namespace {

using namespace mma_conv;

constexpr int kMostInputs = 3;
constexpr int resident(bool backward) { return backward ? 2 : 3; }  // blocks an SM

struct Input {
  MmaConvCall conv;
  Rows<bf16> y;  // forward, or the gradient of what is convolved
  float* dnorm;  // [chunks, blocks, heads of a block, head_width], partial sums
  Rows<float> rstd;
  const bf16* norm;  // null: none
  bool rotates;
  int first_block, blocks;
};

struct InputsCall {
  Input input[kMostInputs];
  int count, head_width;
  float inverse_width, epsilon;  // 1 / head_width
  const double* frequency;       // turns a position, [head_width / 2]
  const std::int32_t* positions;
  std::int64_t rows, chunk_rows;

  __host__ __device__ int block_heads() const { return 2 * kHalfChannels / head_width; }
  __host__ __device__ int block_channels() const { return block_heads() * head_width; }
};

// A lane's four channels of one of the inputs.
template <bool Backward>
class InputPart {
  using Memory = HeadBlock<Backward>;
  using Values = float[kOwn][2];

 public:
  __device__ InputPart(const InputsCall& call, const Input& input, std::uint32_t memory,
                       int channel0)
      : call_(call),
        input_(input),
        channel0_(channel0),
        lane_(call.head_width, call.block_channels()),
        head_((channel0 + lane_.lower) / call.head_width),
        constants_(lane_, call.frequency, input.norm),
        ranks_(LaneFilters<false>::z_byte(input.conv, channel0, 16)),
        lower_(input.conv, channel0, lane_.lower, lane_.inside, taps(memory, 0)),
        upper_(input.conv, channel0, lane_.upper(), lane_.inside, taps(memory, 1)) {}

  // Whole: all rows of the tile exist, and no tap meets a document's start. first: its first row.
  template <bool Whole>
  __device__ void run(std::uint32_t memory, unsigned tile, int first) {
    LaneReach reach;
    if (!Whole) reach.load(memory + Memory::kReach, tile);
    Values lower, upper;
    uint2 z[kOwn - 1];
    ranks_.template load<kOwn / 2>(z, memory + Memory::kZ, tile);
    lower_.template convolve<Whole>(lower, z, memory, tile, reach);
    upper_.template convolve<Whole>(upper, z, memory, tile, reach);
    if constexpr (Backward) {
      backward(lower, upper, memory, tile, first);
    } else {
      if (input_.norm != nullptr) normalize(lower, upper, memory, first);
      if (input_.rotates) {
        constants_.template rotate<false>(lower, upper, memory + Memory::kPositions, tile);
      }
    }
    store<Whole>(lower, lane_.lower, first);
    store<Whole>(upper, lane_.upper(), first);
  }

  // The block's share of the norm's gradient, a row a head.
  __device__ void store_norm_gradient() {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float& sum = dnorm_[i / 2][i % 2];
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
    }
    if (!lane_.inside || threadIdx.x % 4 != 0) return;
    const std::int64_t block =
        blockIdx.y * std::int64_t{input_.blocks} + blockIdx.x - input_.first_block;
    float* to = input_.dnorm + block * call_.block_channels();
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      to[lane_.lower + e] = dnorm_[0][e];
      to[lane_.upper() + e] = dnorm_[1][e];
    }
  }

 private:
  static __device__ std::uint32_t taps(std::uint32_t memory, int part) {
    const int warp = threadIdx.x / 32;
    return memory + Memory::kStatic +
           (part * kHeadWarps + warp) * LanePair<Memory::kPitch>::kStaticBytes;
  }
  __device__ bool has_token(int first) const {
    return lane_.inside && channel0_ + lane_.lower < input_.conv.channels &&
           first + summed_token() < static_cast<int>(call_.rows);
  }

  __device__ void normalize(Values& lower, Values& upper, std::uint32_t memory, int first) const {
    float sums[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      sums[i] = lower[i][0] * lower[i][0] + lower[i][1] * lower[i][1] + upper[i][0] * upper[i][0] +
                upper[i][1] * upper[i][1];
    }
    const float squares = sum_over_heads(sums, memory + Memory::kHeadSums, call_.head_width);
    const float rstd = rsqrtf(squares * call_.inverse_width + call_.epsilon);
    if (has_token(first) && lane_.pair / 16 == 0) {
      input_.rstd.row(first + summed_token())[head_] = rstd;
    }
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const float own = of_token(rstd, i);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        lower[i][e] *= own * constants_.weight(0, e);
        upper[i][e] *= own * constants_.weight(1, e);
      }
    }
  }

  // What was convolved becomes its gradient r (w d - n mean(w d n)), with n = v r and d what comes
  // back through the rotation; dnorm gets d n.
  __device__ void backward(Values& lower, Values& upper, std::uint32_t memory, unsigned tile,
                           int first) {
    Values dlower, dupper;
    load_gradient(dlower, lower_, memory, tile);
    load_gradient(dupper, upper_, memory, tile);
    if (input_.rotates) {
      constants_.template rotate<true>(dlower, dupper, memory + Memory::kPositions, tile);
    }
    const float rstd = has_token(first) ? input_.rstd.row(first + summed_token())[head_] : 0.0f;
    float sums[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const float own = of_token(rstd, i);
      sums[i] = 0;
      add_products(sums[i], lower[i], dlower[i], own, 0);
      add_products(sums[i], upper[i], dupper[i], own, 1);
    }
    const float mean =
        sum_over_heads(sums, memory + Memory::kHeadSums, call_.head_width) * call_.inverse_width;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const float own = of_token(rstd, i), of_own = of_token(mean, i);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        lower[i][e] = own * (dlower[i][e] - lower[i][e] * of_own);
        upper[i][e] = own * (dupper[i][e] - upper[i][e] * of_own);
      }
    }
  }
  static __device__ void load_gradient(Values& to, const LanePair<Memory::kPitch>& pair,
                                       std::uint32_t memory, unsigned tile) {
    Pairs<1> pairs[kOwn];
    pair.load_own(pairs, memory + Memory::kDy, tile);
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      to[i][0] = low_of(pairs[i].set[0]), to[i][1] = high_of(pairs[i].set[0]);
    }
  }
  // v becomes n, d becomes w d.
  __device__ void add_products(float& sum, float (&v)[2], float (&d)[2], float rstd, int part) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      v[e] *= rstd;
      dnorm_[part][e] += d[e] * v[e];
      d[e] *= constants_.weight(part, e);
      sum += d[e] * v[e];
    }
  }

  template <bool Whole>
  __device__ void store(const Values& v, int channel, int first) const {
    if (!lane_.inside) return;
    const LaneStore<1> to(input_.y, input_.conv, channel0_, first, channel);
#pragma unroll
    for (int i = 0; i < kOwn; ++i) to.template store<Whole>(i, {{pack_pair(v[i][0], v[i][1])}});
  }

  const InputsCall& call_;
  const Input& input_;
  int channel0_;
  HeadLane lane_;
  int head_;
  HeadConstants constants_;
  LaneRanks<Memory::kZPitch> ranks_;
  LanePair<Memory::kPitch> lower_, upper_;
  float dnorm_[2][2] = {};
};

template <bool Backward>
__global__ void __launch_bounds__(kHeadThreads, resident(Backward))
    inputs_kernel(const __grid_constant__ InputsCall call) {
  using Memory = HeadBlock<Backward>;
  extern __shared__ __align__(1024) char bytes[];
  wait_for_previous();
  allow_next();
  int index = 0;
  while (index + 1 < call.count && blockIdx.x >= call.input[index + 1].first_block) ++index;
  const Input& input = call.input[index];
  const std::uint32_t memory = shared_address(bytes);
  const int channel0 = static_cast<int>(blockIdx.x - input.first_block) * call.block_channels();
  const std::int64_t first = blockIdx.y * call.chunk_rows;
  const std::int64_t end = min(first + call.chunk_rows, call.rows);
  RowLoader<Memory, Backward> loader(memory, input.conv, channel0, first);
  const auto next = [&](unsigned block) {
    copy_positions(memory + Memory::kPositions, call.positions, call.rows, first, block);
    loader.next();
  };
  for (unsigned block = 0; block < 3; ++block) next(block);
  InputPart<Backward> part(call, input, memory, channel0);
  for (unsigned tile = 0; first + tile * kTokens < end; ++tile) {
    const bool whole = loader.wait(tile);
    next(tile + 3);
    const int tile_first = static_cast<int>(first + tile * kTokens);
    if (whole) {
      part.template run<true>(memory, tile, tile_first);
    } else {
      part.template run<false>(memory, tile, tile_first);
    }
  }
  wait_copies<0>();
  if constexpr (Backward) part.store_norm_gradient();
}

ConvCall convolution(const AttentionInput& in, const HeadsShape& shape, cudaStream_t stream,
                     Workspace& workspace) {
  return {stream, workspace, in.filters, in.conv, shape.rows};
}

bool takes_one(const ConvCall& call, std::initializer_list<Tensor> tensors) {
  return call.shape.kind == FilterKind::lowrank && takes(call, tensors) &&
         has_whole_packs(call, tensors);
}

bool takes_all(std::span<const AttentionInput> inputs, const HeadsShape& shape, cudaStream_t stream,
               Workspace& workspace) {
  const std::int64_t width = shape.head_width;
  bool all = !inputs.empty() && inputs.size() <= kMostInputs && inputs[0].x.size() > 0 &&
             width % 32 == 0 && width <= 2 * kHalfChannels && shape.rows.part == ConvPart::all;
  for (const AttentionInput& in : inputs) {
    all = all && takes_one(convolution(in, shape, stream, workspace), {in.x, in.y});
  }
  return all;
}

// A call for the inputs that `add` gives to it, one by one.
class InputsLaunch {
 public:
  InputsLaunch(const HeadsShape& shape, const double* frequency, bool backward)
      : blocks_all_(132 * resident(backward)) {
    call_.head_width = static_cast<int>(shape.head_width);
    call_.inverse_width = 1.0f / static_cast<float>(call_.head_width);
    call_.epsilon = static_cast<float>(shape.norm_epsilon);
    call_.frequency = frequency;
    call_.positions = shape.positions.data<std::int32_t>();
  }

  // to: y or, with a gradient dy, that of what is convolved.
  Input& add(const AttentionInput& in, const ConvCall& conv, const Tensor& to, const Tensor& dy) {
    Input& input = call_.input[call_.count++];
    input = {};
    input.conv = describe(conv, in.x, dy, call_.block_channels(), blocks_all_);
    input.y = rows_of<bf16>(to);
    input.rstd = rows_of<float>(in.rstd);
    input.norm = in.norm_weight.empty() ? nullptr : data_of<bf16>(in.norm_weight);
    input.rotates = in.rotates;
    input.first_block = blocks_;
    input.blocks = ceil_div(input.conv.channels, call_.block_channels());
    blocks_ += input.blocks;
    call_.rows = in.x.rows();
    call_.chunk_rows = chunk_rows(call_.rows, blocks_all_ / blocks_);
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
    launch_overlapped(inputs_kernel<Backward>, grid, kHeadThreads, HeadBlock<Backward>::kBytes,
                      stream, call_);
  }

 private:
  InputsCall call_{};
  int blocks_all_, blocks_ = 0;
};

}  // namespace
}  // namespace cuda

void CudaBackend::attention_inputs_forward(std::span<const AttentionInput> inputs,
                                           const HeadsShape& shape) {
  using namespace cuda;
  if (!takes_all(inputs, shape, stream_, *workspace_)) {
    return Backend::attention_inputs_forward(inputs, shape);
  }
  InputsLaunch launch(shape, rope_frequencies(shape.head_width, shape.rope_theta), false);
  for (const AttentionInput& in : inputs) {
    launch.add(in, convolution(in, shape, stream_, *workspace_), in.y, {});
  }
  launch.run<false>(stream_);
}

void CudaBackend::attention_inputs_backward(std::span<const AttentionInputGradients> gradients,
                                            std::span<const AttentionInput> inputs,
                                            const HeadsShape& shape) {
  using namespace cuda;
  // Then the forward pass left `convolved` unwritten.
  const bool made_again = takes_all(inputs, shape, stream_, *workspace_);
  bool one_pass = made_again && mode_ == NumericsMode::fast;
  bool normed = false;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].norm_weight.empty()) continue;
    normed = true;
    one_pass = one_pass && takes_one(convolution(inputs[i], shape, stream_, *workspace_),
                                     {inputs[i].x, gradients[i].dy, gradients[i].dconvolved});
  }
  if (!one_pass || !normed) {
    for (const AttentionInput& in : inputs) {
      if (!made_again || in.norm_weight.empty()) continue;
      conv_forward(in.convolved, in.x, in.filters, in.conv, shape.rows);
    }
    return Backend::attention_inputs_backward(gradients, inputs, shape);
  }

  InputsLaunch launch(shape, rope_frequencies(shape.head_width, shape.rope_theta), true);
  Tensor dnorm_weights[kMostInputs];
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].norm_weight.empty()) continue;
    dnorm_weights[launch.count()] = gradients[i].dnorm_weight;
    launch.add(inputs[i], convolution(inputs[i], shape, stream_, *workspace_),
               gradients[i].dconvolved, gradients[i].dy);
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
