// The general convolution kernels: any dtype, width, rank, head size, strides and halo.
#include "core/conv_shape.h"
#include "core/cuda/conv.h"
#include "core/cuda/elements.cuh"
#include "core/cuda/partial_sums.cuh"
#include "core/cuda/reductions.cuh"

namespace convoy {
namespace cuda {
namespace {

constexpr int kThreads = 128;

// The tap K[t, w, d] by its definition.
template <class T>
struct Taps {
  FilterKind kind;
  int width;
  bool residual;
  std::int64_t rank, head_size;
  Rows<const T> s, u, generated;

  __device__ Wide<T> at(std::int64_t t, int w, std::int64_t d) const {
    Wide<T> k = widen(s.row(w)[d]);
    if (kind == FilterKind::headwise) k += widen(generated.row(t)[d / head_size * width + w]);
    if (kind == FilterKind::lowrank) {
      const T* z = generated.row(t);
      for (std::int64_t r = 0; r < rank; ++r) k += widen(z[r]) * widen(u.row(r * width + w)[d]);
    }
    return k;
  }
};

// Where taps read from: rows of x, of the halo before a segment, or nowhere (null).
template <class T>
struct Sources {
  Rows<const T> x, halo;
  const std::int32_t* reach;
  std::int64_t length;
  int width;

