#include <cmath>

#include "core/cuda/elements.cuh"
#include "core/cuda/mma.cuh"
#include "core/cuda/mma_attention.h"

namespace convoy::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kTile = 64;  // rows that a block owns, 16 a warp
constexpr float kLog2E = 1.44269504088896341f;

// Rows of D channels in shared memory, padded so that eight rows lie in different banks.
template <int D>
struct SharedTile {
  static constexpr int kPitch = D * 2 + 16;  // bytes
  std::uint32_t base;

  __device__ std::uint32_t at(int row, int channel) const {
    return base + row * kPitch + channel * 2;
  }
};

struct Shape {
  std::int64_t length;
  int group;
  float scale;
};

// Rows [first, first + Count) of one head into shared memory; rows from `length` on become zeros.
template <int D, int Count>
__device__ inline void load_tile(SharedTile<D> to, Rows<const bf16> from, std::int64_t base,
                                 std::int64_t first, std::int64_t length, int column) {
  constexpr int kChunks = D / 8;  // of 16 bytes
#pragma unroll
  for (int i = 0; i < ceil_div(Count * kChunks, kThreads); ++i) {
    const int index = i * kThreads + threadIdx.x;
    if (Count * kChunks % kThreads != 0 && index >= Count * kChunks) break;
    const int row = index / kChunks, chunk = index % kChunks;
    const bool there = first + row < length;
    const std::int64_t source = base + (there ? first + row : 0);
    copy_ahead(to.at(row, chunk * 8), from.row(source) + column + chunk * 8, there);
  }
}

// Left operand [16 rows, 16 channels from `channel`] whose rows begin at `row`.
template <int D>
__device__ inline void left_fragment(Pair (&a)[4], SharedTile<D> tile, int row, int channel) {
  const int lane = threadIdx.x % 32;
  load_matrices(a, tile.at(row + lane % 16, channel + lane / 16 * 8));
}

// Right operands of two neighbouring tiles of 8 columns: columns are rows of `tile` from `row`, the
// depth is its channels from `channel`: {b0, b1} of the first, {b0, b1} of the second.
template <int D>
__device__ inline void right_fragments(Pair (&b)[4], SharedTile<D> tile, int row, int channel) {
  const int lane = threadIdx.x % 32;
  load_matrices(b, tile.at(row + lane % 8 + lane / 16 * 8, channel + lane / 8 % 2 * 8));
}

// The same with the depth along the rows of `tile` from `row`, the columns its channels.
template <int D>
__device__ inline void right_fragments_down(Pair (&b)[4], SharedTile<D> tile, int row,
                                            int channel) {
  const int lane = threadIdx.x % 32;
  load_matrices_transposed(b, tile.at(row + lane % 16, channel + lane / 16 * 8));
}

// s [16, Columns] = left rows of a (from `row`) times rows of b, over all D channels.
template <int D, int Columns>
__device__ inline void scores(float (&s)[Columns / 8][4], SharedTile<D> a, int row,
                              SharedTile<D> b) {
#pragma unroll
  for (int n = 0; n < Columns / 8; ++n) s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
#pragma unroll
  for (int channel = 0; channel < D; channel += 16) {
    Pair left[4];
    left_fragment(left, a, row, channel);
#pragma unroll
    for (int n = 0; n < Columns / 8; n += 2) {
      Pair right[4];
      right_fragments(right, b, n * 8, channel);
      multiply_add(s[n], left, right[0], right[1]);
      multiply_add(s[n + 1], left, right[2], right[3]);
    }
  }
}

// sum [16, D] += p [16, Depth] times the rows of b, p taken from accumulators.
template <int D, int Depth>
__device__ inline void add_product(float (&sum)[D / 8][4], const float (&p)[Depth / 8][4],
                                   SharedTile<D> b) {
#pragma unroll
  for (int k = 0; k < Depth; k += 16) {
    const float(&low)[4] = p[k / 8];
    const float(&high)[4] = p[k / 8 + 1];
    const Pair left[4] = {pack_pair(low[0], low[1]), pack_pair(low[2], low[3]),
                          pack_pair(high[0], high[1]), pack_pair(high[2], high[3])};
#pragma unroll
    for (int channel = 0; channel < D; channel += 16) {
      Pair right[4];
      right_fragments_down(right, b, k, channel);
      multiply_add(sum[channel / 8], left, right[0], right[1]);
      multiply_add(sum[channel / 8 + 1], left, right[2], right[3]);
    }
  }
}

