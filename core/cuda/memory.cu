// Memory, copies, conversions, fills and additions.
#include "core/cuda/arrivals.h"
#include "core/cuda/cuda_backend.h"
#include "core/cuda/elements.cuh"
#include "core/cuda/reductions.cuh"
#include "core/cuda/staging.h"
#include "core/flat_range.h"

namespace convoy {
namespace cuda {

Workspace::~Workspace() { cudaFree(data_); }

void Workspace::begin(std::size_t bytes) {
  used_ = 0;
  if (bytes <= capacity_) return;
  // Operations before this one may still read the old memory.
  CUDA_CHECK(cudaStreamSynchronize(stream_));
  CUDA_CHECK(cudaFree(data_));
  data_ = nullptr;
  capacity_ = 0;
  void* fresh = nullptr;
  CUDA_CHECK(cudaMalloc(&fresh, bytes));
  data_ = static_cast<std::byte*>(fresh);
  capacity_ = bytes;
  ++moves_;
}

void* Workspace::take(std::size_t bytes) {
  constexpr std::size_t kAlignment = 256;
  const std::size_t rounded = ceil_div(bytes, kAlignment) * kAlignment;
  CHECK(used_ + bytes <= capacity_, "the workspace of ", capacity_, " bytes is full: ", used_,
        " are taken and ", bytes, " more are needed");
  void* part = data_ + used_;
  used_ = std::min(used_ + rounded, capacity_);
  return part;
}

namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kConvertedAtOnce = std::int64_t{1} << 22;  // elements, from or to the host

template <class To, class From>
__global__ void convert_kernel(Rows<To> to, Rows<const From> from, std::int64_t rows,
                               std::int64_t columns) {
  for (std::int64_t i = blockIdx.y; i < rows; i += gridDim.y) {
    for (std::int64_t j = blockIdx.x * std::int64_t{kThreads} + threadIdx.x; j < columns;
         j += gridDim.x * std::int64_t{kThreads}) {
      using W = Wide<To>;
      to.row(i)[j] = narrow<To>(static_cast<W>(widen(from.row(i)[j])));
    }
  }
}

template <class T>
__global__ void fill_kernel(Rows<T> to, std::int64_t rows, std::int64_t columns, T value) {
  for (std::int64_t i = blockIdx.y; i < rows; i += gridDim.y) {
    for (std::int64_t j = blockIdx.x * std::int64_t{kThreads} + threadIdx.x; j < columns;
         j += gridDim.x * std::int64_t{kThreads}) {
      to.row(i)[j] = value;
    }
  }
}

// y = a + scale * b, V elements at a time.
template <class T, int V>
__global__ void add_kernel(Rows<T> y, Rows<const T> a, Rows<const T> b, std::int64_t rows,
                           std::int64_t packs, Wide<T> scale) {
  for (std::int64_t i = blockIdx.y; i < rows; i += gridDim.y) {
    for (std::int64_t j = blockIdx.x * std::int64_t{kThreads} + threadIdx.x; j < packs;
         j += gridDim.x * std::int64_t{kThreads}) {
      const auto left = load_pack<V>(a.row(i) + j * V);
      const auto right = load_pack<V>(b.row(i) + j * V);
      Pack<T, V> sum;
#pragma unroll
      for (int e = 0; e < V; ++e) {
        sum.element[e] = narrow<T>(widen(left.element[e]) + scale * widen(right.element[e]));
      }
      store_pack(y.row(i) + j * V, sum);
    }
  }
}

constexpr int kSumThreads = 1024;

// One block: each thread adds every 1,024th value, then the threads are added in order of a tree.
__global__ void sum_kernel(double* total, const double* x, std::int64_t count) {
  __shared__ double shared[kSumThreads / kWarp];
  double own = 0;
#pragma unroll 8
  for (std::int64_t i = threadIdx.x; i < count; i += kSumThreads) own += x[i];
  own = block_sum(own, shared);
  if (threadIdx.x == 0) *total = own;
}

// Blocks over columns (x) and rows (y). Contiguous tensors count as one long row.
struct Shape {
  std::int64_t rows, columns;

