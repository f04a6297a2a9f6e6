// SwiGLU and the softmax cross-entropy.
#include "core/cuda/cuda_backend.h"
#include "core/cuda/elements.cuh"
#include "core/cuda/kernel_scalar.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/reductions.cuh"

namespace convoy {
namespace cuda {
namespace {

constexpr int kThreads = 128;

template <class T, int V>
__global__ void swiglu_kernel(Rows<T> y, Rows<const T> gate, Rows<const T> up, std::int64_t rows,
                              std::int64_t packs) {
  wait_for_previous();
  for (std::int64_t i = blockIdx.y; i < rows; i += gridDim.y) {
    const std::int64_t j = blockIdx.x * std::int64_t{kThreads} + threadIdx.x;
    if (j >= packs) return;
    const auto g = load_pack<V>(gate.row(i) + j * V);
    const auto u = load_pack<V>(up.row(i) + j * V);
    Pack<T, V> result;
#pragma unroll
    for (int e = 0; e < V; ++e) {
      result.element[e] = narrow<T>(silu(widen(g.element[e])) * widen(u.element[e]));
    }
    store_pack(y.row(i) + j * V, result);
  }
}

template <class T, int V>
__global__ void swiglu_backward_kernel(Rows<T> dgate, Rows<T> dup, Rows<const T> dy,
                                       Rows<const T> gate, Rows<const T> up, std::int64_t rows,
                                       std::int64_t packs) {
  using W = Wide<T>;
  wait_for_previous();
  for (std::int64_t i = blockIdx.y; i < rows; i += gridDim.y) {
    const std::int64_t j = blockIdx.x * std::int64_t{kThreads} + threadIdx.x;
    if (j >= packs) return;
    const auto d = load_pack<V>(dy.row(i) + j * V);
    const auto g = load_pack<V>(gate.row(i) + j * V);
    const auto u = load_pack<V>(up.row(i) + j * V);
    Pack<T, V> to_gate, to_up;
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const W x = widen(g.element[e]), gradient = widen(d.element[e]);
      const W s = sigmoid(x);
      to_up.element[e] = narrow<T>(gradient * x * s);
      to_gate.element[e] = narrow<T>(gradient * widen(u.element[e]) * s * (W(1) + x * (W(1) - s)));
    }
    store_pack(dgate.row(i) + j * V, to_gate);
    store_pack(dup.row(i) + j * V, to_up);
  }
}

constexpr int kRowThreads = 512;  // of a row of logits

// One block a row: statistics = max, sum of exp(x - max), logit of the target.
template <class T, int V>
__global__ void statistics_kernel(Rows<Wide<T>> statistics, Rows<const T> logits,
                                  const std::int32_t* targets, std::int64_t columns,
                                  std::int64_t first_class) {
  using W = Wide<T>;
  __shared__ W shared[kRowThreads / kWarp];
  const std::int64_t i = blockIdx.x;
  const T* row = logits.row(i);
  // Each thread's sum is relative to the largest it has seen, so that the row is read once.
  W own = -INFINITY, own_sum = 0;
  for (std::int64_t j = threadIdx.x * V; j < columns; j += kRowThreads * V) {
    const auto pack = load_pack<V>(row + j);
    W top = own;
#pragma unroll
    for (int e = 0; e < V; ++e) top = max(top, widen(pack.element[e]));
    if (top > own) own_sum *= exponential(own - top);
    own = top;
#pragma unroll
    for (int e = 0; e < V; ++e) own_sum += exponential(widen(pack.element[e]) - top);
  }
  const W largest = block_max(own, shared);
  const W sum = block_sum(own_sum == W(0) ? W(0) : own_sum * exponential(own - largest), shared);
  if (threadIdx.x != 0) return;
  const std::int64_t column = targets[i] - first_class;
  W* out = statistics.row(i);
  out[0] = largest;
  out[1] = sum;
  out[2] = targets[i] >= 0 && column >= 0 && column < columns ? widen(row[column]) : W(0);
}

// statistics [rows, 3] from the parts [n * rows, 3], one thread a row.
template <class W>
__global__ void merge_kernel(Rows<W> statistics, Rows<const W> parts, std::int64_t rows,
                             std::int64_t all) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= rows) return;
  W largest = parts.row(i)[0], sum = 0, target = 0;
  for (std::int64_t p = i; p < all; p += rows) largest = max(largest, parts.row(p)[0]);
  for (std::int64_t p = i; p < all; p += rows) {
    sum += parts.row(p)[1] * exponential(parts.row(p)[0] - largest);
    target += parts.row(p)[2];
  }
  W* out = statistics.row(i);
  out[0] = largest;
  out[1] = sum;
  out[2] = target;
}

template <class W>
__global__ void losses_kernel(double* losses, Rows<const W> statistics, const std::int32_t* targets,
                              std::int64_t rows) {
  const std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  if (i >= rows) return;
  const W* s = statistics.row(i);
  losses[i] = targets[i] < 0 ? 0.0
                             : log(static_cast<double>(s[1])) + static_cast<double>(s[0]) -
                                   static_cast<double>(s[2]);
}