// Stores rows g and g + 8 of an accumulator, times `factor` of each.
template <int D>
__device__ inline void store_rows(Rows<bf16> to, std::int64_t base, std::int64_t first,
                                  std::int64_t length, int column, const float (&sum)[D / 8][4],
                                  float factor0, float factor1) {
  const int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::int64_t row = first + g + half * 8;
    if (row >= length) continue;
    bf16* place = to.row(base + row) + column + 2 * c;
    const float factor = half == 0 ? factor0 : factor1;
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      *reinterpret_cast<Pair*>(place + n * 8) =
          pack_pair(sum[n][2 * half] * factor, sum[n][2 * half + 1] * factor);
    }
  }
}

__device__ inline float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
__device__ inline float quad_sum(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

// The running softmax of the two rows a lane sees, in units of log 2.
struct RunningSoftmax {
  float largest[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0, 0};

  // Turns scores (times `scale`) into probabilities relative to the new maximum; `out` is rescaled.
  template <int Tiles, int OutTiles>
  __device__ void absorb(float (&s)[Tiles][4], float (&out)[OutTiles][4], float scale) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float top = -INFINITY;
#pragma unroll
      for (int n = 0; n < Tiles; ++n) top = fmaxf(top, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
      top = fmaxf(largest[half], quad_max(top) * scale);
      const float shift = top == -INFINITY ? 0.0f : top;
      const float rescale = exp2f(largest[half] - shift);
      float added = 0;
#pragma unroll
      for (int n = 0; n < Tiles; ++n) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          s[n][e] = exp2f(s[n][e] * scale - shift);
          added += s[n][e];
        }
      }
#pragma unroll
      for (int n = 0; n < OutTiles; ++n) {
        out[n][2 * half] *= rescale;
        out[n][2 * half + 1] *= rescale;
      }
      sum[half] = sum[half] * rescale + added;
      largest[half] = top;
    }
  }
};

// Scores outside of a row's document or after it become -infinity. Rows are queries.
template <int Tiles>
__device__ inline void mask_scores(float (&s)[Tiles][4], std::int64_t first_query,
                                   std::int64_t first_key, const std::int64_t (&start)[2]) {
  const int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
#pragma unroll
  for (int n = 0; n < Tiles; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const std::int64_t key = first_key + n * 8 + 2 * c + e % 2;
      if (key > first_query + g + e / 2 * 8 || key < start[e / 2]) s[n][e] = -INFINITY;
    }
  }
}

// What a block of queries must know of documents.
struct QueryDocuments {
  std::int64_t first_key, last_start;  // of the first and the last row of the block
  std::int64_t start[2];               // of the rows a lane sees

  __device__ QueryDocuments(const std::int32_t* starts, std::int64_t q0, std::int64_t length) {
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4;
    const auto of = [&](std::int64_t row) { return starts[min(row, length - 1)]; };
    first_key = of(q0);
    last_start = of(q0 + kTile - 1);
    for (int half = 0; half < 2; ++half) start[half] = of(q0 + warp * 16 + g + half * 8);
  }
  __device__ bool boundary_in(std::int64_t k0, std::int64_t q0) const {
    return k0 + kTile - 1 > q0 || k0 < last_start;
  }
};

