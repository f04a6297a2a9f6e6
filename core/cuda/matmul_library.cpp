#include "core/cuda/matmul_library.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

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

bool adds_in_place(const cublasLtMatmulAlgo_t& algorithm) {
  std::uint32_t scheme = 0;
  std::size_t written = 0;
  CUBLAS_CHECK(cublasLtMatmulAlgoConfigGetAttribute(
      &algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme, sizeof(scheme), &written));
  return scheme == CUBLASLT_REDUCTION_SCHEME_INPLACE;
}

// An algorithm is a few words that the same version of the library may be given again.
std::string text_of(const cublasLtMatmulAlgo_t& algorithm) {
  std::string text;
  std::array<char, 17> word{};
  for (const std::uint64_t bits : algorithm.data) {
    std::snprintf(word.data(), word.size(), "%016llx", static_cast<unsigned long long>(bits));
    text += word.data();
  }
  return text;
}

bool read_algorithm(const std::string& text, cublasLtMatmulAlgo_t& algorithm) {
  constexpr std::size_t kDigits = 16;
  const std::size_t words = sizeof(algorithm.data) / sizeof(algorithm.data[0]);
  if (text.size() != words * kDigits ||
      text.find_first_not_of("0123456789abcdef") != std::string::npos) {
    return false;
  }
  for (std::size_t i = 0; i < words; ++i) {
    algorithm.data[i] = std::stoull(text.substr(i * kDigits, kDigits), nullptr, 16);
  }
  return true;
}

std::string library_name() { return concat("cuBLASLt ", cublasLtGetVersion()); }

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

void MatmulLibrary::use(std::shared_ptr<MatmulChoices> choices, MeasureMatmuls measure,
                        std::string card) {
  CHECK(plans_.empty(), "matmul choices are given after the first matmul");
  choices_ = std::move(choices);
  measure_ = measure;
  card_ = std::move(card);
}

MatmulLibrary::Key MatmulLibrary::key_of(const Operands& on, Transpose transpose_a,
                                         Transpose transpose_b) {
  const auto& [c, a, b, addend, adds] = on;
  const auto dtypes = static_cast<std::int64_t>(a.dtype()) * 16 +
                      static_cast<std::int64_t>(b.dtype()) * 4 +
                      static_cast<std::int64_t>(c.dtype());
  const auto kind = (transpose_a == Transpose::yes ? 4 : 0) +
                    (transpose_b == Transpose::yes ? 2 : 0) + (adds ? 1 : 0);
  const std::int64_t alignment_c =
      addend.empty() ? alignment_of(c) : std::min(alignment_of(c), alignment_of(addend));
  return {c.rows(),        c.cols(),        a.rows(),       a.cols(),
          a.row_stride(),  b.row_stride(),  c.row_stride(), dtypes * 8 + kind,
          alignment_of(a), alignment_of(b), alignment_c};
}

MatmulLibrary::Plan& MatmulLibrary::plan_for(const Key& key, const Operands& on,
                                             Transpose transpose_a, Transpose transpose_b) {
  const auto place = plans_.find(key);
  if (place != plans_.end()) return place->second;
  Plan& plan = plans_[key];
  const bool wide = on.a.dtype() == DType::f64;
  CUBLAS_CHECK(cublasLtMatmulDescCreate(&plan.operation,
                                        wide ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F,
                                        wide ? CUDA_R_64F : CUDA_R_32F));
  set_transpose(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, transpose_b);
  set_transpose(plan.operation, CUBLASLT_MATMUL_DESC_TRANSB, transpose_a);
  plan.a = layout_of(on.a);
  plan.b = layout_of(on.b);
  plan.c = layout_of(on.c);
  choose(plan, key, on);
  return plan;
}

// The library's heuristics for a plan that need no sum in place, best guess first.
std::vector<cublasLtMatmulAlgo_t> MatmulLibrary::candidates(const Plan& plan, const Operands& on,
                                                            int most) {
  cublasLtMatmulPreference_t preference = nullptr;
  CUBLAS_CHECK(cublasLtMatmulPreferenceCreate(&preference));
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t which, const auto& value) {
    CUBLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(preference, which, &value, sizeof(value)));
  };
  const auto alignment = [](const Tensor& t) {
    return static_cast<std::uint32_t>(alignment_of(t));
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{kWorkspace});
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(on.b));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(on.a));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(on.addend.empty() ? on.c : on.addend));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(on.c));
  std::vector<cublasLtMatmulHeuristicResult_t> found(static_cast<std::size_t>(most));
  int count = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle_, plan.operation, plan.b, plan.a, plan.c, plan.c,
                                     preference, most, found.data(), &count);
  cublasLtMatmulPreferenceDestroy(preference);
  std::vector<cublasLtMatmulAlgo_t> algorithms;
  if (status != CUBLAS_STATUS_SUCCESS) return algorithms;
  for (int i = 0; i < count; ++i) {
    const auto& result = found[static_cast<std::size_t>(i)];
    if (result.state == CUBLAS_STATUS_SUCCESS) algorithms.push_back(result.algo);
  }
  return algorithms;
}

