// Embedding. The gradient of a table row is the sum over the rows of dy that held its token; to add
// them in a fixed order without atomics, rows are sorted by token first (stably, so each token's
// rows stay in order). Long runs are cut into pieces that are summed side by side.
#include <algorithm>
#include <cstdio>
#include <cub/device/device_radix_sort.cuh>

#include "core/cuda/cuda_backend.h"
#include "core/cuda/elements.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/reductions.cuh"

namespace convoy {
namespace cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kPiece = 64;  // rows of one token summed by one block

// y [rows, columns] = table rows of tokens. A thread moves V elements; threads are dealt out over
// the packs of all rows, so that a narrow row leaves none idle.
template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(Rows<T> y, Rows<const T> table, const std::int32_t* tokens, TableRange range,
                  std::int64_t table_rows, std::uint32_t packs, std::uint32_t row_packs) {
  const std::uint32_t index = blockIdx.x * std::uint32_t{kThreads} + threadIdx.x;
  if (index >= packs) return;
  const std::int64_t row = index / row_packs, j = index % row_packs * std::int64_t{V};
  const std::int32_t token = tokens[row];
  if (token < 0 || token >= range.total) {
    printf("token %d at row %lld is outside the vocabulary of %lld\n", token,
           static_cast<long long>(row), static_cast<long long>(range.total));
    __trap();
  }
  const std::int64_t place = token - range.first;
  const bool here = place >= 0 && place < table_rows;
  Pack<T, V> values = {};
  if (here) values = load_pack<V>(table.row(place) + j);
  store_pack(y.row(row) + j, values);
}

__global__ void count_rows_kernel(std::int32_t* index, std::int32_t rows) {
  const std::int32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < rows) index[i] = i;
}

// starts[i] = the place where the run of equal tokens that holds i begins.
__global__ void run_starts_kernel(std::int32_t* starts, const std::int32_t* sorted,
                                  std::int32_t rows) {
  const std::int32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= rows) return;
  const std::int32_t token = sorted[i];
  std::int32_t low = 0, high = i;  // the first place whose token is not smaller
  while (low < high) {
    const std::int32_t middle = (low + high) / 2;
    if (sorted[middle] < token) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  starts[i] = low;
}

// A pack that may be wider than what one instruction moves.
template <class W, int V>
__device__ inline void store_packs(W* to, const Pack<W, V>& pack) {
  constexpr int kPart = std::min<int>(V, 16 / sizeof(W));
#pragma unroll
  for (int first = 0; first < V; first += kPart) {
    Pack<W, kPart> part;
#pragma unroll
    for (int e = 0; e < kPart; ++e) part.element[e] = pack.element[first + e];
    store_pack(to + first, part);
  }
}

constexpr int kAhead = 8;  // rows loaded before the first of them is added

// Sums each piece (kPiece places of the sorted order, cut where the token changes) and leaves the
// sum at the piece's last place in sums [rows, columns]. Blocks by pieces (x) and columns (y); a
// thread owns V columns.
template <class T, int V>
__global__ void sum_pieces_kernel(Wide<T>* sums, Rows<const T> dy, const std::int32_t* index,
                                  const std::int32_t* starts, std::int32_t rows,
                                  std::int64_t columns) {
  const std::int64_t j = (blockIdx.y * std::int64_t{kThreads} + threadIdx.x) * V;
  if (j >= columns) return;
  const std::int32_t begin = blockIdx.x * kPiece, end = min(begin + kPiece, rows);
  Pack<Wide<T>, V> sum = {};
  for (std::int32_t i0 = begin; i0 < end; i0 += kAhead) {
    Pack<T, V> row[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      row[k] = load_pack<V>(dy.row(index[min(i0 + k, end - 1)]) + j);
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      const std::int32_t i = i0 + k;
      if (i >= end) break;
#pragma unroll
      for (int e = 0; e < V; ++e) sum.element[e] += widen(row[k].element[e]);
      if (i + 1 != end && starts[i + 1] != i + 1) continue;
      store_packs(sums + i * columns + j, sum);
      sum = {};
    }
  }
}

constexpr int kWarps = kThreads / kWarp;

// Warp i: where a run ends at i, adds the sums of its pieces, in order, to the table row, if this
// part of the table has it.
template <class W, int V>
__global__ void __launch_bounds__(kThreads)
    add_runs_kernel(Rows<W> dtable, const W* sums, const std::int32_t* sorted,
                    const std::int32_t* starts, std::int32_t rows, std::int64_t columns,
                    std::int64_t first, std::int64_t table_rows) {
  wait_for_previous();
  const std::int32_t i = blockIdx.x * kWarps + threadIdx.x / kWarp;
  if (i >= rows || (i + 1 < rows && starts[i + 1] != i + 1)) return;
  const std::int64_t place = sorted[i] - first;
  if (place < 0 || place >= table_rows) return;
  const std::int32_t begin = starts[i];
  for (std::int64_t j = threadIdx.x % kWarp * V; j < columns; j += kWarp * V) {
    Pack<W, V> sum = {};
    const auto add = [&](const Pack<W, V>& more) {
#pragma unroll
      for (int e = 0; e < V; ++e) sum.element[e] += more.element[e];
    };
    auto total = load_pack<V>(static_cast<const W*>(dtable.row(place)) + j);
    for (std::int32_t end = (begin / kPiece + 1) * kPiece; end <= i; end += kPiece) {
      add(load_pack<V>(sums + (end - 1) * columns + j));
    }
    add(load_pack<V>(sums + i * columns + j));
#pragma unroll
    for (int e = 0; e < V; ++e) total.element[e] += sum.element[e];
    store_pack(dtable.row(place) + j, total);
  }
}

}  // namespace
}  // namespace cuda

