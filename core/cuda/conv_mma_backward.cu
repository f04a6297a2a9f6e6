// Backward of low-rank convolutions in one pass over x and dy. Sums over channel blocks (dz) and
// over chunks of rows (du, ds) go through device memory and are added in order.
#include "core/cuda/conv_mma_backward.cuh"
#include "core/cuda/partial_sums.cuh"

namespace convoy::cuda {
namespace {

using namespace mma_conv;

constexpr int kSmWarps = 12;

template <int Warps, bool Input, bool Weight>
__global__ void __launch_bounds__(32 * Warps, kSmWarps / Warps)
    backward_kernel(BackwardTargets to, const __grid_constant__ MmaConvCall call) {
  extern __shared__ __align__(1024) char bytes[];
  wait_for_previous();
  allow_next();
  backward_block<BackwardBlock<Warps>, Input, Weight>(to, call, blockIdx.x, blockIdx.y, bytes);
}

struct DzSums {
  Rows<bf16> dz;
  const float* partial;
  std::int64_t rows, tiles;  // of kTokens rows
  int rank, blocks;
};

// Adds dz of the lane's accumulator over channel blocks, in order: dz[token, rank] for two tokens
// that follow each other and two ranks. quad: of the tile's kDzTile / 4.
__device__ inline void add_blocks(const DzSums& to, std::int64_t tile, int quad) {
  if (tile >= to.tiles) return;
  const float* from = to.partial + tile * kDzTile + quad * 4;
  Pack<float, 4> sum = {};
#pragma unroll 8
  for (int block = 0; block < to.blocks; ++block) {
    const auto more = load_pack<4>(from + block * to.tiles * kDzTile);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum.element[i] += more.element[i];
  }
  const int lane = quad % 32;
  const std::int64_t t = tile * kTokens + lane / 4 * 4 + quad / 64 * 2;
  const int rank = quad / 32 % 2 * 8 + lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (t + i / 2 >= to.rows || rank + i % 2 >= to.rank) continue;
    to.dz.row(t + i / 2)[rank + i % 2] = __float2bfloat16_rn(sum.element[i]);
  }
}

constexpr int kSumTiles = kSumLanes * kSumSlices * 4 / kDzTile;  // of a block
constexpr int kSumColumns = 4;                                   // of a lane

// The last sums of both kinds, in order: the first `weight_blocks` blocks add chunks of rows, the
// others dz over channel blocks.
__global__ void __launch_bounds__(kSumLanes* kSumSlices)
    add_partials_kernel(ConvWeightSums<float> weights, unsigned weight_blocks, DzSums to) {
  wait_for_previous();
  if (blockIdx.x < weight_blocks) return add_chunks<kSumColumns>(weights, blockIdx.x);
  const int thread = threadIdx.y * kSumLanes + threadIdx.x;
  const std::int64_t first = std::int64_t{blockIdx.x - weight_blocks} * kSumTiles;
  add_blocks(to, first + thread * 4 / kDzTile, thread % (kDzTile / 4));
}

template <int Warps>
auto kernel_for(ConvWants wants) {
  switch (wants) {
    case ConvWants::input: return backward_kernel<Warps, true, false>;
    case ConvWants::weight: return backward_kernel<Warps, false, true>;
    case ConvWants::both: break;
  }
  return backward_kernel<Warps, true, true>;
}

template <int Warps>
void backward(const ConvCall& call, const ConvGradients& g, const Tensor& dy, const Tensor& x,
              ConvWants wants) {
  using Sizes = BackwardBlock<Warps>;
  const bool input = wants != ConvWants::weight, weight = wants != ConvWants::input;
  const MmaConvCall c = describe(call, x, dy, Sizes::kChannels, 132 * kSmWarps / Warps);
  const dim3 grid = grid_of(c, Sizes::kChannels);
  const std::int64_t tiles = ceil_div<std::int64_t>(c.rows, kTokens);
  const std::int64_t dz_count = input ? grid.x * tiles * kDzTile : 0;
  const std::int64_t static_count = std::int64_t{c.width} * c.channels;
  const std::int64_t weight_count = weight ? (1 + c.rank) * static_count : 0;
  call.workspace.begin(static_cast<std::size_t>(dz_count + grid.y * weight_count) * sizeof(float) +
                       512);
  auto* dz = call.workspace.take<float>(dz_count);
  auto* weights = call.workspace.take<float>(grid.y * weight_count);
  const BackwardTargets to{rows_of<bf16>(g.dx), rows_of<bf16>(g.dgenerated), dz, weights};
  launch_overlapped(kernel_for<Warps>(wants), grid, Sizes::kThreads, Sizes::kBytes, call.stream, to,
                    c);
  const ConvWeightSums<float> weight_sums{weight ? data_of<float>(g.ds) : nullptr,
                                          weight ? data_of<float>(g.du) : nullptr,
                                          weights,
                                          static_count,
                                          weight_count,
                                          grid.y};
  const unsigned weight_blocks = weight_sums.blocks<kSumColumns>();
  const auto dz_blocks =
      static_cast<unsigned>(input ? ceil_div<std::int64_t>(tiles, kSumTiles) : 0);
  launch_overlapped(add_partials_kernel, weight_blocks + dz_blocks, dim3(kSumLanes, kSumSlices), 0,
                    call.stream, weight_sums, weight_blocks,
                    DzSums{to.dz, dz, c.rows, tiles, c.rank, static_cast<int>(grid.x)});
}

}  // namespace

bool mma_conv_backward(const ConvCall& call, const ConvGradients& g, Tensor dy, Tensor x,
                       ConvWants wants) {
  if (!takes(call, {x, dy, wants == ConvWants::weight ? dy : g.dx})) return false;
  // Wide blocks, which halve the partial sums of dz, unless that leaves half of one without
  // channels.
  constexpr int kNarrow = BackwardBlock<kSmWarps / 2>::kChannels;
  if (ceil_div<std::int64_t>(x.cols(), kNarrow) % 2 == 0) {
    backward<kSmWarps>(call, g, dy, x, wants);
  } else {
    backward<kSmWarps / 2>(call, g, dy, x, wants);
  }
  return true;
}

}  // namespace convoy::cuda
