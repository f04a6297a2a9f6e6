// The warp-wide instructions of the matrix units (PTX ISA, "mma.sync", "ldmatrix"): tiles of 16 x 8
// accumulated in f32 from bf16, and fragments from shared memory. Lane l = 4 g + c holds, of an
// accumulator, rows g and g + 8, columns 2c and 2c + 1; of the left operand, the same rows at
// depths 2c, 2c + 1 and 2c + 8, 2c + 9.
#pragma once

#include <cuda_bf16.h>

#include "core/cuda/shared_memory.cuh"

namespace convoy::cuda {

__device__ inline void multiply_add(float (&d)[4], const Pair (&a)[4], Pair b0, Pair b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// d = a b + c, where c stays.
__device__ inline void multiply_add_to(float (&d)[4], const Pair (&a)[4], Pair b0, Pair b1,
                                       const float (&c)[4]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%10,%11,%12,%13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]),
        "f"(c[2]), "f"(c[3]));
}

// The same with half of the depth: a row's depths 2c and 2c + 1.
__device__ inline void multiply_add_to(float (&d)[4], const Pair (&a)[2], Pair b,
                                       const float (&c)[4]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
      "{%7,%8,%9,%10};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

// Four 8 x 8 matrices; lane l gives the address of row l % 8 of matrix l / 8.
__device__ inline void load_matrices(Pair (&r)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ inline void load_matrices_transposed(Pair (&r)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

__device__ inline Pair pack_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const Pair*>(&pair);
}
__device__ inline float low_of(Pair pair) { return __uint_as_float(pair << 16); }
__device__ inline float high_of(Pair pair) { return __uint_as_float(pair & 0xffff0000u); }
__device__ inline Pair multiply_pairs(Pair a, Pair b) {
  const __nv_bfloat162 product = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&a),
                                         *reinterpret_cast<const __nv_bfloat162*>(&b));
  return *reinterpret_cast<const Pair*>(&product);
}

}  // namespace convoy::cuda