  explicit Shape(std::initializer_list<Tensor> tensors)
      : rows(tensors.begin()->rows()), columns(tensors.begin()->cols()) {
    bool contiguous = true;
    for (const Tensor& t : tensors) contiguous = contiguous && t.contiguous();
    if (contiguous) {
      columns *= rows;
      rows = 1;
    }
  }
  dim3 grid(std::int64_t steps) const {
    const std::int64_t x =
        std::clamp<std::int64_t>(ceil_div<std::int64_t>(steps, kThreads), 1, std::int64_t{1} << 20);
    return {static_cast<unsigned>(x),
            static_cast<unsigned>(std::clamp<std::int64_t>(rows, 1, 65535))};
  }
};

void add_any(cudaStream_t stream, Tensor y, Tensor a, Tensor b, double scale) {
  if (y.size() == 0) return;
  const Shape shape({y, a, b});
  dispatch_element(y.dtype(), [&]<class T>() {
    constexpr int V = 16 / sizeof(T);
    const auto s = static_cast<Wide<T>>(scale);
    if (packable(16, {y, a, b})) {
      add_kernel<T, V><<<shape.grid(shape.columns / V), kThreads, 0, stream>>>(
          rows_of<T>(y), read_rows<T>(a), read_rows<T>(b), shape.rows, shape.columns / V, s);
    } else {
      add_kernel<T, 1><<<shape.grid(shape.columns), kThreads, 0, stream>>>(
          rows_of<T>(y), read_rows<T>(a), read_rows<T>(b), shape.rows, shape.columns, s);
    }
  });
  check_launch();
}

}  // namespace
}  // namespace cuda

void* CudaBackend::allocate_zeroed(std::size_t bytes) {
  refuse_while_recording("memory is allocated");
  CUDA_CHECK(cudaSetDevice(device_));
  void* data = nullptr;
  CUDA_CHECK(cudaMalloc(&data, std::max<std::size_t>(bytes, 1)));
  CUDA_CHECK(cudaMemsetAsync(data, 0, std::max<std::size_t>(bytes, 1), stream_));
  return data;
}

void CudaBackend::deallocate(void* data, std::size_t) noexcept {
  cudaStreamSynchronize(stream_);
  cudaFree(data);
}

void CudaBackend::synchronize() {
  refuse_while_recording("the host waits for the device");
  CUDA_CHECK(cudaStreamSynchronize(stream_));
}

// A copy to the host returns when the values are there; one from the host when those may be
// changed.
void CudaBackend::copy(Tensor destination, Tensor source) {
  if (source.size() == 0) return;
  if (source.device() == DeviceKind::cpu || destination.device() == DeviceKind::cpu) {
    refuse_while_recording("values travel between host and device");
  }
  const std::size_t element = size_of(source.dtype());
  const auto row = static_cast<std::size_t>(source.cols()) * element;
  if (source.device() == DeviceKind::cpu && destination.device() != DeviceKind::cpu &&
      destination.contiguous() && source.contiguous() &&
      source.bytes() <= cuda::Staging::kLargest) {
    return staging_->copy(destination.data(), source.data(), source.bytes());
  }
  if (destination.contiguous() && source.contiguous()) {
    CUDA_CHECK(cudaMemcpyAsync(destination.data(), source.data(), source.bytes(), cudaMemcpyDefault,
                               stream_));
  } else {
    CUDA_CHECK(cudaMemcpy2DAsync(
        destination.data(), static_cast<std::size_t>(destination.row_stride()) * element,
        source.data(), static_cast<std::size_t>(source.row_stride()) * element, row,
        static_cast<std::size_t>(source.rows()), cudaMemcpyDefault, stream_));
  }
  if (destination.device() == DeviceKind::cpu || source.device() == DeviceKind::cpu) synchronize();
}

