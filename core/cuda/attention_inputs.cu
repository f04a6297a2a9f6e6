// Attention's inputs in one launch: the low-rank convolutions of q, k and v in bf16, then the norm
// of heads and RoPE while the outputs are in registers. A block walks down the rows of 128 channels
// (of as many whole heads as fit) of one of them.
//
// Angles are turns in fixed point: the frequency of a pair as a 64-bit fraction of a turn, times
// the position, modulo 1 by overflow. So a sine takes two integer products and one instruction of
// the special function unit, whose absolute error of 2^-20.5 bf16 does not see.
#include "core/cuda/cuda_backend.h"
#include "core/cuda/launch.cuh"
#include "core/cuda/lowrank_quads.cuh"

namespace convoy {
namespace cuda {
namespace {

constexpr int kMostInputs = 3;

struct Input {
  QuadConv conv;
  Rows<bf16> y, convolved;
  Rows<float> rstd;
  const bf16* norm;  // null: none
  bool rotates;
  int first_block;
};

struct InputsCall {
  Input input[kMostInputs];
  int count, head_width;
  float epsilon;
  const double* frequency;  // turns a position, [head_width / 2]
  const std::int32_t *reach, *positions;
  std::int64_t rows, chunk_rows;

  __host__ __device__ int block_channels() const { return kQuadChannels / head_width * head_width; }
};

struct InputsShared : QuadShared<1> {
  static constexpr int kFrequencyBytes = kQuadChannels / 2 * 8, kNormBytes = kQuadChannels * 4,
                       kSquaresBytes = kTokens * kQuadWarps * 4;
  static constexpr int kAllBytes = kBytes + kFrequencyBytes + kNormBytes + kSquaresBytes;
  std::uint32_t frequency, norm, squares;

  __device__ explicit InputsShared(std::uint32_t base)
      : QuadShared<1>(base),
        frequency(end),
        norm(frequency + kFrequencyBytes),
        squares(norm + kNormBytes) {}
};

// Frequencies of the block's pairs, 4 neighbours a lane, and the norm's weight at its channels.
__device__ inline void load_head_constants(const InputsShared& shared, const InputsCall& call,
                                           const Input& input) {
  const int half = call.head_width / 2;
  if (threadIdx.x < kQuadChannels / 2) {
    constexpr double kTurn = 18446744073709551616.0;  // 2^64
    const auto fraction = __double2ull_rn(call.frequency[threadIdx.x % half] * kTurn);
    const std::uint32_t to = shared.frequency + threadIdx.x * 8;
    store_shared4(to, static_cast<std::uint32_t>(fraction));
    store_shared4(to + 4, static_cast<std::uint32_t>(fraction >> 32));
  }
  if (input.norm != nullptr) {
    store_shared4(shared.norm + threadIdx.x * 4,
                  __float_as_uint(widen(input.norm[threadIdx.x % call.head_width])));
  }
}

__device__ inline void load_four(float (&to)[4], std::uint32_t address) {
  const uint4 loaded = load_shared16(address);
  to[0] = __uint_as_float(loaded.x), to[1] = __uint_as_float(loaded.y);
  to[2] = __uint_as_float(loaded.z), to[3] = __uint_as_float(loaded.w);
}

// RMSNorm over each head of what the convolution left, rounded as `convolved` is. All warps of the
// block take part.
__device__ inline void normalize(float (&sum)[4][8], const InputsShared& shared,
                                 const InputsCall& call, const Input& input, const QuadLane& lane,
                                 int channel0, std::int64_t tile_first, std::int64_t end) {
  const int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4, warp = threadIdx.x / 32;
  Pair packed[4][4];
  pack_quads(packed, sum);
  const bool stores = lane.inside && channel0 + lane.lower < input.conv.channels;
  if (stores) {
    store_quads({input.convolved.data + channel0, input.convolved.stride}, packed, lane, tile_first,
                end);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float squares = 0;
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      sum[i][2 * q] = low_of(packed[i][q]), sum[i][2 * q + 1] = high_of(packed[i][q]);
      squares += sum[i][2 * q] * sum[i][2 * q] + sum[i][2 * q + 1] * sum[i][2 * q + 1];
    }
    squares += __shfl_xor_sync(~0u, squares, 1);
    squares += __shfl_xor_sync(~0u, squares, 2);
    if (c == 0) {
      store_shared4(shared.squares + ((4 * g + i) * kQuadWarps + warp) * 4,
                    __float_as_uint(squares));
    }
  }
  __syncthreads();
  float lower[4], upper[4];
  load_four(lower, shared.norm + lane.lower * 4);
  load_four(upper, shared.norm + lane.upper * 4);
  const int head_warps = call.head_width / 32, first_warp = warp / head_warps * head_warps;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float squares[kQuadWarps], total = 0;
    load_four(squares, shared.squares + (4 * g + i) * kQuadWarps * 4);
#pragma unroll
    for (int w = 0; w < kQuadWarps; ++w) {
      if (w >= first_warp && w < first_warp + head_warps) total += squares[w];
    }
    const float rstd = 1.0f / sqrtf(total / static_cast<float>(call.head_width) + call.epsilon);
    const std::int64_t t = tile_first + 4 * g + i;
    if (stores && c == 0 && warp == first_warp && t < end) {
      input.rstd.row(t)[(channel0 + lane.lower) / call.head_width] = rstd;
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      sum[i][e] *= rstd * lower[e];
      sum[i][4 + e] *= rstd * upper[e];
    }
  }
}

// Turns the pairs of the lane's quads by their tokens' positions.
__device__ inline void rotate(float (&sum)[4][8], const InputsShared& shared, const LaneRows& rows,
                              const QuadLane& lane, int half) {
  constexpr float kRadians = 1.4629180792671596e-9f;  // 2 pi / 2^32
  const uint4 at = load_shared16(shared.positions + rows.own * 4);
  const std::uint32_t position[4] = {at.x, at.y, at.z, at.w};
  const int pair = lane.lower / (2 * half) * half + lane.lower % half;
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const uint2 frequency = load_shared8(shared.frequency + (pair + e) * 8);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t turn = __umulhi(frequency.x, position[i]) + frequency.y * position[i];
      const float angle = static_cast<float>(static_cast<std::int32_t>(turn)) * kRadians;
      const float sine = __sinf(angle), cosine = __cosf(angle);
      const float a = sum[i][e], b = sum[i][4 + e];
      sum[i][e] = a * cosine - b * sine;
      sum[i][4 + e] = b * cosine + a * sine;
    }
  }
}

