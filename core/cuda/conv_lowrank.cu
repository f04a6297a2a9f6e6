// Forward low-rank filters K[t, w, d] = s[w, d] + sum_r z[t, r] u[r, w, d] in bf16 on the matrix
// units, for up to 16 ranks and 4 taps; shorter filters are padded with zeros and never stored.
#include "core/cuda/conv_lowrank_rows.cuh"

namespace convoy::cuda {
namespace {

using namespace lowrank;

constexpr int kWarps = 4, kSets = 2;  // of a block, of a warp
constexpr int kResident = 3;          // blocks an SM
using Sizes = Block<kWarps, kSets, false>;
using Column = LaneColumn<kSets, Sizes::kPitch, 1 - kTaps>;

// Whole: all rows of the tile exist, and no tap meets a document's start.
template <bool Whole>
__device__ inline void forward_tile(const LaneStore<kSets>& y, const LaneFilters (&filters)[kSets],
                                    const Column& column, const LaneRanks& ranks,
                                    std::uint32_t memory, unsigned tile) {
  LaneReach reach;
  if (!Whole) reach.load(memory + Sizes::kReach, tile);
  Pairs<kSets> x[kSeen];
  uint2 z[kOwn - 1];
  ranks.load<kOwn / 2>(z, memory + Sizes::kZ, tile);
  column.load(x, memory, tile);
#pragma unroll
  for (int i = 0; i < kOwn / 2; ++i) {
    Pairs<kSets> sums[2];
    apply_filters<true, !Whole>(sums, filters, z, x, reach, i);
    y.store<Whole>(i, sums[0]);
    y.store<Whole>(i + kOwn / 2, sums[1]);
  }
}

__global__ void __launch_bounds__(Sizes::kThreads, kResident)
    forward_kernel(Rows<bf16> y, const __grid_constant__ LowrankCall call) {
  extern __shared__ __align__(128) char bytes[];
  wait_for_previous();
  allow_next();
  const std::uint32_t memory = shared_address(bytes);
  const int channel0 = blockIdx.x * Sizes::kChannels;
  const std::int64_t first = blockIdx.y * call.chunk_rows;
  const std::int64_t end = min(first + call.chunk_rows, call.rows);
  RowLoader<Sizes, false> loader(memory, call, channel0, first);
  for (int block = 0; block < 3; ++block) loader.next();
  LaneFilters filters[kSets];
#pragma unroll
  for (int n = 0; n < kSets; ++n) {
    filters[n].load(call, channel0 + lane_channel<kSets>() + 2 * n);
  }
  const Column column;
  const LaneRanks ranks;
  LaneStore<kSets> to(y, channel0, first, call);
  for (unsigned tile = 0; first + tile * kTokens < end; ++tile, to.next()) {
    if (loader.arrive(tile)) {
      forward_tile<true>(to, filters, column, ranks, memory, tile);
    } else {
      forward_tile<false>(to, filters, column, ranks, memory, tile);
    }
  }
  wait_copies<0>();
}

}  // namespace

bool lowrank_conv_forward(const ConvCall& call, Tensor y, Tensor x) {
  if (!takes(call, {x, y})) return false;
  const LowrankCall c = describe(call, x, {}, Sizes::kChannels, 132 * kResident);
  launch_overlapped(forward_kernel, grid_of(c, Sizes::kChannels), Sizes::kThreads,
                    Sizes::kRingBytes, call.stream, rows_of<bf16>(y), c);
  return true;
}

}  // namespace convoy::cuda
