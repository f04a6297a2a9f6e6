#include <cudaTypedefs.h>

#include <algorithm>
#include <cmath>

#include "core/cuda/cuda_backend.h"
#include "core/cuda/elements.cuh"
#include "core/cuda/warpgroup_attention.cuh"
#include "core/cuda/warpgroup_attention.h"

namespace convoy::cuda {
namespace {

using namespace warpgroup_attention;

// Of the current device; 0 processors where it is not of compute capability 9.0.
int hopper_processors() {
  int device = 0, major = 0, minor = 0, processors = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  return major == 9 && minor == 0 ? processors : 0;
}

// The driver's own function, which the program does not link.
PFN_cuTensorMapEncodeTiled_v12000 encode_function() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
#if CUDART_VERSION >= 12050
  CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                              cudaEnableDefault, &found));
#else
  CUDA_CHECK(
      cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found));
#endif
  CHECK(function != nullptr,
        "the CUDA driver has no cuTensorMapEncodeTiled; it needs version 12.0");
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
}

// Boxes of `box` rows and 64 columns of a matrix, which lie swizzled in shared memory.
CUtensorMap boxes_of(const Tensor& t, int box) {
  static const auto encode = encode_function();
  CUtensorMap map;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(t.cols()),
                               static_cast<cuuint64_t>(t.rows())};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(t.row_stride()) * sizeof(bf16)};
  const cuuint32_t boxes[2] = {kWidth, static_cast<cuuint32_t>(box)}, steps[2] = {1, 1};
  const CUresult status =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, t.data(), sizes, strides, boxes, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  CHECK(status == CUDA_SUCCESS, "cuTensorMapEncodeTiled: error ", static_cast<int>(status),
        " for a tensor of ", t.rows(), " rows and ", t.cols(), " columns, ", t.row_stride(),
        " elements apart");
  return map;
}

bool takes(std::initializer_list<Tensor> tensors, const AttentionShape& shape) {
  return tensors.begin()->dtype() == DType::bf16 && packable(16, tensors) &&
         shape.head_width == kWidth && shape.length % kQueries == 0;
}

}  // namespace

bool warpgroup_attention_backward(cudaStream_t stream, Workspace& workspace, Tensor dq, Tensor dk,
                                  Tensor dv, Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out,
                                  Tensor log_sum_exp, const AttentionShape& shape) {
  if (!takes({q, k, v, out, dout, dq, dk, dv}, shape)) return false;
  const int processors = hopper_processors();
  if (processors == 0) return false;
  const std::int64_t rows = q.rows() * shape.query_heads, blocks = rows / kQueries;
  workspace.begin(static_cast<std::size_t>(rows * (kWidth + 2) * 4 + blocks * 4 + 4 * 256));
  Problem in{};
  in.dq = data_of<bf16>(dq), in.dk = data_of<bf16>(dk), in.dv = data_of<bf16>(dv);
  in.dq_stride = dq.row_stride(), in.dk_stride = dk.row_stride(), in.dv_stride = dv.row_stride();
  auto* statistics = workspace.take<float>(rows * 2);
  in.statistics = statistics;
  in.accumulator = workspace.take<float>(rows * kWidth);
  in.turns = workspace.take<int>(blocks);
  in.next_tile = workspace.take<int>(1);
  in.blocks = static_cast<int>(shape.length / kQueries);
  in.query_heads = static_cast<int>(shape.query_heads);
  in.kv_heads = static_cast<int>(shape.kv_heads);
  in.group = in.query_heads / in.kv_heads;
  in.tiles = ceil_div(in.blocks, 2);
  in.handed = in.tiles * static_cast<int>(shape.sequences * shape.kv_heads);
  in.scale = 1.0f / std::sqrt(static_cast<float>(kWidth));
  const std::int64_t prepared = rows / kPrepared;
  const auto prepare_blocks = ceil_div<std::int64_t>(prepared * 8, kPrepareThreads);
  prepare_kernel<<<static_cast<unsigned>(prepare_blocks), kPrepareThreads, 0, stream>>>(
      statistics, in.turns, in.next_tile, read_rows<bf16>(dout), read_rows<bf16>(out),
      read_rows<float>(log_sum_exp), shape.length, in.query_heads, prepared);
  check_launch();
  constexpr auto kernel = backward_kernel<kStages, kSlots>;
  constexpr int kShared = Layout<kStages, kSlots>::kBytes;
  CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared));
  const auto grid = static_cast<unsigned>(std::min(processors, in.handed));
  kernel<<<grid, kThreads, kShared, stream>>>(boxes_of(q, kQueries), boxes_of(k, kKeys),
                                              boxes_of(v, kKeys), boxes_of(dout, kQueries), in);
  check_launch();
  return true;
}

}  // namespace convoy::cuda