void MatmulLibrary::choose(Plan& plan, const Key& key, const Operands& on) {
  constexpr int kMeasured = 32;
  std::string shape = concat(on.adds ? "added" : "set");
  for (const std::int64_t value : key) shape += concat(' ', value);
  const std::string name = MatmulChoices::key(card_, library_name(), shape);
  const MatmulChoice* listed = choices_ ? choices_->find(name) : nullptr;
  if (listed != nullptr) return take_listed(plan, listed->algorithm, shape);
  const bool measures = measure_ == MeasureMatmuls::yes;
  const auto found = candidates(plan, on, measures ? kMeasured : 1);
  plan.usable = !found.empty();
  if (!plan.usable) return;
  plan.algorithm = found.front();
  if (measures) choices_->set(name, measured(plan, on, found));
}

void MatmulLibrary::take_listed(Plan& plan, const std::string& algorithm,
                                const std::string& shape) {
  cublasLtMatmulHeuristicResult_t checked{};
  const bool fits = read_algorithm(algorithm, plan.algorithm) &&
                    cublasLtMatmulAlgoCheck(handle_, plan.operation, plan.b, plan.a, plan.c, plan.c,
                                            &plan.algorithm, &checked) == CUBLAS_STATUS_SUCCESS &&
                    checked.workspaceSize <= kWorkspace && !adds_in_place(plan.algorithm);
  if (!fits) {
    throw Error(
        concat("the table of matmul choices names for the shape ", shape, " an algorithm that ",
               library_name(),
               " does not take, or one that adds in place; measure again with `convoy bench "
               "matmul --write`"));
  }
  plan.usable = true;
}

// Leaves the fastest of `found` in the plan. Another than the first must be faster by more than
// what measurements differ.
MatmulChoice MatmulLibrary::measured(Plan& plan, const Operands& on,
                                     const std::vector<cublasLtMatmulAlgo_t>& found) {
  constexpr double kNoise = 0.01;
  cublasLtMatmulAlgo_t best = found.front();
  plan.algorithm = best;
  const double unasked = seconds_of(plan, on);
  double least = unasked;
  for (std::size_t i = 1; i < found.size(); ++i) {
    plan.algorithm = found[i];
    if (adds_in_place(plan.algorithm) || launch(plan, on) != CUBLAS_STATUS_SUCCESS) continue;
    const double seconds = seconds_of(plan, on);
    if (seconds >= least || seconds >= (1 - kNoise) * unasked) continue;
    least = seconds;
    best = found[i];
  }
  plan.algorithm = best;
  return {text_of(best), least, unasked};
}

// The best of a few groups of runs, which an interruption can only lengthen.
double MatmulLibrary::seconds_of(const Plan& plan, const Operands& on) {
  constexpr int kGroups = 3, kMostRuns = 50;
  constexpr double kGroupSeconds = 4e-3;
  cudaEvent_t start = nullptr, stop = nullptr;
  CUDA_CHECK(cudaEventCreate(&start));
  CUDA_CHECK(cudaEventCreate(&stop));
  const auto timed = [&](int runs) {
    CUDA_CHECK(cudaEventRecord(start, stream_));
    for (int i = 0; i < runs; ++i) CUBLAS_CHECK(launch(plan, on));
    CUDA_CHECK(cudaEventRecord(stop, stream_));
    CUDA_CHECK(cudaEventSynchronize(stop));
    float milliseconds = 0;
    CUDA_CHECK(cudaEventElapsedTime(&milliseconds, start, stop));
    return static_cast<double>(milliseconds) * 1e-3 / runs;
  };
  timed(1);
  const double once = std::max(timed(1), 1e-7);
  const int runs = static_cast<int>(std::clamp(kGroupSeconds / once, 1.0, double{kMostRuns}));
  double least = timed(runs);
  for (int i = 1; i < kGroups; ++i) least = std::min(least, timed(runs));
  cudaEventDestroy(start);
  cudaEventDestroy(stop);
  return least;
}

cublasStatus_t MatmulLibrary::launch(const Plan& plan, const Operands& on) {
  const double one = 1, beta = on.adds ? 1 : 0;
  const float one_f = 1, beta_f = on.adds ? 1.0f : 0.0f;
  const bool wide = on.a.dtype() == DType::f64;
  const void* scale = wide ? static_cast<const void*>(&one) : &one_f;
  const void* keep = wide ? static_cast<const void*>(&beta) : &beta_f;
  const Tensor& added = on.addend.empty() ? on.c : on.addend;
  return cublasLtMatmul(handle_, plan.operation, scale, on.b.data(), plan.b, on.a.data(), plan.a,
                        keep, added.data(), plan.c, on.c.data(), plan.c, &plan.algorithm,
                        workspace_, kWorkspace, stream_);
}

bool MatmulLibrary::run(const Tensor& c, const Tensor& a, Transpose transpose_a, const Tensor& b,
                        Transpose transpose_b, Accumulate accumulate, const Tensor& addend) {
  if (!addend.empty() && addend.row_stride() != c.row_stride()) return false;
  const Operands on{c, a, b, addend, accumulate == Accumulate::yes || !addend.empty()};
  const Plan& plan = plan_for(key_of(on, transpose_a, transpose_b), on, transpose_a, transpose_b);
  if (!plan.usable) return false;
  CUBLAS_CHECK(launch(plan, on));
  return true;
}

}  // namespace convoy::cuda