template <int D>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(Rows<bf16> out, Rows<float> log_sum_exp, Rows<const bf16> q, Rows<const bf16> k,
                   Rows<const bf16> v, const std::int32_t* document_start, Shape shape) {
  extern __shared__ __align__(16) char memory[];
  constexpr int kBytes = kTile * SharedTile<D>::kPitch;
  const std::uint32_t shared = shared_address(memory);
  const SharedTile<D> queries{shared};
  const auto keys = [&](int slot) { return SharedTile<D>{shared + kBytes * (1 + slot)}; };
  const auto values = [&](int slot) { return SharedTile<D>{shared + kBytes * (3 + slot)}; };
  const std::int64_t q0 = (gridDim.x - 1 - blockIdx.x) * std::int64_t{kTile};  // longest first
  const std::int64_t base = blockIdx.z * shape.length;
  const int head = blockIdx.y, kv_column = head / shape.group * D;
  const int warp = threadIdx.x / 32;
  const QueryDocuments documents(document_start + base, q0, shape.length);
  const std::int64_t begin = documents.first_key / kTile * kTile;
  const auto load = [&](std::int64_t k0, int slot) {
    load_tile<D, kTile>(keys(slot), k, base, k0, shape.length, kv_column);
    load_tile<D, kTile>(values(slot), v, base, k0, shape.length, kv_column);
    commit_copies();
  };
  load_tile<D, kTile>(queries, q, base, q0, shape.length, head * D);
  load(begin, 0);
  float sum[D / 8][4] = {};
  RunningSoftmax softmax;
  int slot = 0;
  for (std::int64_t k0 = begin; k0 <= q0; k0 += kTile, slot ^= 1) {
    if (k0 + kTile <= q0) {
      load(k0 + kTile, slot ^ 1);
      wait_copies<1>();
    } else {
      wait_copies<0>();
    }
    __syncthreads();
    float s[kTile / 8][4];
    scores<D, kTile>(s, queries, warp * 16, keys(slot));
    if (documents.boundary_in(k0, q0)) mask_scores(s, q0 + warp * 16, k0, documents.start);
    softmax.absorb(s, sum, shape.scale * kLog2E);
    add_product<D, kTile>(sum, s, values(slot));
    __syncthreads();
  }
  float factor[2];
  const int g = threadIdx.x % 32 / 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float total = quad_sum(softmax.sum[half]);
    factor[half] = 1 / total;
    const std::int64_t row = q0 + warp * 16 + g + half * 8;
    if (threadIdx.x % 4 == 0 && row < shape.length) {
      log_sum_exp.row(base + row)[head] = (softmax.largest[half] + log2f(total)) / kLog2E;
    }
  }
  store_rows<D>(out, base, q0 + warp * 16, shape.length, head * D, sum, factor[0], factor[1]);
}

struct BackwardInput {
  Rows<const bf16> q, k, v, dout;
  Rows<const float> log_sum_exp;
  const float* delta;  // [rows, heads]
  int heads;
  const std::int32_t* document_start;
};

// p = exp(scaled score - log_sum_exp), 0 where the score is masked.
__device__ inline float probability(float score, float scale, float log_sum_exp2) {
  return score == -INFINITY ? 0.0f : exp2f(score * scale - log_sum_exp2);
}

template <int D>
__global__ void __launch_bounds__(kThreads)
    query_kernel(Rows<bf16> dq, BackwardInput in, Shape shape) {
  extern __shared__ __align__(16) char memory[];
  constexpr int kBytes = kTile * SharedTile<D>::kPitch;
  const std::uint32_t shared = shared_address(memory);
  const SharedTile<D> queries{shared}, douts{shared + kBytes};
  const auto keys = [&](int slot) { return SharedTile<D>{shared + kBytes * (2 + slot)}; };
  const auto values = [&](int slot) { return SharedTile<D>{shared + kBytes * (4 + slot)}; };
  const std::int64_t q0 = (gridDim.x - 1 - blockIdx.x) * std::int64_t{kTile};
  const std::int64_t base = blockIdx.z * shape.length;
  const int head = blockIdx.y, kv_column = head / shape.group * D;
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4;
  const QueryDocuments documents(in.document_start + base, q0, shape.length);
  const std::int64_t begin = documents.first_key / kTile * kTile;
  const auto load = [&](std::int64_t k0, int slot) {
    load_tile<D, kTile>(keys(slot), in.k, base, k0, shape.length, kv_column);
    load_tile<D, kTile>(values(slot), in.v, base, k0, shape.length, kv_column);
    commit_copies();
  };
  load_tile<D, kTile>(queries, in.q, base, q0, shape.length, head * D);
  load_tile<D, kTile>(douts, in.dout, base, q0, shape.length, head * D);
  load(begin, 0);
  float lse[2], delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::int64_t row = base + min(q0 + warp * 16 + g + half * 8, shape.length - 1);
    lse[half] = in.log_sum_exp.row(row)[head] * kLog2E;
    delta[half] = in.delta[row * in.heads + head];
  }
  float sum[D / 8][4] = {};
  int slot = 0;
  for (std::int64_t k0 = begin; k0 <= q0; k0 += kTile, slot ^= 1) {
    if (k0 + kTile <= q0) {
      load(k0 + kTile, slot ^ 1);
      wait_copies<1>();
    } else {
      wait_copies<0>();
    }
    __syncthreads();
    float s[kTile / 8][4], ds[kTile / 8][4];
    scores<D, kTile>(s, queries, warp * 16, keys(slot));
    if (documents.boundary_in(k0, q0)) mask_scores(s, q0 + warp * 16, k0, documents.start);
    scores<D, kTile>(ds, douts, warp * 16, values(slot));
#pragma unroll
    for (int n = 0; n < kTile / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        ds[n][e] =
            probability(s[n][e], shape.scale * kLog2E, lse[e / 2]) * (ds[n][e] - delta[e / 2]);
      }
    }
    add_product<D, kTile>(sum, ds, keys(slot));
    __syncthreads();
  }
  store_rows<D>(dq, base, q0 + warp * 16, shape.length, head * D, sum, shape.scale, shape.scale);
}

