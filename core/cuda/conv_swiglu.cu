// y = silu(gate) * up with the low-rank convolutions of both in the same pass, in bf16. Gate and up
// have a ring each, and a lane convolves the same two channels of both (conv_mma_rows.cuh), so that
// they meet in its registers. Neither is stored: the backward pass makes them again from what was
// convolved, which takes as many bytes as reading them.
#include "core/cuda/conv_mma_filters.cuh"
#include "core/cuda/cuda_backend.h"

namespace convoy {
namespace cuda {
namespace {

using namespace mma_conv;

constexpr int kWarps = 4;     // of a block
constexpr int kResident = 3;  // blocks an SM

struct SwigluCall {
  MmaConvCall conv[2];  // gate, up, where dy is that of the activation
  Rows<bf16> y;         // forward
  Rows<bf16> dgate, dup;
};

// Gate's ring and up's, each filled by half of the block; behind them dy's, and static taps of
// both.
template <bool Backward>
struct Memory : Block<kWarps, 1, false, false> {
  static constexpr bool kWholePacks = true;
  static constexpr int kLoaders = kThreads / 2;
  static constexpr int kUp = kRingBytes;
  static constexpr int kDy = kRingBytes;  // from up's ring on
  static constexpr int kStatic = 2 * kRingBytes + (Backward ? kRowsBytes : 0);
  static constexpr int kWarpStatic = LanePair<kPitch>::kStaticBytes;
  static constexpr int kBytes = kStatic + 2 * kWarps * kWarpStatic;
  static_assert(kRingBytes % 128 == 0, "pieces change places within 128 bytes");

  static __device__ std::uint32_t taps(std::uint32_t memory, int conv) {
    return memory + kStatic + (conv * kWarps + threadIdx.x / 32) * kWarpStatic;
  }
};

// 1 / (1 + e^-x), wrong by some 2^-21 of itself; 0 below -87.
__device__ inline float fast_sigmoid(float x) {
  float power, inverse;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x * -1.44269504f));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(1.0f + power));
  return inverse;
}

// A lane's two channels of gate and up.
template <bool Backward>
class SwigluPart {
  using Sizes = Memory<Backward>;

 public:
  __device__ SwigluPart(const SwigluCall& call, std::uint32_t memory, int channel0)
      : call_(call),
        channel0_(channel0),
        ranks_(LaneFilters<false>::z_byte(call.conv[0], channel0, 16)),
        gate_(call.conv[0], channel0, lane_channel<1>(), true, Sizes::taps(memory, 0)),
        up_(call.conv[1], channel0, lane_channel<1>(), true, Sizes::taps(memory, 1)) {}

  // Whole: all rows of the tile exist, and no tap meets a document's start. first: its first row.
  template <bool Whole>
  __device__ void run(std::uint32_t memory, unsigned tile, int first) const {
    LaneReach reach;
    if (!Whole) reach.load(memory + Sizes::kReach, tile);
    float gate[kOwn][2], up[kOwn][2];
    uint2 z[kOwn - 1];
    ranks_.template load<kOwn / 2>(z, memory + Sizes::kZ, tile);
    gate_.template convolve<Whole>(gate, z, memory, tile, reach);
    const std::uint32_t of_up = memory + Sizes::kUp;
    ranks_.template load<kOwn / 2>(z, of_up + Sizes::kZ, tile);
    up_.template convolve<Whole>(up, z, of_up, tile, reach);
    if constexpr (Backward) {
      Pairs<1> dy[kOwn];
      up_.load_own(dy, of_up + Sizes::kDy, tile);
      store_gradients<Whole>(gate, up, dy, first);
    } else {
      const LaneStore<1> y(call_.y, call_.conv[0], channel0_, first);
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        float v[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) v[e] = gate[i][e] * fast_sigmoid(gate[i][e]) * up[i][e];
        y.template store<Whole>(i, {{pack_pair(v[0], v[1])}});
      }
    }
  }

 private:
  template <bool Whole>
  __device__ void store_gradients(const float (&gate)[kOwn][2], const float (&up)[kOwn][2],
                                  const Pairs<1> (&dy)[kOwn], int first) const {
    const LaneStore<1> dgate(call_.dgate, call_.conv[0], channel0_, first);
    const LaneStore<1> dup(call_.dup, call_.conv[0], channel0_, first);
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const float d[2] = {low_of(dy[i].set[0]), high_of(dy[i].set[0])};
      float of_gate[2], of_up[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {  // silu' = s (1 + g (1 - s)) = s + silu - s silu
        const float s = fast_sigmoid(gate[i][e]), silu = gate[i][e] * s;
        of_up[e] = d[e] * silu;
        of_gate[e] = d[e] * up[i][e] * (s + silu - s * silu);
      }
      dgate.template store<Whole>(i, {{pack_pair(of_gate[0], of_gate[1])}});
      dup.template store<Whole>(i, {{pack_pair(of_up[0], of_up[1])}});
    }
  }

  const SwigluCall& call_;
  int channel0_;
  LaneRanks<Sizes::kZPitch> ranks_;
  LanePair<Sizes::kPitch> gate_, up_;
};