std::unique_ptr<Arrival> CudaBackend::copy_behind(Tensor host, Tensor source) {
  CHECK(host.device() == DeviceKind::cpu && source.device() == DeviceKind::cuda &&
            host.contiguous() && source.contiguous() && host.bytes() == source.bytes(),
        source.describe(), " behind the host into ", host.describe());
  refuse_while_recording("values travel between host and device");
  return arrivals_->start(host.data(), source.data(), source.bytes());
}

void CudaBackend::convert(Tensor destination, Tensor source) {
  using namespace cuda;
  if (source.size() == 0) return;
  if (destination.dtype() == source.dtype()) return copy(destination, source);
  const bool from_host = source.device() == DeviceKind::cpu;
  const bool to_host = destination.device() == DeviceKind::cpu;
  CHECK(!from_host || !to_host, "a conversion on the host given to the GPU");
  if (from_host || to_host) return convert_through_workspace(destination, source, from_host);
  convert_on_device(destination, source);
}

// Values of the host pass through device memory in their own dtype, in pieces, so that a large
// table of them takes no more of it than a small one.
void CudaBackend::convert_through_workspace(Tensor destination, Tensor source, bool from_host) {
  using namespace cuda;
  const bool flat = destination.contiguous() && source.contiguous();
  const std::int64_t units = flat ? source.size() : source.rows();
  const std::int64_t unit = flat ? 1 : source.cols();
  const std::int64_t most = std::max<std::int64_t>(kConvertedAtOnce / unit, 1);
  const auto part = [&](const Tensor& t, std::int64_t first, std::int64_t count) {
    return flat ? flat_range(t, first, count) : t.row_range(first, count);
  };
  for (std::int64_t first = 0; first < units; first += most) {
    const std::int64_t count = std::min(most, units - first);
    const Tensor to = part(destination, first, count), from = part(source, first, count);
    const Tensor& travels = from_host ? from : to;
    workspace_->begin(travels.bytes());
    const Tensor staged(workspace_->take(travels.bytes()), travels.dtype(), DeviceKind::cuda,
                        travels.shape());
    if (from_host) copy(staged, from);
    convert_on_device(from_host ? to : staged, from_host ? staged : from);
    if (!from_host) copy(to, staged);
  }
}

void CudaBackend::convert_on_device(Tensor destination, Tensor source) {
  using namespace cuda;
  const Shape shape({destination, source});
  dispatch_element(destination.dtype(), [&]<class To>() {
    dispatch_element(source.dtype(), [&]<class From>() {
      convert_kernel<To, From><<<shape.grid(shape.columns), kThreads, 0, stream_>>>(
          rows_of<To>(destination), read_rows<From>(source), shape.rows, shape.columns);
    });
  });
  check_launch();
}

void CudaBackend::fill(Tensor destination, double value) {
  using namespace cuda;
  if (destination.size() == 0) return;
  const Shape shape({destination});
  if (value == 0 && shape.rows == 1) {
    CUDA_CHECK(cudaMemsetAsync(destination.data(), 0, destination.bytes(), stream_));
    return;
  }
  const auto run = [&]<class T>(T wanted) {
    fill_kernel<T><<<shape.grid(shape.columns), kThreads, 0, stream_>>>(
        rows_of<T>(destination), shape.rows, shape.columns, wanted);
  };
  if (destination.dtype() == DType::i32) {
    run.template operator()<std::int32_t>(static_cast<std::int32_t>(value));
  } else {
    dispatch_element(destination.dtype(), [&]<class T>() {
      run.template operator()<T>(narrow<T>(static_cast<Wide<T>>(value)));
    });
  }
  check_launch();
}

void CudaBackend::sum(Tensor total, Tensor x) {
  cuda::sum_kernel<<<1, cuda::kSumThreads, 0, stream_>>>(total.data<double>(), x.data<double>(),
                                                         x.size());
  cuda::check_launch();
}

void CudaBackend::add(Tensor y, Tensor a, Tensor b) { cuda::add_any(stream_, y, a, b, 1); }

void CudaBackend::add_scaled(Tensor y, Tensor x, double scale) {
  cuda::add_any(stream_, y, y, x, scale);
}

}  // namespace convoy