__global__ void __launch_bounds__(kQuadThreads, 2)
    forward_kernel(const __grid_constant__ InputsCall call) {
  extern __shared__ __align__(16) char memory[];
  wait_for_previous();
  allow_next();
  int index = 0;
  while (index + 1 < call.count && blockIdx.x >= call.input[index + 1].first_block) ++index;
  const Input& input = call.input[index];
  const InputsShared shared(shared_address(memory));
  const QuadOrder order{call.head_width / 2};
  const int width = call.block_channels();
  const QuadChannels channels{static_cast<int>(blockIdx.x - input.first_block) * width, width};
  const std::int64_t first = blockIdx.y * call.chunk_rows;
  const std::int64_t end = min(first + call.chunk_rows, call.rows);
  QuadLoader<1> loader(shared.x - InputsShared::kX, &input.conv, channels, call.reach,
                       call.positions, call.rows, first);
  for (int block = 0; block < 3; ++block) loader.next();
  load_quad_filters(shared, &input.conv, channels, order);
  load_head_constants(shared, call, input);
  __syncthreads();
  ColumnFilters filters[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) filters[j].load(shared, j);
  const QuadLane lane(order, width);
  const Rows<bf16> y{input.y.data + channels.first, input.y.stride};
  const bool stores = lane.inside && channels.first + lane.lower < input.conv.channels;
  for (int tile = 0; first + tile * kTokens < end; ++tile) {
    wait_copies<1>();
    __syncthreads();
    loader.next();
    const int slot = (kLead + tile * kTokens) % kRing;
    const std::int64_t tile_first = first + tile * kTokens;
    float sum[4][8];
    convolve_tile<true>(sum, filters, shared, slot, lane, input.conv);
    if (input.norm != nullptr) {
      normalize(sum, shared, call, input, lane, channels.first, tile_first, end);
    }
    if (input.rotates) rotate(sum, shared, LaneRows(slot), lane, order.half);
    Pair packed[4][4];
    pack_quads(packed, sum);
    if (stores) store_quads(y, packed, lane, tile_first, end);
  }
  wait_copies<0>();
}

bool takes(const AttentionInput& in, const HeadsShape& shape) {
  const std::int64_t width = shape.head_width;
  return quads_take(in.filters, in.conv, shape.rows, in.x) && width % 32 == 0 &&
         width <= kQuadChannels && packable(16, {in.y}) &&
         (in.norm_weight.empty() || packable(16, {in.convolved}));
}

Input describe(const AttentionInput& in, int first_block) {
  const bool normed = !in.norm_weight.empty();
  return {describe_quads(in.filters, in.conv, in.x),
          rows_of<bf16>(in.y),
          rows_of<bf16>(in.convolved),
          rows_of<float>(in.rstd),
          normed ? data_of<bf16>(in.norm_weight) : nullptr,
          in.rotates,
          first_block};
}

}  // namespace
}  // namespace cuda

void CudaBackend::attention_inputs_forward(std::span<const AttentionInput> inputs,
                                           const HeadsShape& shape) {
  using namespace cuda;
  bool taken = !inputs.empty() && inputs.size() <= kMostInputs && inputs[0].x.size() > 0;
  for (const AttentionInput& in : inputs) taken = taken && takes(in, shape);
  if (!taken) return Backend::attention_inputs_forward(inputs, shape);
  InputsCall call{};
  call.count = static_cast<int>(inputs.size());
  call.head_width = static_cast<int>(shape.head_width);
  int blocks = 0;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    call.input[i] = describe(inputs[i], blocks);
    blocks += ceil_div(static_cast<int>(inputs[i].x.cols()), call.block_channels());
  }
  call.epsilon = static_cast<float>(shape.norm_epsilon);
  call.frequency = rope_frequencies(shape.head_width, shape.rope_theta);
  call.reach = shape.rows.reach.data<std::int32_t>();
  call.positions = shape.positions.data<std::int32_t>();
  call.rows = inputs[0].x.rows();
  call.chunk_rows = quad_chunk_rows(call.rows, blocks);
  const dim3 grid(static_cast<unsigned>(blocks),
                  static_cast<unsigned>(ceil_div(call.rows, call.chunk_rows)));
  launch_overlapped(forward_kernel, grid, kQuadThreads, InputsShared::kAllBytes, stream_, call);
}

}  // namespace convoy
