// Messages of 8 bytes between the blocks of a cluster, through shared memory (PTX ISA, "st.async",
// "mbarrier"). A letter box counts the bytes that come in: who waits for it sees all letters of a
// turn, and nobody waits for anything else. A barrier of the cluster would do the same, but only
// after all stores of the block to device memory have been answered.
#pragma once

#include <cstdint>

#include "core/cuda/shared_memory.cuh"

namespace convoy::cuda {

using LetterBox = std::uint64_t;  // in shared memory

#if __CUDA_ARCH__ >= 900
// By one thread of the block; a barrier of the cluster comes before the first letter.
__device__ inline void open_letter_box(LetterBox* box) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(box)) : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// By one thread of the block, once a turn: how many bytes will come in it.
__device__ inline void expect_letters(LetterBox* box, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(box)),
               "r"(bytes)
               : "memory");
}
// Writes `letter` to the place and box of another block (or the own) that `to` and `box` name here.
template <class Letter>
__device__ inline void send_letter(Letter* to, LetterBox* box, int block, const Letter& letter) {
  static_assert(sizeof(Letter) == 8, "a letter has 8 bytes");
  std::uint64_t bits;
  memcpy(&bits, &letter, sizeof bits);
  asm volatile(
      "{\n"
      ".reg .u32 to, box;\n"
      "mapa.shared::cluster.u32 to, %0, %2;\n"
      "mapa.shared::cluster.u32 box, %1, %2;\n"
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.b64 [to], %3, [box];\n"
      "}\n" ::"r"(shared_address(to)),
      "r"(shared_address(box)), "r"(block), "l"(bits)
      : "memory");
}
// Until all letters of a turn are there; `odd_turn` is that of the box, from 0.
__device__ inline void wait_for_letters(LetterBox* box, int odd_turn) {
  std::uint32_t there = 0;
  while (there == 0) {
    asm volatile(
        "{\n"
        ".reg .pred there;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 there, [%1], %2;\n"
        "selp.u32 %0, 1, 0, there;\n"
        "}\n"
        : "=r"(there)
        : "r"(shared_address(box)), "r"(odd_turn)
        : "memory");
  }
}
#endif

}  // namespace convoy::cuda
