#include "core/cuda/matmul_library.h"

#include "core/cuda/cuda_check.h"

namespace convoy::cuda {
namespace {

constexpr std::size_t kWorkspace = std::size_t{64} << 20;  // bytes

cudaDataType_t data_type(DType dtype) {
  switch (dtype) {
    case DType::f64: return CUDA_R_64F;
    case DType::f32: return CUDA_R_32F;
    case DType::bf16: return CUDA_R_16BF;
    default: CHECK(false, "no matmul of ", name_of(dtype));
  }
  return CUDA_R_32F;
}

// The largest power of two up to 256 that divides a pointer, for the key.
std::int64_t alignment_of(const Tensor& t) {
  const auto address = reinterpret_cast<std::uintptr_t>(t.data());
  std::int64_t alignment = 1;
  while (alignment < 256 && address % static_cast<std::uintptr_t>(2 * alignment) == 0) {
    alignment *= 2;
  }
  return alignment;
}

// A row-major matrix is its transpose by columns, so the library computes c^T = op(b)^T op(a)^T.
cublasLtMatrixLayout_t layout_of(const Tensor& t) {
  cublasLtMatrixLayout_t layout = nullptr;
  CUBLAS_CHECK(cublasLtMatrixLayoutCreate(&layout, data_type(t.dtype()),
                                          static_cast<std::uint64_t>(t.cols()),
                                          static_cast<std::uint64_t>(t.rows()), t.row_stride()));
  return layout;
}

void set_transpose(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t which,
                   Transpose transpose) {
  const cublasOperation_t op = transpose == Transpose::yes ? CUBLAS_OP_T : CUBLAS_OP_N;
  CUBLAS_CHECK(cublasLtMatmulDescSetAttribute(operation, which, &op, sizeof(op)));
}

// The first algorithm of the library for this plan that needs no sum in place.
bool choose(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, cublasLtMatrixLayout_t left,
            cublasLtMatrixLayout_t right, cublasLtMatrixLayout_t c,
            const std::array<std::uint32_t, 3>& alignments, cublasLtMatmulAlgo_t& algorithm) {
  cublasLtMatmulPreference_t preference = nullptr;
  CUBLAS_CHECK(cublasLtMatmulPreferenceCreate(&preference));
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t which, const auto& value) {
    CUBLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(preference, which, &value, sizeof(value)));
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{kWorkspace});
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignments[0]);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignments[1]);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignments[2]);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignments[2]);
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle, operation, left, right, c, c,
                                                               preference, 1, &found, &count);
  cublasLtMatmulPreferenceDestroy(preference);
  if (status != CUBLAS_STATUS_SUCCESS || count == 0) return false;
  algorithm = found.algo;
  return true;
}

}  // namespace

MatmulLibrary::MatmulLibrary(cudaStream_t stream) : stream_(stream) {
  CUBLAS_CHECK(cublasLtCreate(&handle_));
  CUDA_CHECK(cudaMalloc(&workspace_, kWorkspace));
}

MatmulLibrary::~MatmulLibrary() {
  for (auto& [key, plan] : plans_) {
    cublasLtMatmulDescDestroy(plan.operation);
    for (auto layout : {plan.a, plan.b, plan.c}) cublasLtMatrixLayoutDestroy(layout);
  }
  cudaFree(workspace_);
  cublasLtDestroy(handle_);
}

const MatmulLibrary::Plan& MatmulLibrary::plan_for(const Key& key, const Tensor& c, const Tensor& a,
                                                   Transpose transpose_a, const Tensor& b,
                                                   Transpose transpose_b) {
  const auto place = plans_.find(key);
  if (place != plans_.end()) return place->second;
  Plan& plan = plans_[key];
  const bool wide = a.dtype() == DType::f64;
  CUBLAS_CHECK(cublasLtMatmulDescCreate(&plan.operation,
                                        wide ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F,
                                        wide ? CUDA_R_64F : CUDA_R_32F));
  set_transpose(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, transpose_b);
  set_transpose(plan.operation, CUBLASLT_MATMUL_DESC_TRANSB, transpose_a);
  plan.a = layout_of(a);
  plan.b = layout_of(b);
  plan.c = layout_of(c);
  plan.usable = choose(
      handle_, plan.operation, plan.b, plan.a, plan.c,
      {static_cast<std::uint32_t>(alignment_of(b)), static_cast<std::uint32_t>(alignment_of(a)),
       static_cast<std::uint32_t>(alignment_of(c))},
      plan.algorithm);
  return plan;
}

bool MatmulLibrary::run(Tensor c, Tensor a, Transpose transpose_a, Tensor b, Transpose transpose_b,
                        Accumulate accumulate) {
  const auto dtypes = static_cast<std::int64_t>(a.dtype()) * 16 +
                      static_cast<std::int64_t>(b.dtype()) * 4 +
                      static_cast<std::int64_t>(c.dtype());
  const auto transposes =
      (transpose_a == Transpose::yes ? 2 : 0) + (transpose_b == Transpose::yes ? 1 : 0);
  const Key key = {c.rows(),        c.cols(),        a.rows(),       a.cols(),
                   a.row_stride(),  b.row_stride(),  c.row_stride(), dtypes * 4 + transposes,
                   alignment_of(a), alignment_of(b), alignment_of(c)};
  const Plan& plan = plan_for(key, c, a, transpose_a, b, transpose_b);
  if (!plan.usable) return false;
  const double one = 1, beta = accumulate == Accumulate::yes ? 1 : 0;
  const float one_f = 1, beta_f = accumulate == Accumulate::yes ? 1.0f : 0.0f;
  const bool wide = a.dtype() == DType::f64;
  const void* scale = wide ? static_cast<const void*>(&one) : &one_f;
  const void* keep = wide ? static_cast<const void*>(&beta) : &beta_f;
  CUBLAS_CHECK(cublasLtMatmul(handle_, plan.operation, scale, b.data(), plan.b, a.data(), plan.a,
                              keep, c.data(), plan.c, c.data(), plan.c, &plan.algorithm, workspace_,
                              kWorkspace, stream_));
  return true;
}

}  // namespace convoy::cuda