// Queries go by in tiles of kQueries; a warp holds 16 keys.
template <int D>
__global__ void __launch_bounds__(kThreads)
    key_kernel(Rows<bf16> dk, Rows<bf16> dv, BackwardInput in, Shape shape) {
  constexpr int kQueries = D == 128 ? 32 : 64;
  extern __shared__ __align__(16) char memory[];
  __shared__ float lse[2][kQueries], delta[2][kQueries];
  __shared__ std::int32_t start[2][kQueries];
  constexpr int kOwned = kTile * SharedTile<D>::kPitch, kPassing = kQueries * SharedTile<D>::kPitch;
  const std::uint32_t shared = shared_address(memory);
  const SharedTile<D> keys{shared}, values{shared + kOwned};
  const std::uint32_t passing = shared + 2 * kOwned;
  const auto queries = [&](int slot) { return SharedTile<D>{passing + kPassing * slot}; };
  const auto douts = [&](int slot) { return SharedTile<D>{passing + kPassing * (2 + slot)}; };
  const std::int64_t k0 = blockIdx.x * std::int64_t{kTile};
  const std::int64_t base = blockIdx.z * shape.length;
  const int kv_column = blockIdx.y * D, warp = threadIdx.x / 32;
  const int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
  const std::int64_t last_key = min(k0 + kTile, shape.length) - 1;
  // The tiles of all heads of the group, one after the other; past the document's end none counts.
  std::int64_t end = k0;
  while (end < shape.length && in.document_start[base + end] <= last_key) end += kQueries;
  const int tiles = static_cast<int>((end - k0) / kQueries), all = tiles * shape.group;
  const auto load = [&](int index, int slot) {
    const int head = blockIdx.y * shape.group + index / tiles;
    const std::int64_t q0 = k0 + index % tiles * std::int64_t{kQueries};
    load_tile<D, kQueries>(queries(slot), in.q, base, q0, shape.length, head * D);
    load_tile<D, kQueries>(douts(slot), in.dout, base, q0, shape.length, head * D);
    commit_copies();
    if (threadIdx.x < kQueries) {
      const std::int64_t row = q0 + threadIdx.x;
      const bool there = row < shape.length;
      const std::int64_t place = base + (there ? row : 0);
      lse[slot][threadIdx.x] = in.log_sum_exp.row(place)[head] * kLog2E;
      delta[slot][threadIdx.x] = in.delta[place * in.heads + head];
      // A row after the end sees no key.
      start[slot][threadIdx.x] = there ? in.document_start[place] : INT32_MAX;
    }
  };
  load_tile<D, kTile>(keys, in.k, base, k0, shape.length, kv_column);
  load_tile<D, kTile>(values, in.v, base, k0, shape.length, kv_column);
  load(0, 0);
  float key_sum[D / 8][4] = {}, value_sum[D / 8][4] = {};
  for (int index = 0; index < all; ++index) {
    const int slot = index % 2;
    if (index + 1 < all) {
      load(index + 1, slot ^ 1);
      wait_copies<1>();
    } else {
      wait_copies<0>();
    }
    __syncthreads();
    const std::int64_t q0 = k0 + index % tiles * std::int64_t{kQueries};
    float p[kQueries / 8][4], ds[kQueries / 8][4];
    scores<D, kQueries>(p, keys, warp * 16, queries(slot));
    scores<D, kQueries>(ds, values, warp * 16, douts(slot));
#pragma unroll
    for (int n = 0; n < kQueries / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int column = n * 8 + 2 * c + e % 2;
        const std::int64_t key = k0 + warp * 16 + g + e / 2 * 8;
        const bool sees = key <= q0 + column && key >= start[slot][column];
        p[n][e] = sees ? exp2f(p[n][e] * shape.scale * kLog2E - lse[slot][column]) : 0.0f;
        ds[n][e] = p[n][e] * (ds[n][e] - delta[slot][column]);
      }
    }
    add_product<D, kQueries>(value_sum, p, douts(slot));
    add_product<D, kQueries>(key_sum, ds, queries(slot));
    __syncthreads();
  }
  store_rows<D>(dk, base, k0 + warp * 16, shape.length, kv_column, key_sum, shape.scale,
                shape.scale);
  store_rows<D>(dv, base, k0 + warp * 16, shape.length, kv_column, value_sum, 1, 1);
}