void CudaBackend::embedding_forward(Tensor y, Tensor table, Tensor tokens,
                                    const TableRange& range) {
  using namespace cuda;
  if (y.size() == 0) return;
  const TableRange known = {range.first, range.total > 0 ? range.total : table.rows()};
  dispatch_element(y.dtype(), [&]<class T>() {
    const auto run = [&]<int V>() {
      const std::int64_t row_packs = y.cols() / V, packs = y.rows() * row_packs;
      CHECK(packs < std::int64_t{1} << 31, "embedding of ", y.rows(), " x ", y.cols());
      gather_kernel<T, V><<<static_cast<unsigned>(ceil_div<std::int64_t>(packs, kThreads)),
                            kThreads, 0, stream_>>>(
          rows_of<T>(y), read_rows<T>(table), tokens.data<std::int32_t>(), known, table.rows(),
          static_cast<std::uint32_t>(packs), static_cast<std::uint32_t>(row_packs));
    };
    packable(16, {y, table}) ? run.template operator()<16 / sizeof(T)>()
                             : run.template operator()<1>();
  });
  check_launch();
}

void CudaBackend::embedding_backward(Tensor dtable, Tensor dy, Tensor tokens,
                                     const TableRange& range) {
  using namespace cuda;
  if (dy.size() == 0) return;
  const auto rows = static_cast<std::int32_t>(dy.rows());
  const std::int64_t vocabulary = range.total > 0 ? range.total : dtable.rows();
  int bits = 1;
  while ((std::int64_t{1} << bits) < vocabulary) ++bits;
  std::size_t sort_bytes = 0;
  const std::int32_t* none = nullptr;
  CUDA_CHECK(cub::DeviceRadixSort::SortPairs(
      nullptr, sort_bytes, none, static_cast<std::int32_t*>(nullptr), none,
      static_cast<std::int32_t*>(nullptr), rows, 0, bits, stream_));
  const std::size_t wide = dy.dtype() == DType::f64 ? 8 : 4;
  workspace_->begin(sort_bytes + dy.size() * wide + 4 * (rows * sizeof(std::int32_t) + 256) + 512);
  auto* index = workspace_->take<std::int32_t>(rows);
  auto* sorted = workspace_->take<std::int32_t>(rows);
  auto* order = workspace_->take<std::int32_t>(rows);
  auto* starts = workspace_->take<std::int32_t>(rows);
  void* sort_memory = workspace_->take(sort_bytes);
  const auto blocks = static_cast<unsigned>(ceil_div(rows, 256));
  count_rows_kernel<<<blocks, 256, 0, stream_>>>(index, rows);
  CUDA_CHECK(cub::DeviceRadixSort::SortPairs(sort_memory, sort_bytes, tokens.data<std::int32_t>(),
                                             sorted, index, order, rows, 0, bits, stream_));
  run_starts_kernel<<<blocks, 256, 0, stream_>>>(starts, sorted, rows);
  dispatch_element(dy.dtype(), [&]<class T>() {
    using W = Wide<T>;
    W* sums = workspace_->take<W>(dy.size());
    const auto pieces = static_cast<unsigned>(ceil_div(rows, kPiece));
    constexpr int kPack = 16 / sizeof(T);
    const int pack = packable(16, {dy}) ? kPack : 1;
    const auto wide_blocks =
        static_cast<unsigned>(ceil_div<std::int64_t>(dy.cols(), kThreads * pack));
    const auto kernel = pack == 1 ? sum_pieces_kernel<T, 1> : sum_pieces_kernel<T, kPack>;
    kernel<<<dim3(pieces, wide_blocks), kThreads, 0, stream_>>>(sums, read_rows<T>(dy), order,
                                                                starts, rows, dy.cols());
    constexpr int kWidePack = 16 / sizeof(W);
    const auto add_runs =
        packable(16, {dtable}) ? add_runs_kernel<W, kWidePack> : add_runs_kernel<W, 1>;
    launch_overlapped(
        add_runs, static_cast<unsigned>(ceil_div(rows, kWarps)), kThreads, 0, stream_,
        rows_of<W>(dtable), static_cast<const W*>(sums), static_cast<const std::int32_t*>(sorted),
        static_cast<const std::int32_t*>(starts), rows, dy.cols(), range.first, dtable.rows());
  });
  check_launch();
}

}  // namespace convoy
