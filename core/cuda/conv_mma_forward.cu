// Forward low-rank and head-wise convolutions in bf16 on the matrix units, for up to 16 ranks and 4
// taps (shorter filters are padded with zeros), or 4 taps in groups of 8 channels or more. Filters
// are never stored. An addend, the residual of a block, comes in a ring of its own beside x and is
// added before a sum is rounded.
#include "core/cuda/conv_mma_filters.cuh"

namespace convoy::cuda {
namespace {

using namespace mma_conv;

constexpr int kWarps = 4, kSets = 2;  // of a block, of a warp
constexpr int kResident = 3;          // blocks an SM

template <bool Headwise, bool Adds>
class ForwardPart {
 public:
  using Sizes = Block<kWarps, kSets, Headwise, Adds>;  // the addend's ring is where dy's would be

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
    Pairs<kSets> x[kSeen], addend[kOwn];
    uint2 z[kOwn - 1];
    ranks_.template load<kOwn / 2>(z, memory + Sizes::kZ, tile);
    column_.load(x, memory, tile);
    if constexpr (Adds) column_.load_own(addend, memory + Sizes::kDy, tile);
#pragma unroll
    for (int i = 0; i < kOwn / 2; ++i) {
      Pairs<kSets> sums[2];
#pragma unroll
      for (int n = 0; n < kSets; ++n) {
        float sum[2][2];
        sum_taps<true, !Whole>(sum, filters_[n], z, x, n, reach, i);
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          if constexpr (Adds) add_pair(sum[e], addend[i + kOwn / 2 * e].set[n]);
          sums[e].set[n] = pack_pair(sum[e][0], sum[e][1]);
        }
      }
      y.template store<Whole>(i, sums[0]);
      y.template store<Whole>(i + kOwn / 2, sums[1]);
    }
  }

 private:
  static __device__ void add_pair(float (&sum)[2], Pair more) {
    sum[0] += low_of(more);
    sum[1] += high_of(more);
  }

  LaneColumn<kSets, Sizes::kPitch, 1 - kTaps> column_;
  LaneRanks<Sizes::kZPitch> ranks_;
  LaneFilters<Headwise> filters_[kSets];
};

template <bool Headwise, bool Adds>
__global__ void __launch_bounds__(32 * kWarps, kResident)
    forward_kernel(Rows<bf16> y, const __grid_constant__ MmaConvCall call) {
  using Part = ForwardPart<Headwise, Adds>;
  using Sizes = typename Part::Sizes;
  extern __shared__ __align__(1024) char bytes[];
  wait_for_previous();
  allow_next();
  const std::uint32_t memory = shared_address(bytes);
  const int channel0 = blockIdx.x * Sizes::kChannels;
  const std::int64_t first = blockIdx.y * call.chunk_rows;
  const std::int64_t end = min(first + call.chunk_rows, call.rows);
  RowLoader<Sizes, Adds> loader(memory, call, channel0, first);
  for (int block = 0; block < 3; ++block) loader.next();
  const Part part(call, channel0);
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

template <bool Headwise, bool Adds>
void forward(const ConvCall& call, const Tensor& y, const Tensor& x, const Tensor& addend) {
  using Sizes = typename ForwardPart<Headwise, Adds>::Sizes;
  const MmaConvCall c = describe(call, x, addend, Sizes::kChannels, 132 * kResident);
  launch_overlapped(forward_kernel<Headwise, Adds>, grid_of(c, Sizes::kChannels), Sizes::kThreads,
                    Sizes::kRingBytes, call.stream, rows_of<bf16>(y), c);
}

}  // namespace

bool mma_conv_forward(const ConvCall& call, Tensor y, Tensor x) {
  if (!takes(call, {x, y})) return false;
  if (call.shape.kind == FilterKind::headwise) {
    forward<true, false>(call, y, x, {});
  } else {
    forward<false, false>(call, y, x, {});
  }
  return true;
}

bool mma_conv_forward_add(const ConvCall& call, Tensor sum, Tensor x, Tensor addend) {
  const FilterKind kind = call.shape.kind;
  const bool made = kind == FilterKind::headwise || kind == FilterKind::lowrank;
  if (!made || !takes(call, {x, sum, addend})) return false;
  if (kind == FilterKind::headwise) {
    forward<true, true>(call, sum, x, addend);
  } else {
    forward<false, true>(call, sum, x, addend);
  }
  return true;
}

}  // namespace convoy::cuda
