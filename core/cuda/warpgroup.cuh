// What a Hopper warpgroup (128 threads) works with (PTX ISA, "wgmma", "mbarrier", "cp.async.bulk"):
// products of 64 rows from tiles in shared memory or fragments in registers, barriers that count
// arrivals and bytes, and copies of whole tiles. Tiles have rows of 128 bytes (64 bf16) and lie at
// multiples of 1024 bytes; 16-byte chunk c of row r lies at chunk c ^ (r % 8) ("128-byte swizzle").
// For sm_90a alone.
#pragma once

#include <cuda.h>

#include "core/cuda/mma.cuh"

namespace convoy::cuda {

// ---- tiles --------------------------------------------------------------------------------------
__device__ inline std::uint32_t swizzled(std::uint32_t tile, int row, int chunk) {
  return tile + row * 128 + ((chunk ^ (row & 7)) << 4);
}

// Where a tile, or a part of it, begins, as a matrix descriptor says it; eight rows to an atom of
// 1024 bytes. An operand whose depth goes along the rows continues 16 deeper at kAlong more, one
// whose depth goes down the rows (the transpose flag) at kDown more.
constexpr std::uint32_t kAlong = 32 >> 4, kDown = 2048 >> 4;
__device__ inline std::uint32_t place_of(std::uint32_t tile) {
  return (tile >> 4) | std::uint32_t{1024 >> 4} << 16;
}
__device__ inline std::uint64_t descriptor(std::uint32_t place) {
  constexpr std::uint64_t kAtoms = std::uint64_t{1024 >> 4} << 32;
  constexpr std::uint64_t kSwizzle128 = std::uint64_t{1} << 62;
  return kSwizzle128 | kAtoms | place;
}

// ---- products -----------------------------------------------------------------------------------
using Sum64 = float[32];  // of [64, 64]: lane l = 4g + c of warp w: rows 16w + g (+ 8), columns 8n
                          // + 2c (+ 1) at 4n + 2 (row half) + (column half)

__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int Pending>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}
// Keeps the compiler from moving uses of registers across a wait.
template <int N>
__device__ inline void pin(float (&r)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(r[i])::"memory");
}
template <int N>
__device__ inline void pin(Pair (&r)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+r"(r[i])::"memory");
}

#define CONVOY_SUM64                                                                            \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24," \
  "%25,%26,%27,%28,%29,%30,%31}"
#define CONVOY_SUM64_OPERANDS(d)                                                                  \
  "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
      "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]),    \
      "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]),  \
      "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]),  \
      "+f"(d[29]), "+f"(d[30]), "+f"(d[31])

// d [64, 64] = (add ? d : 0) + a [64, 16] b [16, 64]; a in registers, b by its descriptor.
template <bool TransposeB>
__device__ inline void wgmma(Sum64& d, const Pair& a0, const Pair& a1, const Pair& a2,
                             const Pair& a3, std::uint64_t b, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " CONVOY_SUM64
      ", {%32,%33,%34,%35}, %36, p, 1, 1, %38;\n}"
      : CONVOY_SUM64_OPERANDS(d)
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b), "r"(add), "n"(TransposeB ? 1 : 0));
}
// The same with both in shared memory.
template <bool TransposeA, bool TransposeB>
__device__ inline void wgmma(Sum64& d, std::uint64_t a, std::uint64_t b, int add) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " CONVOY_SUM64
      ", %32, %33, p, 1, 1, %35, %36;\n}"
      : CONVOY_SUM64_OPERANDS(d)
      : "l"(a), "l"(b), "r"(add), "n"(TransposeA ? 1 : 0), "n"(TransposeB ? 1 : 0));
}
#undef CONVOY_SUM64
#undef CONVOY_SUM64_OPERANDS

// Four 8 x 8 matrices; lane l gives the address of row l % 8 of matrix l / 8.
__device__ inline void store_matrices(std::uint32_t address, Pair r0, Pair r1, Pair r2, Pair r3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(address),
               "r"(r0), "r"(r1), "r"(r2), "r"(r3)
               : "memory");
}
// Own stores to shared memory become visible to products and bulk copies.
__device__ inline void show_to_async() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// ---- barriers in shared memory ------------------------------------------------------------------
__device__ inline void barrier_begin(std::uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ inline void show_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ inline void arrive_expecting(std::uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
__device__ inline bool has_passed(std::uint32_t barrier, int parity) {
  std::uint32_t done;
  asm volatile(
      "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n}"
      : "=r"(done)
      : "r"(barrier), "r"(parity)
      : "memory");
  return done != 0;
}

// ---- copies of tiles ----------------------------------------------------------------------------
__device__ inline void copy_box(std::uint32_t to, const CUtensorMap& map, int column, int row,
                                std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, "
      "%3}], [%4];" ::"r"(to),
      "l"(&map), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}
__device__ inline void copy_bytes(std::uint32_t to, const void* from, int bytes,
                                  std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}

// ---- registers and threads ----------------------------------------------------------------------
template <int Count>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count));
}
template <int Count>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count));
}
// The 128 threads of a warpgroup meet.
__device__ inline void meet(int id) { asm volatile("bar.sync %0, 128;" ::"r"(id) : "memory"); }

// ---- sums in device memory whose order is kept by counters --------------------------------------
__device__ inline int count_acquire(const int* counter) {
  int v;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(v) : "l"(counter) : "memory");
  return v;
}
__device__ inline void count_release(int* counter) {
  asm volatile("fence.acq_rel.gpu;\nred.relaxed.gpu.global.add.s32 [%0], 1;" ::"l"(counter)
               : "memory");
}
__device__ inline void add4(float* to, float a, float b, float c, float d) {
  asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1,%2,%3,%4};" ::"l"(to), "f"(a), "f"(b),
               "f"(c), "f"(d)
               : "memory");
}
__device__ inline void put4(float* to, float a, float b, float c, float d) {
  asm volatile("st.relaxed.gpu.global.v4.f32 [%0], {%1,%2,%3,%4};" ::"l"(to), "f"(a), "f"(b),
               "f"(c), "f"(d)
               : "memory");
}
__device__ inline float4 get4(const float* from) {
  float4 v;
  asm volatile("ld.relaxed.gpu.global.v4.f32 {%0,%1,%2,%3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "l"(from)
               : "memory");
  return v;
}

}  // namespace convoy::cuda