template <class T, int V>
__global__ void loss_backward_kernel(Rows<T> logits, Rows<const Wide<T>> statistics,
                                     const std::int32_t* targets, std::int64_t packs,
                                     std::int64_t first_class, KernelScalar<Wide<T>> scale_now) {
  using W = Wide<T>;
  const std::int64_t i = blockIdx.x;
  const std::int64_t j = blockIdx.y * std::int64_t{kThreads} + threadIdx.x;
  if (j >= packs) return;
  T* place = logits.row(i) + j * V;
  Pack<T, V> pack = load_pack<V>(static_cast<const T*>(place));
  const bool counts = targets[i] >= 0;
  const W scale = scale_now.read();
  const W shift = statistics.row(i)[0];
  const W factor = counts ? scale / statistics.row(i)[1] : W(0);
  const std::int64_t own = counts ? targets[i] - first_class - j * V : -1;
#pragma unroll
  for (int e = 0; e < V; ++e) {
    const W p = exponential(widen(pack.element[e]) - shift) * factor;
    pack.element[e] = narrow<T>(counts ? (own == e ? p - scale : p) : W(0));
  }
  store_pack(place, pack);
}

dim3 grid_of(std::int64_t packs, std::int64_t rows) {
  return {static_cast<unsigned>(ceil_div<std::int64_t>(packs, kThreads)),
          static_cast<unsigned>(std::min<std::int64_t>(rows, 65535))};
}

template <class Function>
void dispatch_packs(std::initializer_list<Tensor> tensors, Function&& run) {
  dispatch_element(tensors.begin()->dtype(), [&]<class T>() {
    constexpr int V = 16 / sizeof(T);
    if (packable(16, tensors)) return run.template operator()<T, V>();
    run.template operator()<T, 1>();
  });
}

}  // namespace
}  // namespace cuda

void CudaBackend::swiglu_forward(Tensor y, Tensor gate, Tensor up) {
  using namespace cuda;
  if (y.size() == 0) return;
  dispatch_packs({y, gate, up}, [&]<class T, int V>() {
    launch_overlapped(swiglu_kernel<T, V>, grid_of(y.cols() / V, y.rows()), kThreads, 0, stream_,
                      rows_of<T>(y), read_rows<T>(gate), read_rows<T>(up), y.rows(), y.cols() / V);
  });
  check_launch();
}

void CudaBackend::swiglu_backward(Tensor dgate, Tensor dup, Tensor dy, Tensor gate, Tensor up) {
  using namespace cuda;
  if (dy.size() == 0) return;
  dispatch_packs({dy, dgate, dup, gate, up}, [&]<class T, int V>() {
    launch_overlapped(swiglu_backward_kernel<T, V>, grid_of(dy.cols() / V, dy.rows()), kThreads, 0,
                      stream_, rows_of<T>(dgate), rows_of<T>(dup), read_rows<T>(dy),
                      read_rows<T>(gate), read_rows<T>(up), dy.rows(), dy.cols() / V);
  });
  check_launch();
}

void CudaBackend::softmax_statistics(Tensor statistics, Tensor logits, Tensor targets,
                                     std::int64_t first_class) {
  using namespace cuda;
  if (logits.size() == 0) return;
  dispatch_packs({logits}, [&]<class T, int V>() {
    statistics_kernel<T, V><<<static_cast<unsigned>(logits.rows()), kRowThreads, 0, stream_>>>(
        rows_of<Wide<T>>(statistics), read_rows<T>(logits), targets.data<std::int32_t>(),
        logits.cols(), first_class);
  });
  check_launch();
}

void CudaBackend::merge_softmax_statistics(Tensor statistics, Tensor parts) {
  using namespace cuda;
  if (statistics.size() == 0) return;
  const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(statistics.rows(), 256));
  dispatch_element(statistics.dtype(), [&]<class W>() {
    CHECK(sizeof(W) >= 4, "softmax statistics are f32 or f64, not ", statistics.describe());
    if constexpr (sizeof(W) >= 4) {
      merge_kernel<W><<<blocks, 256, 0, stream_>>>(rows_of<W>(statistics), read_rows<W>(parts),
                                                   statistics.rows(), parts.rows());
    }
  });
  check_launch();
}

void CudaBackend::cross_entropy_losses(Tensor losses, Tensor statistics, Tensor targets) {
  using namespace cuda;
  if (losses.size() == 0) return;
  const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(losses.size(), 256));
  dispatch_element(statistics.dtype(), [&]<class W>() {
    CHECK(sizeof(W) >= 4, "softmax statistics are f32 or f64, not ", statistics.describe());
    if constexpr (sizeof(W) >= 4) {
      losses_kernel<W><<<blocks, 256, 0, stream_>>>(losses.data<double>(), read_rows<W>(statistics),
                                                    targets.data<std::int32_t>(), losses.size());
    }
  });
  check_launch();
}

void CudaBackend::cross_entropy_backward(Tensor logits, Tensor statistics, Tensor targets,
                                         std::int64_t first_class, const Scalar& scale) {
  using namespace cuda;
  if (logits.size() == 0) return;
  dispatch_packs({logits}, [&]<class T, int V>() {
    const dim3 grid(static_cast<unsigned>(logits.rows()),
                    static_cast<unsigned>(ceil_div<std::int64_t>(logits.cols() / V, kThreads)));
    loss_backward_kernel<T, V><<<grid, kThreads, 0, stream_>>>(
        rows_of<T>(logits), read_rows<Wide<T>>(statistics), targets.data<std::int32_t>(),
        logits.cols() / V, first_class, KernelScalar<Wide<T>>(scale));
  });
  check_launch();
}

}  // namespace convoy
