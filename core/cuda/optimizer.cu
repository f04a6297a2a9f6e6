// The optimizer's operations: norm, decision and update stay on the device.
#include "core/cuda/cuda_backend.h"
#include "core/cuda/elements.cuh"
#include "core/cuda/reductions.cuh"
#include "core/update_decision.h"

namespace convoy {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kChunk = 16384;  // elements whose squares one block sums

template <class T>
__global__ void squares_kernel(double* partial, const T* x, std::int64_t count) {
  __shared__ double shared[kThreads / kWarp];
  const std::int64_t begin = blockIdx.x * kChunk;
  const std::int64_t end = min(begin + kChunk, count);
  double sum = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const auto value = static_cast<double>(widen(x[i]));
    sum += value * value;
  }
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

struct Piece {
  const void* data;
  std::int64_t count;
};

template <class T>
__global__ void squares_of_pieces_kernel(double* partial, const Piece* pieces) {
  __shared__ double shared[kThreads / kWarp];
  const T* x = static_cast<const T*>(pieces[blockIdx.x].data);
  const std::int64_t count = pieces[blockIdx.x].count;
  double sum = 0;
  for (std::int64_t i = threadIdx.x; i < count; i += kThreads) {
    const auto value = static_cast<double>(widen(x[i]));
    sum += value * value;
  }
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void add_squares_kernel(double* sum, const double* partial, std::int64_t count) {
  __shared__ double shared[kThreads / kWarp];
  double own = 0;
  for (std::int64_t i = threadIdx.x; i < count; i += kThreads) own += partial[i];
  own = block_sum(own, shared);
  if (threadIdx.x == 0) *sum += own;
}

__global__ void decide_kernel(double* control, const double* sum_of_squares, const double* loss,
                              UpdateRules rules) {
  decide_update_element(control, *sum_of_squares, *loss, rules);
}

// What an update takes from the control block, once a thread.
template <class W>
struct UpdateFactors {
  W rate, scale, correction1, correction2;

  __device__ UpdateFactors(const double* control, const AdamWSettings& settings)
      : rate(static_cast<W>(control[StepControl::learning_rate])),
        scale(static_cast<W>(control[StepControl::update_scale])),
        correction1(
            static_cast<W>(1.0 / (1.0 - pow(settings.beta1, control[StepControl::adam_steps])))),
        correction2(
            static_cast<W>(1.0 / (1.0 - pow(settings.beta2, control[StepControl::adam_steps])))) {}
};

// `exact` is updated; `rounded`, where given, becomes its bf16 rounding.
template <class W, int V>
__global__ void adamw_kernel(W* exact, bf16* rounded, W* moment1, W* moment2, const W* gradient,
                             const double* control, AdamWSettings settings, std::int64_t count) {
  if (control[StepControl::skip] != 0) return;
  __shared__ W shared[4];
  if (threadIdx.x == 0) {
    const UpdateFactors<W> f(control, settings);
    shared[0] = f.rate, shared[1] = f.scale, shared[2] = f.correction1, shared[3] = f.correction2;
  }
  __syncthreads();
  const W rate = shared[0], scale = shared[1], correction1 = shared[2], correction2 = shared[3];
  const auto update = [&](W& x, W& m, W& v, W g) {
    adamw_element(x, m, v, g * scale, static_cast<W>(settings.beta1),
                  static_cast<W>(settings.beta2), static_cast<W>(settings.epsilon),
                  static_cast<W>(settings.weight_decay), rate, correction1, correction2);
  };
  const std::int64_t packs = count / V;
  const std::int64_t stride = gridDim.x * std::int64_t{kThreads};
  const std::int64_t thread = blockIdx.x * std::int64_t{kThreads} + threadIdx.x;
  for (std::int64_t i = thread; i < packs; i += stride) {
    auto x = load_pack<V>(exact + i * V);
    auto m = load_pack<V>(moment1 + i * V);
    auto v = load_pack<V>(moment2 + i * V);
    const auto g = load_pack<V>(gradient + i * V);
    Pack<bf16, V> low;
#pragma unroll
    for (int e = 0; e < V; ++e) {
      update(x.element[e], m.element[e], v.element[e], g.element[e]);
      low.element[e] = __float2bfloat16_rn(static_cast<float>(x.element[e]));
    }
    store_pack(exact + i * V, x);
    store_pack(moment1 + i * V, m);
    store_pack(moment2 + i * V, v);
    if (rounded != nullptr) store_pack(rounded + i * V, low);
  }
  const std::int64_t rest = packs * V + thread;
  if (rest >= count) return;
  update(exact[rest], moment1[rest], moment2[rest], gradient[rest]);
  if (rounded != nullptr) rounded[rest] = __float2bfloat16_rn(static_cast<float>(exact[rest]));
}

}  // namespace
}  // namespace cuda