bool takes(std::initializer_list<Tensor> tensors, const AttentionShape& shape) {
  if (tensors.begin()->dtype() != DType::bf16 || !packable(16, tensors)) return false;
  return shape.head_width == 32 || shape.head_width == 64 || shape.head_width == 128;
}

template <class Function>
void dispatch_width(std::int64_t width, Function&& run) {
  if (width == 32) return run.template operator()<32>();
  if (width == 64) return run.template operator()<64>();
  run.template operator()<128>();
}

Shape shape_of(const AttentionShape& shape) {
  return {shape.length, static_cast<int>(shape.query_heads / shape.kv_heads),
          1.0f / std::sqrt(static_cast<float>(shape.head_width))};
}

dim3 grid_of(const AttentionShape& shape, std::int64_t heads) {
  return {static_cast<unsigned>(ceil_div<std::int64_t>(shape.length, kTile)),
          static_cast<unsigned>(heads), static_cast<unsigned>(shape.sequences)};
}

template <class Kernel>
void allow_shared(Kernel kernel, int bytes) {
  CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
}

}  // namespace

bool mma_attention_forward(cudaStream_t stream, Tensor out, Tensor log_sum_exp, Tensor q, Tensor k,
                           Tensor v, Tensor document_start, const AttentionShape& shape) {
  if (!takes({q, k, v, out}, shape)) return false;
  dispatch_width(shape.head_width, [&]<int D>() {
    constexpr int kShared = 5 * kTile * SharedTile<D>::kPitch;
    allow_shared(forward_kernel<D>, kShared);
    forward_kernel<D><<<grid_of(shape, shape.query_heads), kThreads, kShared, stream>>>(
        rows_of<bf16>(out), rows_of<float>(log_sum_exp), read_rows<bf16>(q), read_rows<bf16>(k),
        read_rows<bf16>(v), document_start.data<std::int32_t>(), shape_of(shape));
  });
  check_launch();
  return true;
}

bool mma_attention_backward(cudaStream_t stream, Tensor dq, Tensor dk, Tensor dv, Tensor dout,
                            Tensor q, Tensor k, Tensor v, Tensor log_sum_exp, const float* delta,
                            Tensor document_start, const AttentionShape& shape) {
  if (!takes({q, k, v, dout, dq, dk, dv}, shape)) return false;
  const BackwardInput in{read_rows<bf16>(q),
                         read_rows<bf16>(k),
                         read_rows<bf16>(v),
                         read_rows<bf16>(dout),
                         read_rows<float>(log_sum_exp),
                         delta,
                         static_cast<int>(shape.query_heads),
                         document_start.data<std::int32_t>()};
  dispatch_width(shape.head_width, [&]<int D>() {
    constexpr int kQueryShared = 6 * kTile * SharedTile<D>::kPitch;
    constexpr int kPassing = D == 128 ? 32 : 64;
    constexpr int kKeyShared = (2 * kTile + 4 * kPassing) * SharedTile<D>::kPitch;
    allow_shared(query_kernel<D>, kQueryShared);
    allow_shared(key_kernel<D>, kKeyShared);
    query_kernel<D><<<grid_of(shape, shape.query_heads), kThreads, kQueryShared, stream>>>(
        rows_of<bf16>(dq), in, shape_of(shape));
    key_kernel<D><<<grid_of(shape, shape.kv_heads), kThreads, kKeyShared, stream>>>(
        rows_of<bf16>(dk), rows_of<bf16>(dv), in, shape_of(shape));
  });
  check_launch();
  return true;
}

}  // namespace convoy::cuda
