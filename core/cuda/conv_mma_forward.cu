// Forward low-rank and head-wise convolutions in bf16 on the matrix units, for up to 16 ranks and 4
// taps (shorter filters are padded with zeros), or 4 taps in groups of 8 channels or more. Filters
// are never stored.
#include "core/cuda/conv_mma_filters.cuh"

namespace convoy::cuda {
namespace {

using namespace mma_conv;

constexpr int kWarps = 4, kSets = 2;  // of a block, of a warp
constexpr int kResident = 3;          // blocks an SM

template <bool Headwise>
class ForwardPart {
 public:
  using Sizes = Block<kWarps, kSets, Headwise, false>;

  __device__ ForwardPart(const MmaConvCall& call, int channel0)
      : ranks_(LaneFilters<Headwise>::z_byte(call, channel0, 16 * kSets)) {
    const int warp_first = channel0 + threadIdx.x / 32 * 16 * kSets;
#pragma unroll
    for (int n = 0; n < kSets; ++n) {
      filters_[n].load(call, warp_first, channel0 + lane_channel<kSets>() + 2 * n);
    }
  }

  // Whole: all rows of the tile exist, and no tap meets a document's start.
  template <bool Whole>
  __device__ void run(const LaneStore<kSets>& y, std::uint32_t memory, unsigned tile) const {
    LaneReach reach;
    if (!Whole) reach.load(memory + Sizes::kReach, tile);
    Pairs<kSets> x[kSeen];
    uint2 z[kOwn - 1];
    ranks_.template load<kOwn / 2>(z, memory + Sizes::kZ, tile);
    column_.load(x, memory, tile);
#pragma unroll
    for (int i = 0; i < kOwn / 2; ++i) {
      Pairs<kSets> sums[2];
      apply_filters<true, !Whole>(sums, filters_, z, x, reach, i);
      y.store<Whole>(i, sums[0]);
      y.store<Whole>(i + kOwn / 2, sums[1]);
    }
  }

 private:
  LaneColumn<kSets, Sizes::kPitch, 1 - kTaps> column_;
  LaneRanks<Sizes::kZPitch> ranks_;
  LaneFilters<Headwise> filters_[kSets];
};

template <bool Headwise>
__global__ void __launch_bounds__(32 * kWarps, kResident)
    forward_kernel(Rows<bf16> y, const __grid_constant__ MmaConvCall call) {
  using Sizes = typename ForwardPart<Headwise>::Sizes;
  extern __shared__ __align__(1024) char bytes[];
  wait_for_previous();
  allow_next();
  const std::uint32_t memory = shared_address(bytes);
  const int channel0 = blockIdx.x * Sizes::kChannels;
  const std::int64_t first = blockIdx.y * call.chunk_rows;
  const std::int64_t end = min(first + call.chunk_rows, call.rows);
  RowLoader<Sizes, false> loader(memory, call, channel0, first);
  for (int block = 0; block < 3; ++block) loader.next();
  const ForwardPart<Headwise> part(call, channel0);
  for (unsigned tile = 0; first + tile * kTokens < end; ++tile) {
    const bool whole = loader.arrive(tile);
    const LaneStore<kSets> to(y, call, channel0, static_cast<int>(first + tile * kTokens));
    if (whole) {
      part.template run<true>(to, memory, tile);
    } else {
      part.template run<false>(to, memory, tile);
    }
  }
  wait_copies<0>();
}

template <bool Headwise>
void forward(const ConvCall& call, const Tensor& y, const Tensor& x) {
  using Sizes = typename ForwardPart<Headwise>::Sizes;
  const MmaConvCall c = describe(call, x, {}, Sizes::kChannels, 132 * kResident);
  launch_overlapped(forward_kernel<Headwise>, grid_of(c, Sizes::kChannels), Sizes::kThreads,
                    Sizes::kRingBytes, call.stream, rows_of<bf16>(y), c);
}

}  // namespace

bool mma_conv_forward(const ConvCall& call, Tensor y, Tensor x) {
  if (!takes(call, {x, y})) return false;
  if (call.shape.kind == FilterKind::headwise) {
    forward<true>(call, y, x);
  } else {
    forward<false>(call, y, x);
  }
  return true;
}

}  // namespace convoy::cuda