void CudaBackend::add_sum_of_squares(Tensor sum, Tensor x) {
  using namespace cuda;
  CHECK(x.contiguous(), "sum of squares of a strided ", x.describe());
  if (x.size() == 0) return;
  const std::int64_t blocks = ceil_div(x.size(), kChunk);
  workspace_->begin(static_cast<std::size_t>(blocks) * sizeof(double));
  auto* partial = workspace_->take<double>(blocks);
  dispatch_element(x.dtype(), [&]<class T>() {
    squares_kernel<T>
        <<<static_cast<unsigned>(blocks), kThreads, 0, stream_>>>(partial, data_of<T>(x), x.size());
  });
  add_squares_kernel<<<1, kThreads, 0, stream_>>>(sum.data<double>(), partial, blocks);
  check_launch();
}

cuda::PieceTable::~PieceTable() { cudaFree(device); }

void CudaBackend::add_sums_of_squares(Tensor sum, std::span<const Tensor> tensors) {
  using namespace cuda;
  if (tensors.empty()) return;
  std::vector<std::pair<void*, std::int64_t>> wanted;
  for (const Tensor& t : tensors) {
    CHECK(t.contiguous() && t.dtype() == tensors[0].dtype(), "sum of squares of ", t.describe());
    wanted.emplace_back(t.data(), t.size());
  }
  if (squares_.tensors != wanted) {
    const auto bytes = static_cast<std::int64_t>(size_of(tensors[0].dtype()));
    std::vector<Piece> pieces;
    for (const auto& [data, count] : wanted) {
      for (std::int64_t begin = 0; begin < count; begin += kChunk) {
        pieces.push_back(
            {static_cast<std::byte*>(data) + begin * bytes, std::min(kChunk, count - begin)});
      }
    }
    synchronize();
    CUDA_CHECK(cudaFree(squares_.device));
    squares_.device = nullptr;
    CUDA_CHECK(cudaMalloc(&squares_.device, pieces.size() * sizeof(Piece)));
    CUDA_CHECK(cudaMemcpy(squares_.device, pieces.data(), pieces.size() * sizeof(Piece),
                          cudaMemcpyHostToDevice));
    squares_.tensors = std::move(wanted);
    squares_.pieces = std::ssize(pieces);
  }
  workspace_->begin(static_cast<std::size_t>(squares_.pieces) * sizeof(double));
  auto* partial = workspace_->take<double>(squares_.pieces);
  dispatch_element(tensors[0].dtype(), [&]<class T>() {
    squares_of_pieces_kernel<T><<<static_cast<unsigned>(squares_.pieces), kThreads, 0, stream_>>>(
        partial, static_cast<const Piece*>(squares_.device));
  });
  add_squares_kernel<<<1, kThreads, 0, stream_>>>(sum.data<double>(), partial, squares_.pieces);
  check_launch();
}

void CudaBackend::decide_update(Tensor control, Tensor sum_of_squares, Tensor loss,
                                const UpdateRules& rules) {
  cuda::decide_kernel<<<1, 1, 0, stream_>>>(control.data<double>(), sum_of_squares.data<double>(),
                                            loss.data<double>(), rules);
  cuda::check_launch();
}

void CudaBackend::adamw(Tensor value, Tensor master, Tensor moment1, Tensor moment2,
                        Tensor gradient, Tensor control, const AdamWSettings& settings) {
  using namespace cuda;
  if (value.size() == 0) return;
  const Tensor& exact = master.empty() ? value : master;
  CHECK(exact.dtype() == gradient.dtype() && moment1.dtype() == gradient.dtype() &&
            moment2.dtype() == gradient.dtype() && exact.dtype() != DType::bf16,
        "adamw of ", exact.describe(), " with gradient ", gradient.describe());
  const auto blocks = static_cast<unsigned>(
      std::min<std::int64_t>(ceil_div<std::int64_t>(value.size(), kThreads), 132 * 8));
  bf16* rounded = master.empty() ? nullptr : data_of<bf16>(value);
  const auto begins_pack = [](const Tensor& t, std::uintptr_t bytes) {
    return reinterpret_cast<std::uintptr_t>(t.data()) % bytes == 0;
  };
  const bool packs = begins_pack(exact, 16) && begins_pack(moment1, 16) &&
                     begins_pack(moment2, 16) && begins_pack(gradient, 16) && begins_pack(value, 8);
  const auto run = [&]<class W>() {
    const auto kernel = packs ? adamw_kernel<W, 16 / sizeof(W)> : adamw_kernel<W, 1>;
    kernel<<<blocks, kThreads, 0, stream_>>>(data_of<W>(exact), rounded, data_of<W>(moment1),
                                             data_of<W>(moment2), data_of<W>(gradient),
                                             control.data<double>(), settings, value.size());
  };
  exact.dtype() == DType::f64 ? run.template operator()<double>()
                              : run.template operator()<float>();
  check_launch();
}

}  // namespace convoy
