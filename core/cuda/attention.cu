// Causal attention inside documents, the general kernels: any dtype, head width up to 256, strides.
// A warp takes one row (of queries, or of keys in the backward pass); its lanes take 32 partner
// rows at a time for the scores and then share the channels for the sums. Every sum has a fixed
// order.
#include <cmath>

#include "core/cuda/cuda_backend.h"
#include "core/cuda/elements.cuh"
#include "core/cuda/flash_attention.h"
#include "core/cuda/mma_attention.h"
#include "core/cuda/reductions.cuh"
#include "core/cuda/warpgroup_attention.h"

namespace convoy {
namespace cuda {
namespace {

constexpr int kWarps = 4;                  // rows a block
constexpr int kMaxWidth = 256;             // of a head
constexpr int kOwned = kMaxWidth / kWarp;  // channels a lane may own

template <class T>
struct Heads {
  Rows<const T> q, k, v;
  const std::int32_t* document_start;
  std::int64_t length, key_length;  // rows of queries, and of keys, of a sequence
  std::int64_t run_length;          // queries stand in runs of consecutive positions
  int runs;
  std::int64_t run_begin[2];
  int query_heads, group, width;
  Wide<T> scale;
};

template <class T>
__device__ inline Wide<T> dot(const Wide<T>* row, const T* other, int width) {
  Wide<T> sum = 0;
  for (int d = 0; d < width; ++d) sum += row[d] * widen(other[d]);
  return sum;
}

// Copies a row into shared memory in the wide type, times scale.
template <class T>
__device__ inline void stage(Wide<T>* to, const T* from, int width, Wide<T> scale) {
  for (int d = threadIdx.x % kWarp; d < width; d += kWarp) to[d] = widen(from[d]) * scale;
  __syncwarp();
}

// sum[i] += weight of lane `source` * from[lane + 32 i], for each source lane in order.
template <class T>
__device__ inline void gather_rows(Wide<T> (&sum)[kOwned], Wide<T> weight, const T* from,
                                   std::int64_t stride, int count, int width) {
  const int lane = threadIdx.x % kWarp;
  for (int source = 0; source < count; ++source) {
    const Wide<T> w = __shfl_sync(~0u, weight, source);
    const T* row = from + source * stride;
#pragma unroll
    for (int i = 0; i < kOwned; ++i) {
      const int d = lane + i * kWarp;
      if (d < width) sum[i] += w * widen(row[d]);
    }
  }
}

// The row and head of the calling warp; blocks over rows (x) and heads (y).
struct Place {
  std::int64_t row;
  int head;
  __device__ Place()
      : row(blockIdx.x * std::int64_t{kWarps} + threadIdx.x / kWarp), head(blockIdx.y) {}
};

// A row of queries: the first row of its sequence's keys, and its position among them.
struct QueryPlace : Place {
  std::int64_t base, position;

  template <class T>
  __device__ QueryPlace(const Heads<T>& in) : base(row / in.length * in.key_length) {
    const std::int64_t place = row % in.length, run = place / in.run_length;
    position = in.run_begin[run] + place % in.run_length;
  }
};

// A row of keys: the first row of its sequence's queries, and its position.
struct KeyPlace : Place {
  std::int64_t base, position;

