#include "core/cuda/elements.cuh"
#include "core/cuda/fixed_order_matmul.h"

namespace convoy::cuda {
namespace {

constexpr int kTile = 64;   // rows and columns of c a block
constexpr int kDepth = 16;  // of a step
constexpr int kPerThread = 4;
constexpr int kThreads = (kTile / kPerThread) * (kTile / kPerThread);

// Element (i, p) of op(m): strides along both.
template <class T>
struct Operand {
  const T* data;
  std::int64_t row_stride, column_stride, rows, columns;

  __device__ Wide<T> at(std::int64_t i, std::int64_t p) const {
    return i < rows && p < columns ? widen(data[i * row_stride + p * column_stride]) : Wide<T>(0);
  }
};

// a is op(a) [m, depth], b is op(b)^T [n, depth].
template <class T, class C>
__global__ void matmul_kernel(Rows<C> c, Operand<T> a, Operand<T> b, bool accumulate) {
  using W = Wide<T>;
  __shared__ W left[kDepth][kTile + 1], right[kDepth][kTile + 1];
  const std::int64_t i0 = blockIdx.y * std::int64_t{kTile}, j0 = blockIdx.x * std::int64_t{kTile};
  const int row = threadIdx.x / (kTile / kPerThread), column = threadIdx.x % (kTile / kPerThread);
  W sum[kPerThread][kPerThread] = {};
  for (std::int64_t p0 = 0; p0 < a.columns; p0 += kDepth) {
    for (int e = threadIdx.x; e < kTile * kDepth; e += kThreads) {
      // The faster index follows memory, so that loads are whole lines.
      const bool along = a.column_stride == 1, along_b = b.column_stride == 1;
      const int ai = along ? e / kDepth : e % kTile, ap = along ? e % kDepth : e / kTile;
      const int bi = along_b ? e / kDepth : e % kTile, bp = along_b ? e % kDepth : e / kTile;
      left[ap][ai] = a.at(i0 + ai, p0 + ap);
      right[bp][bi] = b.at(j0 + bi, p0 + bp);
    }
    __syncthreads();
#pragma unroll
    for (int p = 0; p < kDepth; ++p) {
#pragma unroll
      for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
        for (int j = 0; j < kPerThread; ++j) {
          sum[i][j] += left[p][row * kPerThread + i] * right[p][column * kPerThread + j];
        }
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < kPerThread; ++i) {
    for (int j = 0; j < kPerThread; ++j) {
      const std::int64_t y = i0 + row * kPerThread + i, x = j0 + column * kPerThread + j;
      if (y >= a.rows || x >= b.rows) continue;
      C& target = c.row(y)[x];
      const W old = accumulate ? static_cast<W>(widen(target)) : W(0);
      target = narrow<C>(static_cast<Wide<C>>(old + sum[i][j]));
    }
  }
}

template <class T>
Operand<T> operand(const Tensor& t, bool transposed) {
  if (transposed) return {data_of<T>(t), 1, t.row_stride(), t.cols(), t.rows()};
  return {data_of<T>(t), t.row_stride(), 1, t.rows(), t.cols()};
}

}  // namespace

void fixed_order_matmul(cudaStream_t stream, Tensor c, Tensor a, Transpose transpose_a, Tensor b,
                        Transpose transpose_b, Accumulate accumulate) {
  const dim3 grid(static_cast<unsigned>(ceil_div<std::int64_t>(c.cols(), kTile)),
                  static_cast<unsigned>(ceil_div<std::int64_t>(c.rows(), kTile)));
  CHECK(grid.y <= 65535, "a matmul of ", c.rows(), " rows at once in invariant mode");
  dispatch_element(a.dtype(), [&]<class T>() {
    const Operand<T> left = operand<T>(a, transpose_a == Transpose::yes);
    const Operand<T> right = operand<T>(b, transpose_b == Transpose::no);
    const bool add = accumulate == Accumulate::yes;
    if (c.dtype() == a.dtype()) {
      matmul_kernel<T, T><<<grid, kThreads, 0, stream>>>(rows_of<T>(c), left, right, add);
    } else {
      matmul_kernel<T, Wide<T>>
          <<<grid, kThreads, 0, stream>>>(rows_of<Wide<T>>(c), left, right, add);
    }
  });
  check_launch();
}

}  // namespace convoy::cuda