  __device__ bool sees(std::int64_t row, int w) const { return w <= reach[row]; }
  __device__ const T* at(std::int64_t row, int w) const {
    if (!sees(row, w)) return nullptr;
    const std::int64_t place = row % length - w;
    if (place >= 0) return x.row(row - w);
    if (halo.data == nullptr) __trap();  // reach promised that no row looks there
    return halo.row(row / length * (width - 1) + width - 1 + place);
  }
};

template <class T>
__global__ void forward_kernel(Rows<T> y, Sources<T> from, Taps<T> taps, std::int64_t channels) {
  const std::int64_t t = blockIdx.x;
  const std::int64_t d = blockIdx.y * std::int64_t{kThreads} + threadIdx.x;
  if (d >= channels) return;
  Wide<T> sum = taps.residual ? widen(from.x.row(t)[d]) : Wide<T>(0);
  for (int w = 0; w < taps.width; ++w) {
    const T* source = from.at(t, w);
    if (source != nullptr) sum += taps.at(t, w, d) * widen(source[d]);
  }
  y.row(t)[d] = narrow<T>(sum);
}

template <class T>
__global__ void input_kernel(Rows<T> dx, Rows<const T> dy, Sources<T> from, Taps<T> taps,
                             std::int64_t channels) {
  const std::int64_t t = blockIdx.x;
  const std::int64_t d = blockIdx.y * std::int64_t{kThreads} + threadIdx.x;
  if (d >= channels) return;
  Wide<T> sum = taps.residual ? widen(dy.row(t)[d]) : Wide<T>(0);
  const std::int64_t left = from.length - t % from.length;  // rows of the segment from t on
  for (int w = 0; w < taps.width && w < left; ++w) {
    if (from.sees(t + w, w)) sum += taps.at(t + w, w, d) * widen(dy.row(t + w)[d]);
  }
  dx.row(t)[d] = narrow<T>(sum);
}

// Row i of a segment's halo stands i - (W-1) rows from the segment's first row.
template <class T>
__global__ void halo_kernel(Rows<T> dhalo, Rows<const T> dy, Sources<T> from, Taps<T> taps,
                            std::int64_t channels) {
  const int before = taps.width - 1;
  const std::int64_t segment = blockIdx.x / before;
  const int i = static_cast<int>(blockIdx.x % before);
  const std::int64_t d = blockIdx.y * std::int64_t{kThreads} + threadIdx.x;
  if (d >= channels) return;
  Wide<T> sum = 0;
  for (int q = 0; q <= i && q < from.length; ++q) {
    const std::int64_t t = segment * from.length + q;
    const int w = q + before - i;
    if (from.sees(t, w)) sum += taps.at(t, w, d) * widen(dy.row(t)[d]);
  }
  dhalo.row(blockIdx.x)[d] = narrow<T>(sum);
}

template <class T>
__global__ void headwise_generated_kernel(Rows<T> dgenerated, Rows<const T> dy, Sources<T> from,
                                          std::int64_t head_size, std::int64_t columns) {
  const std::int64_t t = blockIdx.x;
  const std::int64_t column = blockIdx.y * std::int64_t{kThreads} + threadIdx.x;
  if (column >= columns) return;
  const std::int64_t first = column / from.width * head_size;
  const T* source = from.at(t, static_cast<int>(column % from.width));
  Wide<T> sum = 0;
  for (std::int64_t d = first; source != nullptr && d < first + head_size; ++d) {
    sum += widen(dy.row(t)[d]) * widen(source[d]);
  }
  dgenerated.row(t)[column] = narrow<T>(sum);
}

constexpr int kRanks = 8;  // of one pass over a row

template <class T>
__global__ void lowrank_generated_kernel(Rows<T> dgenerated, Rows<const T> dy, Sources<T> from,
                                         Rows<const T> u, std::int64_t rank,
                                         std::int64_t channels) {
  using W = Wide<T>;
  __shared__ W shared[kThreads / kWarp];
  const std::int64_t t = blockIdx.x, r0 = blockIdx.y * std::int64_t{kRanks};
  W sum[kRanks] = {};
  for (int w = 0; w < from.width; ++w) {
    const T* source = from.at(t, w);
    if (source == nullptr) continue;
    for (std::int64_t d = threadIdx.x; d < channels; d += kThreads) {
      const W product = widen(dy.row(t)[d]) * widen(source[d]);
#pragma unroll
      for (int r = 0; r < kRanks; ++r) {
        if (r0 + r < rank) sum[r] += product * widen(u.row((r0 + r) * from.width + w)[d]);
      }
    }
  }
  for (int r = 0; r < kRanks && r0 + r < rank; ++r) {
    const W total = block_sum(sum[r], shared);
    if (threadIdx.x == 0) dgenerated.row(t)[r0 + r] = narrow<T>(total);
  }
}

// partial[chunk, 1 + r of this block, w, d]: block z = 0 sums dy x (ds), block z > 0 the products
// with kRanks columns of z (du).
template <class T>
__global__ void weight_kernel(Wide<T>* partial, Rows<const T> dy, Sources<T> from,
                              Rows<const T> generated, std::int64_t rank, std::int64_t rows,
                              std::int64_t chunk_rows, std::int64_t channels) {
  using W = Wide<T>;
  const int w = blockIdx.x % from.width;
  const std::int64_t d = blockIdx.x / from.width * std::int64_t{kThreads} + threadIdx.x;
  if (d >= channels) return;
  const bool is_static = blockIdx.z == 0;
  const std::int64_t r0 = is_static ? 0 : (blockIdx.z - 1) * std::int64_t{kRanks};
  const std::int64_t first = blockIdx.y * chunk_rows, last = min(first + chunk_rows, rows);
  W sum[kRanks] = {};
  for (std::int64_t t = first; t < last; ++t) {
    const T* source = from.at(t, w);
    if (source == nullptr) continue;
    const W product = widen(dy.row(t)[d]) * widen(source[d]);
    if (is_static) {
      sum[0] += product;
      continue;
    }
    const T* z = generated.row(t);
#pragma unroll
    for (int r = 0; r < kRanks; ++r) {
      if (r0 + r < rank) sum[r] += widen(z[r0 + r]) * product;
    }
  }
  W* chunk = partial + blockIdx.y * (1 + rank) * from.width * channels;
  const std::int64_t tap = w * channels + d, stride = from.width * channels;
  if (is_static) {
    chunk[tap] = sum[0];
    return;
  }
  for (int r = 0; r < kRanks && r0 + r < rank; ++r) chunk[(1 + r0 + r) * stride + tap] = sum[r];
}

template <class T>
Taps<T> taps_of(const ConvCall& call) {
  return {call.shape.kind,
          call.shape.width,
          call.shape.residual,
          call.shape.filter_rank,
          call.shape.head_size,
          read_rows<T>(call.filters.s),
          read_rows<T>(call.filters.u),
          read_rows<T>(call.filters.generated)};
}

template <class T>
Sources<T> sources_of(const ConvCall& call, const Tensor& x) {
  return {read_rows<T>(x), read_rows<T>(call.rows.halo), call.rows.reach.data<std::int32_t>(),
          call.rows.length, call.shape.width};
}

unsigned blocks_for(std::int64_t count) {
  return static_cast<unsigned>(ceil_div<std::int64_t>(count, kThreads));
}

void forward(const ConvCall& call, Tensor y, Tensor x) {
  const dim3 grid(static_cast<unsigned>(x.rows()), blocks_for(x.cols()));
  dispatch_element(x.dtype(), [&]<class T>() {
    forward_kernel<T><<<grid, kThreads, 0, call.stream>>>(rows_of<T>(y), sources_of<T>(call, x),
                                                          taps_of<T>(call), x.cols());
  });
  check_launch();
}

template <class T>
void backward_generated(const ConvCall& call, Tensor dgenerated, Tensor dy, Tensor x) {
  const auto rows = static_cast<unsigned>(x.rows());
  if (call.shape.kind == FilterKind::headwise) {
    const dim3 grid(rows, blocks_for(dgenerated.cols()));
    headwise_generated_kernel<T><<<grid, kThreads, 0, call.stream>>>(
        rows_of<T>(dgenerated), read_rows<T>(dy), sources_of<T>(call, x), call.shape.head_size,
        dgenerated.cols());
  } else if (call.shape.kind == FilterKind::lowrank) {
    const std::int64_t rank = call.shape.filter_rank;
    const dim3 grid(rows, static_cast<unsigned>(ceil_div<std::int64_t>(rank, kRanks)));
    lowrank_generated_kernel<T><<<grid, kThreads, 0, call.stream>>>(
        rows_of<T>(dgenerated), read_rows<T>(dy), sources_of<T>(call, x),
        read_rows<T>(call.filters.u), rank, x.cols());
  }
}

void backward_input(const ConvCall& call, const ConvGradients& g, Tensor dy, Tensor x) {
  dispatch_element(x.dtype(), [&]<class T>() {
    const dim3 grid(static_cast<unsigned>(x.rows()), blocks_for(x.cols()));
    const auto from = sources_of<T>(call, x);
    const auto taps = taps_of<T>(call);
    input_kernel<T><<<grid, kThreads, 0, call.stream>>>(rows_of<T>(g.dx), read_rows<T>(dy), from,
                                                        taps, x.cols());
    if (!g.dhalo.empty() && g.dhalo.size() > 0) {
      const dim3 halo_grid(static_cast<unsigned>(g.dhalo.rows()), blocks_for(x.cols()));
      halo_kernel<T><<<halo_grid, kThreads, 0, call.stream>>>(rows_of<T>(g.dhalo), read_rows<T>(dy),
                                                              from, taps, x.cols());
    }
    if (!g.dgenerated.empty()) backward_generated<T>(call, g.dgenerated, dy, x);
  });
  check_launch();
}

void backward_weight(const ConvCall& call, const ConvGradients& g, Tensor dy, Tensor x) {
  constexpr std::int64_t kChunk = 512;  // rows summed before they are added to the gradient
  const std::int64_t rank = call.shape.kind == FilterKind::lowrank ? call.shape.filter_rank : 0;
  const std::int64_t chunk = std::max(kChunk, ceil_div<std::int64_t>(x.rows(), 32));
  const std::int64_t chunks = ceil_div(x.rows(), chunk);
  const std::int64_t static_count = call.shape.width * x.cols();
  const std::int64_t count = (1 + rank) * static_count;
  dispatch_element(x.dtype(), [&]<class T>() {
    using W = Wide<T>;
    call.workspace.begin(static_cast<std::size_t>(chunks * count) * sizeof(W));
    W* partial = call.workspace.take<W>(chunks * count);
    const dim3 grid(blocks_for(x.cols()) * static_cast<unsigned>(call.shape.width),
                    static_cast<unsigned>(chunks),
                    static_cast<unsigned>(1 + ceil_div<std::int64_t>(rank, kRanks)));
    weight_kernel<T><<<grid, kThreads, 0, call.stream>>>(
        partial, read_rows<T>(dy), sources_of<T>(call, x), read_rows<T>(call.filters.generated),
        rank, x.rows(), chunk, x.cols());
    add_conv_weights<W>(data_of<W>(g.ds), rank > 0 ? data_of<W>(g.du) : nullptr, partial,
                        static_count, count, chunks, call.stream);
  });
  check_launch();
}

bool fast_forward(const ConvCall& call, Tensor y, Tensor x) {
  if (call.shape.kind != FilterKind::fixed && mma_conv_forward(call, y, x)) return true;
  return call.shape.kind != FilterKind::lowrank && direct_conv_forward(call, y, x);
}

bool fast_backward(const ConvCall& call, const ConvGradients& g, Tensor dy, Tensor x,
                   ConvWants wants) {
  return call.shape.kind == FilterKind::lowrank ? mma_conv_backward(call, g, dy, x, wants)
                                                : direct_conv_backward(call, g, dy, x, wants);
}

// All rows are computed with the boundary, forward the last part and backward the first. The
// interior alone would hide a halo's way, at the price of a second pass over both ends of it.
bool is_computed_with_the_boundary(const ConvRows& rows) { return rows.part == ConvPart::interior; }

}  // namespace
}  // namespace cuda

void CudaBackend::conv_forward(Tensor y, Tensor x, const ConvFilters& filters,
                               const ConvShape& shape, const ConvRows& rows) {
  if (x.size() == 0 || cuda::is_computed_with_the_boundary(rows)) return;
  const cuda::ConvCall call{stream_, *workspace_, filters, shape, rows};
  if (!cuda::fast_forward(call, y, x)) cuda::forward(call, y, x);
}

void CudaBackend::conv_forward_add(Tensor sum, Tensor x, Tensor addend, const ConvFilters& filters,
                                   const ConvShape& shape, const ConvRows& rows) {
  if (x.size() == 0) return;
  const cuda::ConvCall call{stream_, *workspace_, filters, shape, rows};
  if (rows.part == ConvPart::all && cuda::mma_conv_forward_add(call, sum, x, addend)) return;
  Backend::conv_forward_add(sum, x, addend, filters, shape, rows);
}

void CudaBackend::conv_backward_input(Tensor dx, Tensor dgenerated, Tensor dhalo, Tensor dy,
                                      Tensor x, const ConvFilters& filters, const ConvShape& shape,
                                      const ConvRows& rows) {
  if (x.size() == 0 || cuda::is_computed_with_the_boundary(rows)) return;
  const cuda::ConvCall call{stream_, *workspace_, filters, shape, rows};
  const ConvGradients g{dx, dgenerated, dhalo, {}, {}};
  if (!cuda::fast_backward(call, g, dy, x, cuda::ConvWants::input)) {
    cuda::backward_input(call, g, dy, x);
  }
}

void CudaBackend::conv_backward_weight(Tensor ds, Tensor du, Tensor dy, Tensor x,
                                       const ConvFilters& filters, const ConvShape& shape,
                                       const ConvRows& rows) {
  if (x.size() == 0 || cuda::is_computed_with_the_boundary(rows)) return;
  const cuda::ConvCall call{stream_, *workspace_, filters, shape, rows};
  const ConvGradients g{{}, {}, {}, ds, du};
  CHECK(ds.contiguous() && (du.empty() || du.contiguous()), "gradients of filters in columns");
  if (!cuda::fast_backward(call, g, dy, x, cuda::ConvWants::weight)) {
    cuda::backward_weight(call, g, dy, x);
  }
}

void CudaBackend::conv_backward(const ConvGradients& gradients, Tensor dy, Tensor x,
                                const ConvFilters& filters, const ConvShape& shape,
                                const ConvRows& rows) {
  if (x.size() == 0 || cuda::is_computed_with_the_boundary(rows)) return;
  const cuda::ConvCall call{stream_, *workspace_, filters, shape, rows};
  if (cuda::fast_backward(call, gradients, dy, x, cuda::ConvWants::both)) return;
  cuda::backward_input(call, gradients, dy, x);
  cuda::backward_weight(call, gradients, dy, x);
}

}  // namespace convoy