  template <class T>
  __device__ KeyPlace(const Heads<T>& in)
      : base(row / in.key_length * in.length), position(row % in.key_length) {}
};

template <class T>
__global__ void forward_kernel(Rows<T> out, Rows<Wide<T>> log_sum_exp, Heads<T> in,
                               std::int64_t rows) {
  using W = Wide<T>;
  extern __shared__ char memory[];
  const QueryPlace at(in);
  if (at.row >= rows) return;
  const int lane = threadIdx.x % kWarp, width = in.width;
  W* q = reinterpret_cast<W*>(memory) + threadIdx.x / kWarp * width;
  stage<T>(q, in.q.row(at.row) + at.head * width, width, in.scale);
  const int kv = at.head / in.group * width;
  W sum[kOwned] = {}, largest = -INFINITY, total = 0;
  for (std::int64_t j0 = in.document_start[at.row]; j0 <= at.position; j0 += kWarp) {
    const int count = static_cast<int>(min(at.position + 1 - j0, std::int64_t{kWarp}));
    const bool here = lane < count;
    const std::int64_t key = at.base + (here ? j0 + lane : j0);
    const W score = here ? dot<T>(q, in.k.row(key) + kv, width) : W(-INFINITY);
    const W top = max(largest, warp_max(score));
    const W rescale = exp(largest - top);
    const W p = here ? exp(score - top) : W(0);
    total = total * rescale + warp_sum(p);
#pragma unroll
    for (int i = 0; i < kOwned; ++i) sum[i] *= rescale;
    gather_rows<T>(sum, p, in.v.row(at.base + j0) + kv, in.v.stride, count, width);
    largest = top;
  }
#pragma unroll
  for (int i = 0; i < kOwned; ++i) {
    const int d = lane + i * kWarp;
    if (d < width) out.row(at.row)[at.head * width + d] = narrow<T>(sum[i] / total);
  }
  if (lane == 0) log_sum_exp.row(at.row)[at.head] = largest + log(total);
}

// delta[row, head] = dout . out.
template <class T>
__global__ void delta_kernel(Wide<T>* delta, Rows<const T> dout, Rows<const T> out,
                             std::int64_t rows, int heads, int width) {
  const std::int64_t index = blockIdx.x * std::int64_t{kWarps} + threadIdx.x / kWarp;
  if (index >= rows * heads) return;
  const std::int64_t row = index / heads;
  const int column = static_cast<int>(index % heads) * width;
  Wide<T> sum = 0;
  for (int d = threadIdx.x % kWarp; d < width; d += kWarp) {
    sum += widen(dout.row(row)[column + d]) * widen(out.row(row)[column + d]);
  }
  sum = warp_sum(sum);
  if (threadIdx.x % kWarp == 0) delta[index] = sum;
}

template <class T>
struct Backward {
  Rows<const T> dout;
  Rows<const Wide<T>> log_sum_exp;
  const Wide<T>* delta;  // [rows, heads]
};

template <class T>
__global__ void query_kernel(Rows<T> dq, Heads<T> in, Backward<T> back, std::int64_t rows) {
  using W = Wide<T>;
  extern __shared__ char memory[];
  const QueryPlace at(in);
  if (at.row >= rows) return;
  const int lane = threadIdx.x % kWarp, width = in.width;
  W* q = reinterpret_cast<W*>(memory) + threadIdx.x / kWarp * 2 * width;
  W* dout = q + width;
  stage<T>(q, in.q.row(at.row) + at.head * width, width, in.scale);
  stage<T>(dout, back.dout.row(at.row) + at.head * width, width, W(1));
  const int kv = at.head / in.group * width;
  const W lse = back.log_sum_exp.row(at.row)[at.head];
  const W delta = back.delta[at.row * in.query_heads + at.head];
  W sum[kOwned] = {};
  for (std::int64_t j0 = in.document_start[at.row]; j0 <= at.position; j0 += kWarp) {
    const int count = static_cast<int>(min(at.position + 1 - j0, std::int64_t{kWarp}));
    const bool here = lane < count;
    const std::int64_t key = at.base + (here ? j0 + lane : j0);
    W ds = 0;
    if (here) {
      const W p = exp(dot<T>(q, in.k.row(key) + kv, width) - lse);
      ds = p * (dot<T>(dout, in.v.row(key) + kv, width) - delta);
    }
    gather_rows<T>(sum, ds, in.k.row(at.base + j0) + kv, in.k.stride, count, width);
  }
#pragma unroll
  for (int i = 0; i < kOwned; ++i) {
    const int d = lane + i * kWarp;
    if (d < width) dq.row(at.row)[at.head * width + d] = narrow<T>(sum[i] * in.scale);
  }
}

// A warp owns a row of keys and values; y of the grid is the key/value head.
template <class T>
__global__ void key_kernel(Rows<T> dk, Rows<T> dv, Heads<T> in, Backward<T> back,
                           std::int64_t rows) {
  using W = Wide<T>;
  extern __shared__ char memory[];
  const KeyPlace at(in);
  if (at.row >= rows) return;
  const int lane = threadIdx.x % kWarp, width = in.width;
  W* k = reinterpret_cast<W*>(memory) + threadIdx.x / kWarp * 2 * width;
  W* v = k + width;
  stage<T>(k, in.k.row(at.row) + at.head * width, width, in.scale);
  stage<T>(v, in.v.row(at.row) + at.head * width, width, W(1));
  W key_sum[kOwned] = {}, value_sum[kOwned] = {};
  for (int head = at.head * in.group; head < (at.head + 1) * in.group; ++head) {
    for (int run = 0; run < in.runs; ++run) {
      const std::int64_t base = at.base + run * in.run_length;
      for (std::int64_t i0 = max(at.position - in.run_begin[run], std::int64_t{0});
           i0 < in.run_length; i0 += kWarp) {
        const int count = static_cast<int>(min(in.run_length - i0, std::int64_t{kWarp}));
        const std::int64_t query = base + i0 + min(lane, count - 1);
        const bool sees = lane < count && in.document_start[query] <= at.position;
        if (__ballot_sync(~0u, sees) == 0) break;  // the document ended before
        W p = 0, ds = 0;
        if (sees) {
          p = exp(dot<T>(k, in.q.row(query) + head * width, width) -
                  back.log_sum_exp.row(query)[head]);
          ds = p * (dot<T>(v, back.dout.row(query) + head * width, width) -
                    back.delta[query * in.query_heads + head]);
        }
        const std::int64_t first = base + i0;
        gather_rows<T>(value_sum, p, back.dout.row(first) + head * width, back.dout.stride, count,
                       width);
        gather_rows<T>(key_sum, ds, in.q.row(first) + head * width, in.q.stride, count, width);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kOwned; ++i) {
    const int d = lane + i * kWarp;
    if (d >= width) continue;
    dk.row(at.row)[at.head * width + d] = narrow<T>(key_sum[i] * in.scale);
    dv.row(at.row)[at.head * width + d] = narrow<T>(value_sum[i]);
  }
}

template <class T>
Heads<T> heads_of(Tensor q, Tensor k, Tensor v, Tensor document_start,
                  const AttentionShape& shape) {
  CHECK(shape.head_width <= kMaxWidth, "heads of ", shape.head_width, " channels; ", kMaxWidth,
        " at most on a GPU");
  return {read_rows<T>(q),
          read_rows<T>(k),
          read_rows<T>(v),
          document_start.data<std::int32_t>(),
          shape.length,
          shape.key_length,
          shape.length / shape.runs,
          shape.runs,
          {shape.run_begin[0], shape.run_begin[1]},
          static_cast<int>(shape.query_heads),
          static_cast<int>(shape.query_heads / shape.kv_heads),
          static_cast<int>(shape.head_width),
          static_cast<Wide<T>>(1 / std::sqrt(static_cast<double>(shape.head_width)))};
}

__global__ void pack_kernel(float* to, Rows<const float> from, std::int64_t length, int heads,
                            std::int64_t count) {
  const std::int64_t index = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  if (index >= count) return;
  const std::int64_t row = index / heads, head = index % heads;
  to[(row / length * heads + head) * length + row % length] = from.row(row)[head];
}

dim3 grid_of(std::int64_t rows, std::int64_t heads) {
  return {static_cast<unsigned>(ceil_div<std::int64_t>(rows, kWarps)),
          static_cast<unsigned>(heads)};
}

// Not queries of a part of a sequence, as context parallelism has them: those are for the general
// kernels.
bool is_of_whole_sequences(const AttentionShape& shape) {
  return shape.runs == 1 && shape.key_length == shape.length && shape.run_begin[0] == 0;
}

}  // namespace

void pack_statistics(cudaStream_t stream, float* to, const Tensor& log_sum_exp,
                     const AttentionShape& shape) {
  const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(log_sum_exp.size(), 256));
  pack_kernel<<<blocks, 256, 0, stream>>>(to, read_rows<float>(log_sum_exp), shape.length,
                                          static_cast<int>(shape.query_heads), log_sum_exp.size());
  check_launch();
}

}  // namespace cuda

void CudaBackend::attention_forward(Tensor out, Tensor log_sum_exp, Tensor q, Tensor k, Tensor v,
                                    Tensor document_start, const AttentionShape& shape) {
  using namespace cuda;
  if (q.size() == 0) return;
  const bool whole = is_of_whole_sequences(shape);
  if (whole && shape.one_document && flash_ &&
      flash_->takes_forward(out, log_sum_exp, q, k, v, shape)) {
    return flash_->forward(out, log_sum_exp, q, k, v, shape);
  }
  if (whole && mma_attention_forward(stream_, out, log_sum_exp, q, k, v, document_start, shape)) {
    return;
  }
  dispatch_element(q.dtype(), [&]<class T>() {
    using W = Wide<T>;
    const auto shared = static_cast<std::size_t>(kWarps * shape.head_width) * sizeof(W);
    forward_kernel<T><<<grid_of(q.rows(), shape.query_heads), kWarps * kWarp, shared, stream_>>>(
        rows_of<T>(out), rows_of<W>(log_sum_exp), heads_of<T>(q, k, v, document_start, shape),
        q.rows());
  });
  check_launch();
}

void CudaBackend::attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor q,
                                     Tensor k, Tensor v, Tensor out, Tensor log_sum_exp,
                                     Tensor document_start, const AttentionShape& shape) {
  using namespace cuda;
  if (q.size() == 0) return;
  const bool whole = is_of_whole_sequences(shape);
  if (whole && shape.one_document &&
      warpgroup_attention_backward(stream_, *workspace_, dq, dk, dv, dout, q, k, v, out,
                                   log_sum_exp, shape)) {
    return;
  }
  if (whole && shape.one_document && flash_ &&
      flash_->takes_backward(dq, dk, dv, dout, q, k, v, out, log_sum_exp, shape)) {
    return flash_->backward(dq, dk, dv, dout, q, k, v, out, log_sum_exp, shape);
  }
  const std::int64_t rows = q.rows(), heads = shape.query_heads;
  dispatch_element(q.dtype(), [&]<class T>() {
    using W = Wide<T>;
    workspace_->begin(static_cast<std::size_t>(rows * heads) * sizeof(W));
    W* delta = workspace_->take<W>(rows * heads);
    delta_kernel<T><<<grid_of(rows * heads, 1), kWarps * kWarp, 0, stream_>>>(
        delta, read_rows<T>(dout), read_rows<T>(out), rows, static_cast<int>(heads),
        static_cast<int>(shape.head_width));
    if constexpr (sizeof(T) == 2) {
      if (whole && mma_attention_backward(stream_, dq, dk, dv, dout, q, k, v, log_sum_exp, delta,
                                          document_start, shape)) {
        return;
      }
    }
    const auto in = heads_of<T>(q, k, v, document_start, shape);
    const Backward<T> back{read_rows<T>(dout), read_rows<W>(log_sum_exp), delta};
    const auto shared = static_cast<std::size_t>(2 * kWarps * shape.head_width) * sizeof(W);
    query_kernel<T>
        <<<grid_of(rows, heads), kWarps * kWarp, shared, stream_>>>(rows_of<T>(dq), in, back, rows);
    key_kernel<T><<<grid_of(k.rows(), shape.kv_heads), kWarps * kWarp, shared, stream_>>>(
        rows_of<T>(dk), rows_of<T>(dv), in, back, k.rows());
  });
  check_launch();
}

}  // namespace convoy
