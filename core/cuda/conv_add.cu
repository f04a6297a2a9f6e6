// A low-rank convolution in bf16 that adds the residual of its block as it stores.
#include "core/cuda/cuda_backend.h"
#include "core/cuda/launch.cuh"
#include "core/cuda/lowrank_quads.cuh"

namespace convoy {
namespace cuda {
namespace {

struct AddCall {
  QuadConv conv;
  Rows<bf16> sum;
  Rows<const bf16> addend;
  const std::int32_t* reach;
  std::int64_t rows, chunk_rows;
};

__global__ void __launch_bounds__(kQuadThreads, 2)
    conv_add_kernel(const __grid_constant__ AddCall call) {
  extern __shared__ __align__(16) char memory[];
  wait_for_previous();
  allow_next();
  const QuadShared<1> shared(shared_address(memory));
  const QuadOrder order{4};
  const QuadChannels channels{static_cast<int>(blockIdx.x) * kQuadChannels, kQuadChannels};
  const std::int64_t first = blockIdx.y * call.chunk_rows;
  const std::int64_t end = min(first + call.chunk_rows, call.rows);
  QuadLoader<1> loader(shared_address(memory), &call.conv, channels, call.reach, nullptr, call.rows,
                       first);
  for (int block = 0; block < 3; ++block) loader.next();
  load_quad_filters(shared, &call.conv, channels, order);
  __syncthreads();
  ColumnFilters filters[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) filters[j].load(shared, j);
  const QuadLane lane(order, kQuadChannels);
  const int channel = channels.first + lane.lower;
  for (int tile = 0; first + tile * kTokens < end; ++tile) {
    wait_copies<1>();
    __syncthreads();
    loader.next();
    const std::int64_t t = first + tile * kTokens + threadIdx.x % 32 / 4 * 4;
    const int own =
        channel < call.conv.channels ? static_cast<int>(min(end - t, std::int64_t{4})) : 0;
    uint4 addend[4];  // asked for before the convolution, used after it
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i < own) addend[i] = *reinterpret_cast<const uint4*>(call.addend.row(t + i) + channel);
    }
    float sum[4][8];
    convolve_tile<false>(sum, filters, shared, (kLead + tile * kTokens) % kRing, lane, call.conv);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i >= own) break;
      const Pair more[4] = {addend[i].x, addend[i].y, addend[i].z, addend[i].w};
      Pair packed[4];
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        packed[q] =
            pack_pair(sum[i][2 * q] + low_of(more[q]), sum[i][2 * q + 1] + high_of(more[q]));
      }
      __stcs(reinterpret_cast<uint4*>(call.sum.row(t + i) + channel),
             {packed[0], packed[1], packed[2], packed[3]});
    }
  }
  wait_copies<0>();
}

}  // namespace
}  // namespace cuda

void CudaBackend::conv_forward_add(Tensor sum, Tensor x, Tensor addend, const ConvFilters& filters,
                                   const ConvShape& shape, const ConvRows& rows) {
  using namespace cuda;
  if (x.size() == 0) return;
  if (!quads_take(filters, shape, rows, x) || !packable(16, {sum, addend})) {
    return Backend::conv_forward_add(sum, x, addend, filters, shape, rows);
  }
  AddCall call{describe_quads(filters, shape, x), rows_of<bf16>(sum), read_rows<bf16>(addend),
               rows.reach.data<std::int32_t>(),   x.rows(),           0};
  const int wide = ceil_div(call.conv.channels, kQuadChannels);
  call.chunk_rows = quad_chunk_rows(call.rows, wide);
  const dim3 grid(static_cast<unsigned>(wide),
                  static_cast<unsigned>(ceil_div(call.rows, call.chunk_rows)));
  launch_overlapped(conv_add_kernel, grid, kQuadThreads, QuadShared<1>::kBytes, stream_, call);
}

}  // namespace convoy
