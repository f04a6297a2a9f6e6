// Shared memory by its own 32-bit addresses: loads, stores, and copies into it from device memory
// that go on behind the thread's back (PTX ISA, "cp.async").
#pragma once

#include <cstdint>

namespace convoy::cuda {

using Pair = std::uint32_t;  // two bf16; the lower half is the first

__device__ inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

// The same, computed here and now: in a cluster it takes a special register, which the compiler
// would rather read again at each use than keep.
__device__ inline std::uint32_t kept_shared_address(const void* p) {
  std::uint32_t kept;
  asm volatile("mov.u32 %0, %1;" : "=r"(kept) : "r"(shared_address(p)));
  return kept;
}

__device__ inline uint4 load_shared16(std::uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address)
               : "memory");
  return v;
}
__device__ inline uint2 load_shared8(std::uint32_t address) {
  uint2 v;
  asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(address) : "memory");
  return v;
}
__device__ inline int load_shared4(std::uint32_t address) {
  int v;
  asm volatile("ld.shared.s32 %0, [%1];" : "=r"(v) : "r"(address) : "memory");
  return v;
}
__device__ inline void store_shared4(std::uint32_t address, Pair v) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(v) : "memory");
}
__device__ inline void store_shared16(std::uint32_t address, float a, float b, float c, float d) {
  asm volatile("st.shared.v4.f32 [%0], {%1,%2,%3,%4};" ::"r"(address), "f"(a), "f"(b), "f"(c),
               "f"(d)
               : "memory");
}

// `Bytes` bytes to shared memory, or zeros where `there` is false; `from` must be an address of the
// tensor then too. Whole packs of 16 pass the L1 cache by.
template <int Bytes = 16>
__device__ inline void copy_ahead(std::uint32_t to, const void* from, bool there) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16, "what cp.async moves");
  const int bytes = there ? Bytes : 0;
  if constexpr (Bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(from), "n"(Bytes),
                 "r"(bytes)
                 : "memory");
  }
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int Pending>
__device__ inline void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

}  // namespace convoy::cuda