template <bool Backward>
__global__ void __launch_bounds__(32 * kWarps, kResident)
    conv_swiglu_kernel(const __grid_constant__ SwigluCall call) {
  using Sizes = Memory<Backward>;
  extern __shared__ __align__(1024) char bytes[];
  wait_for_previous();
  allow_next();
  const std::uint32_t memory = shared_address(bytes);
  const int channel0 = blockIdx.x * Sizes::kChannels;
  const std::int64_t rows = call.conv[0].rows, chunk = call.conv[0].chunk_rows;
  const std::int64_t first = blockIdx.y * chunk, end = min(first + chunk, rows);
  const int own = threadIdx.x / Sizes::kLoaders;  // whose ring the thread fills
  RowLoader<Sizes, Backward> loader(memory + own * Sizes::kUp, call.conv[own], channel0, first);
  for (int block = 0; block < 3; ++block) loader.next();
  const SwigluPart<Backward> part(call, memory, channel0);
  for (unsigned tile = 0; first + tile * kTokens < end; ++tile) {
    const bool whole = loader.arrive(tile);
    const int tile_first = static_cast<int>(first + tile * kTokens);
    if (whole) {
      part.template run<true>(memory, tile, tile_first);
    } else {
      part.template run<false>(memory, tile, tile_first);
    }
  }
  wait_copies<0>();
}

ConvCall convolution(const ConvolvedInput& in, const ConvRows& rows, cudaStream_t stream,
                     Workspace& workspace) {
  return {stream, workspace, in.filters, in.conv, rows};
}

bool takes_both(const ConvCall& gate, const ConvCall& up, std::initializer_list<Tensor> of_gate,
                const Tensor& up_x) {
  const auto lowrank = [](const ConvShape& s) { return s.kind == FilterKind::lowrank; };
  return up_x.size() > 0 && lowrank(gate.shape) && lowrank(up.shape) &&
         gate.shape.width == up.shape.width && gate.rows.part == ConvPart::all &&
         takes(gate, of_gate) && takes(up, {up_x}) && has_whole_packs(gate, of_gate) &&
         has_whole_packs(up, {up_x});
}

// Of what goes the general way.
void expect_kept(const ConvolvedInput& gate, const ConvolvedInput& up) {
  CHECK(gate.x.size() == 0 || (!gate.y.empty() && !up.y.empty()), "gate ", gate.x.describe(),
        " and up have no memory, and rows that are not whole packs of 16 bytes");
}

template <bool Backward>
void launch(const ConvCall& gate, const ConvCall& up, const Tensor& gate_x, const Tensor& up_x,
            SwigluCall call, const Tensor& dy) {
  using Sizes = Memory<Backward>;
  constexpr int kBlocks = 132 * kResident;
  call.conv[0] = describe(gate, gate_x, {}, Sizes::kChannels, kBlocks);
  call.conv[1] = describe(up, up_x, dy, Sizes::kChannels, kBlocks);
  launch_overlapped(conv_swiglu_kernel<Backward>, grid_of(call.conv[0], Sizes::kChannels),
                    Sizes::kThreads, Sizes::kBytes, gate.stream, call);
}

}  // namespace
}  // namespace cuda

bool CudaBackend::keeps_gate_and_up(const ConvShape& shape, std::int64_t channels,
                                    DType dtype) const {
  return !fuses_on_gpu(shape, channels, dtype);
}

void CudaBackend::conv_swiglu_forward(Tensor y, const ConvolvedInput& gate,
                                      const ConvolvedInput& up, const ConvRows& rows) {
  using namespace cuda;
  const ConvCall of_gate = convolution(gate, rows, stream_, *workspace_);
  const ConvCall of_up = convolution(up, rows, stream_, *workspace_);
  if (!takes_both(of_gate, of_up, {gate.x, y}, up.x)) {
    expect_kept(gate, up);
    return Backend::conv_swiglu_forward(y, gate, up, rows);
  }
  SwigluCall call{};
  call.y = rows_of<bf16>(y);
  launch<false>(of_gate, of_up, gate.x, up.x, call, {});
}

void CudaBackend::conv_swiglu_backward(Tensor dgate, Tensor dup, Tensor dy,
                                       const ConvolvedInput& gate, const ConvolvedInput& up,
                                       const ConvRows& rows) {
  using namespace cuda;
  const ConvCall of_gate = convolution(gate, rows, stream_, *workspace_);
  const ConvCall of_up = convolution(up, rows, stream_, *workspace_);
  if (!takes_both(of_gate, of_up, {gate.x, dy, dgate, dup}, up.x)) {
    expect_kept(gate, up);
    if (takes_both(of_gate, of_up, {gate.x}, up.x)) {  // gate.y and up.y may not be there
      conv_forward(gate.y, gate.x, gate.filters, gate.conv, rows);
      conv_forward(up.y, up.x, up.filters, up.conv, rows);
    }
    return Backend::conv_swiglu_backward(dgate, dup, dy, gate, up, rows);
  }
  SwigluCall call{};
  call.dgate = rows_of<bf16>(dgate);
  call.dup = rows_of<bf16>(dup);
  launch<true>(of_gate, of_up, gate.x, up.x, call, dy);
}

}  // namespace convoy
