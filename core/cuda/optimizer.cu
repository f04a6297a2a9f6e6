// The optimizer's operations: norm, decision and update stay on the device.
#include <bit>

#include "core/cuda/cuda_backend.h"
#include "core/cuda/elements.cuh"
#include "core/cuda/reductions.cuh"
#include "core/update_decision.h"

namespace convoy {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kChunk = 16384;  // elements whose squares one block sums

// The sum of squares of x over the threads of a block, in packs where x begins at one; the order is
// fixed by count and by where x begins.
template <class T>
__device__ inline double block_squares(const T* x, std::int64_t count) {
  constexpr int V = 16 / sizeof(T);
  __shared__ double shared[kThreads / kWarp];
  double sum = 0;
  std::int64_t done = 0;
  if (reinterpret_cast<std::uintptr_t>(x) % (V * sizeof(T)) == 0) {
    const std::int64_t packs = count / V;
    done = packs * V;
#pragma unroll 4
    for (std::int64_t i = threadIdx.x; i < packs; i += kThreads) {
      const auto pack = load_pack<V>(x + i * V);
#pragma unroll
      for (int e = 0; e < V; ++e) {
        const auto value = static_cast<double>(widen(pack.element[e]));
        sum += value * value;
      }
    }
  }
  for (std::int64_t i = done + threadIdx.x; i < count; i += kThreads) {
    const auto value = static_cast<double>(widen(x[i]));
    sum += value * value;
  }
  return block_sum(sum, shared);
}

template <class T>
__global__ void squares_kernel(double* partial, const T* x, std::int64_t count) {
  const std::int64_t begin = blockIdx.x * kChunk;
  const double sum = block_squares(x + begin, min(kChunk, count - begin));
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

struct Piece {
  const void* data;
  std::int64_t count;
};

template <class T>
__global__ void squares_of_pieces_kernel(double* partial, const Piece* pieces) {
  const Piece piece = pieces[blockIdx.x];
  const double sum = block_squares(static_cast<const T*>(piece.data), piece.count);
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

// A run of elements of one parameter. `exact` is updated; `rounded`, where given, becomes its bf16
// rounding.
template <class W>
struct UpdatePiece {
  W* exact;
  bf16* rounded;
  W *moment1, *moment2;
  const W* gradient;
  std::int64_t count;
  double weight_decay;
};

// Elements thread, thread + threads, ... of a piece, in packs and then those that are left over.
template <class W, int V>
__device__ inline void update_piece(const UpdatePiece<W>& piece, const W (&factors)[4],
                                    const AdamWSettings& settings, std::int64_t thread,
                                    std::int64_t threads) {
  const auto& [exact, rounded, moment1, moment2, gradient, count, weight_decay] = piece;
  const W rate = factors[0], scale = factors[1];
  const auto update = [&](W& x, W& m, W& v, W g) {
    adamw_element(x, m, v, g * scale, static_cast<W>(settings.beta1),
                  static_cast<W>(settings.beta2), static_cast<W>(settings.epsilon),
                  static_cast<W>(weight_decay), rate, factors[2], factors[3]);
  };
  const std::int64_t packs = count / V;
  for (std::int64_t i = thread; i < packs; i += threads) {
    auto x = load_pack<V>(static_cast<const W*>(exact) + i * V);
    auto m = load_pack<V>(static_cast<const W*>(moment1) + i * V);
    auto v = load_pack<V>(static_cast<const W*>(moment2) + i * V);
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

// The factors of an update in shared memory; every thread of the block must call it.
template <class W>
__device__ inline void load_factors(W (&factors)[4], const double* control,
                                    const AdamWSettings& settings) {
  if (threadIdx.x == 0) {
    const UpdateFactors<W> f(control, settings);
    factors[0] = f.rate, factors[1] = f.scale;
    factors[2] = f.correction1, factors[3] = f.correction2;
  }
  __syncthreads();
}

template <class W, int V>
__global__ void adamw_kernel(UpdatePiece<W> piece, const double* control, AdamWSettings settings) {
  if (control[StepControl::skip] != 0) return;
  __shared__ W factors[4];
  load_factors(factors, control, settings);
  update_piece<W, V>(piece, factors, settings, blockIdx.x * std::int64_t{kThreads} + threadIdx.x,
                     gridDim.x * std::int64_t{kThreads});
}

// A block a piece.
template <class W, int V>
__global__ void adamw_pieces_kernel(const UpdatePiece<W>* pieces, const double* control,
                                    AdamWSettings settings) {
  if (control[StepControl::skip] != 0) return;
  __shared__ W factors[4];
  load_factors(factors, control, settings);
  update_piece<W, V>(pieces[blockIdx.x], factors, settings, threadIdx.x, kThreads);
}

bool begins_pack(const Tensor& t, std::uintptr_t bytes) {
  return reinterpret_cast<std::uintptr_t>(t.data()) % bytes == 0;
}

// Whether a parameter may be walked in packs.
bool in_packs(const AdamWTensors& t) {
  const Tensor& exact = t.master.empty() ? t.value : t.master;
  return begins_pack(exact, 16) && begins_pack(t.moment1, 16) && begins_pack(t.moment2, 16) &&
         begins_pack(t.gradient, 16) && begins_pack(t.value, 8);
}

void check_update(const AdamWTensors& t) {
  const Tensor& exact = t.master.empty() ? t.value : t.master;
  CHECK(exact.dtype() == t.gradient.dtype() && t.moment1.dtype() == t.gradient.dtype() &&
            t.moment2.dtype() == t.gradient.dtype() && exact.dtype() != DType::bf16,
        "adamw of ", exact.describe(), " with gradient ", t.gradient.describe());
}

// Elements [begin, begin + count) of a parameter.
template <class W>
UpdatePiece<W> piece_of(const AdamWTensors& t, std::int64_t begin, std::int64_t count) {
  const Tensor& exact = t.master.empty() ? t.value : t.master;
  return {data_of<W>(exact) + begin,
          t.master.empty() ? nullptr : data_of<bf16>(t.value) + begin,
          data_of<W>(t.moment1) + begin,
          data_of<W>(t.moment2) + begin,
          data_of<W>(t.gradient) + begin,
          count,
          t.weight_decay};
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

cuda::PieceTable::~PieceTable() { cudaFree(device_); }

void cuda::PieceTable::fill(Identity identity, const void* pieces, std::int64_t count,
                            std::size_t bytes_of_one) {
  CUDA_CHECK(cudaStreamSynchronize(stream_));
  CUDA_CHECK(cudaFree(device_));
  device_ = nullptr;
  const std::size_t bytes = static_cast<std::size_t>(count) * bytes_of_one;
  CUDA_CHECK(cudaMalloc(&device_, bytes));
  copy_to_device(device_, pieces, bytes, stream_);
  identity_ = std::move(identity);
  size_ = count;
  ++fills_;
}

void CudaBackend::add_sums_of_squares(Tensor sum, std::span<const Tensor> tensors) {
  using namespace cuda;
  if (tensors.empty()) return;
  PieceTable::Identity wanted;
  for (const Tensor& t : tensors) {
    CHECK(t.contiguous() && t.dtype() == tensors[0].dtype(), "sum of squares of ", t.describe());
    wanted.emplace_back(t.data(), t.size());
  }
  if (!squares_->lists(wanted)) {
    const auto bytes = static_cast<std::int64_t>(size_of(tensors[0].dtype()));
    std::vector<Piece> pieces;
    for (const auto& [data, count] : wanted) {
      for (std::int64_t begin = 0; begin < count; begin += kChunk) {
        pieces.push_back(
            {static_cast<const std::byte*>(data) + begin * bytes, std::min(kChunk, count - begin)});
      }
    }
    squares_->fill(std::move(wanted), pieces.data(), std::ssize(pieces), sizeof(Piece));
  }
  const std::int64_t count = squares_->size();
  workspace_->begin(static_cast<std::size_t>(count) * sizeof(double));
  auto* partial = workspace_->take<double>(count);
  dispatch_element(tensors[0].dtype(), [&]<class T>() {
    squares_of_pieces_kernel<T><<<static_cast<unsigned>(count), kThreads, 0, stream_>>>(
        partial, static_cast<const Piece*>(squares_->device()));
  });
  add_squares_kernel<<<1, kThreads, 0, stream_>>>(sum.data<double>(), partial, count);
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
  const AdamWTensors tensors{value, master, moment1, moment2, gradient, settings.weight_decay};
  check_update(tensors);
  const auto blocks = static_cast<unsigned>(
      std::min<std::int64_t>(ceil_div<std::int64_t>(value.size(), kThreads), 132 * 8));
  const auto run = [&]<class W>() {
    const auto kernel = in_packs(tensors) ? adamw_kernel<W, 16 / sizeof(W)> : adamw_kernel<W, 1>;
    kernel<<<blocks, kThreads, 0, stream_>>>(piece_of<W>(tensors, 0, value.size()),
                                             control.data<double>(), settings);
  };
  gradient.dtype() == DType::f64 ? run.template operator()<double>()
                                 : run.template operator()<float>();
  check_launch();
}

void CudaBackend::adamw_all(std::span<const AdamWTensors> all, Tensor control,
                            const AdamWSettings& settings) {
  using namespace cuda;
  constexpr std::int64_t kPiece = 32768;  // elements that one block updates
  if (all.empty()) return;
  PieceTable::Identity wanted;
  bool packs = true;
  for (const AdamWTensors& t : all) {
    check_update(t);
    CHECK(t.gradient.dtype() == all[0].gradient.dtype(), "adamw of ", t.gradient.describe(),
          " beside ", all[0].gradient.describe());
    packs = packs && in_packs(t);
    for (const Tensor* part : {&t.value, &t.master, &t.moment1, &t.moment2, &t.gradient}) {
      wanted.emplace_back(part->data(), t.value.size());
    }
    wanted.emplace_back(nullptr, std::bit_cast<std::int64_t>(t.weight_decay));
  }
  const auto run = [&]<class W>() {
    if (!updates_->lists(wanted)) {
      std::vector<UpdatePiece<W>> pieces;
      for (const AdamWTensors& t : all) {
        const std::int64_t count = t.value.size();
        for (std::int64_t begin = 0; begin < count; begin += kPiece) {
          pieces.push_back(piece_of<W>(t, begin, std::min(kPiece, count - begin)));
        }
      }
      if (pieces.empty()) return;
      updates_->fill(std::move(wanted), pieces.data(), std::ssize(pieces), sizeof(UpdatePiece<W>));
    }
    const auto kernel = packs ? adamw_pieces_kernel<W, 16 / sizeof(W)> : adamw_pieces_kernel<W, 1>;
    kernel<<<static_cast<unsigned>(updates_->size()), kThreads, 0, stream_>>>(
        static_cast<const UpdatePiece<W>*>(updates_->device()), control.data<double>(), settings);
  };
  all[0].gradient.dtype() == DType::f64 ? run.template operator()<double>()
                                        : run.template operator()<float>();
  check_launch();
}

}  // namespace convoy
