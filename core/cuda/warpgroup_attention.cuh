// The backward pass of causal attention on Hopper, heads of 64 channels, whole windows, one kernel
// (after Shah et al., arXiv 2407.08608). A block takes tiles of 128 keys from a common list; its
// queries go by in steps of 64. Two warpgroups own 64 keys each and keep dk and dv in registers; a
// third makes the step's part of dq from the dS^T that those two leave in shared memory; a fourth
// feeds and keeps the turns. Parts of dq meet in f32 in a fixed order, the tiles descending, which
// is also the order in which tiles are handed out: the diagonal one stores, each next one adds,
// the first of the sequence rounds the sum to bf16. A counter of each 64 queries says whose turn
// it is, so the bits are the same in every run and no pass over dq follows.
#pragma once

#include "core/cuda/elements.cuh"
#include "core/cuda/warpgroup.cuh"

namespace convoy::cuda::warpgroup_attention {

constexpr int kWidth = 64;                   // channels of a head
constexpr int kQueries = 64;                 // of a step
constexpr int kKeys = 128;                   // of a tile
constexpr int kThreads = 512;                // two warpgroups over keys, one of dq, one that feeds
constexpr int kBox = kQueries * kWidth * 2;  // bytes of 64 rows
constexpr int kStatistics = kQueries * 8;    // bytes of a step's log_sum_exp and delta
constexpr int kStages = 4, kSlots = 3;       // rings of queries with dout, and of dS
constexpr int kTurns = 4;  // steps that the keepers of turns may be ahead or behind
// A thread's registers in the warpgroups; 512 in all of the 128 that the kernel starts with.
constexpr int kKeyRegisters = 200, kQueryRegisters = 88, kFeedRegisters = 24;
constexpr float kLog2E = 1.44269504088896341f;

// Shared memory: tiles first, whose addresses are multiples of 1024.
template <int Stages, int Slots>
struct Layout {
  static constexpr int kKeysAt = 0, kValuesAt = kKeysAt + 2 * 2 * kBox;
  static constexpr int kStagesAt = kValuesAt + 2 * 2 * kBox;
  static constexpr int kSlotsAt = kStagesAt + Stages * 2 * kBox;
  static constexpr int kStatisticsAt = kSlotsAt + Slots * 2 * kBox;
  static constexpr int kBarriersAt = kStatisticsAt + Stages * kStatistics;
  static constexpr int kBarriers = 2 * (2 + Stages + Slots + 2 * kTurns);
  static constexpr int kTilesAt = kBarriersAt + kBarriers * 8;
  static constexpr int kBytes = kTilesAt + 2 * 4 + 1024;  // the start is rounded up

  std::uint32_t base;
  __device__ std::uint32_t keys(int i) const { return base + kKeysAt + i * 2 * kBox; }
  __device__ std::uint32_t values(int i) const { return base + kValuesAt + i * 2 * kBox; }
  __device__ std::uint32_t queries(int i) const { return base + kStagesAt + i * 2 * kBox; }
  __device__ std::uint32_t douts(int i) const { return queries(i) + kBox; }
  __device__ std::uint32_t scores(int i) const { return base + kSlotsAt + i * 2 * kBox; }
  __device__ std::uint32_t statistics(int i) const {
    return base + kStatisticsAt + i * kStatistics;
  }
  __device__ std::uint32_t tile(int i) const { return base + kTilesAt + i * 4; }
  __device__ std::uint32_t barrier(int i) const { return base + kBarriersAt + i * 8; }
  __device__ std::uint32_t tile_full(int i) const { return barrier(i); }
  __device__ std::uint32_t tile_empty(int i) const { return barrier(2 + i); }
  __device__ std::uint32_t stage_full(int i) const { return barrier(4 + i); }
  __device__ std::uint32_t stage_empty(int i) const { return barrier(4 + Stages + i); }
  __device__ std::uint32_t slot_full(int i) const { return barrier(4 + 2 * Stages + i); }
  __device__ std::uint32_t slot_empty(int i) const { return barrier(4 + 2 * Stages + Slots + i); }
  __device__ std::uint32_t keeper(int i) const { return barrier(4 + 2 * Stages + 2 * Slots + i); }
  __device__ std::uint32_t turn_full(int i) const { return keeper(i); }
  __device__ std::uint32_t turn_empty(int i) const { return keeper(kTurns + i); }
  __device__ std::uint32_t added_full(int i) const { return keeper(2 * kTurns + i); }
  __device__ std::uint32_t added_empty(int i) const { return keeper(3 * kTurns + i); }
};

// A place in a ring of N and the parity of its round.
template <int N>
struct Ring {
  int at = 0, parity = 0;
  __device__ void advance() {
    if (++at == N) at = 0, parity ^= 1;
  }
};

struct Problem {
  bf16 *dq, *dk, *dv;  // [B*T, heads * 64], rows `stride` apart
  std::int64_t dq_stride, dk_stride, dv_stride;
  const float* statistics;  // [B, Q, T / 2] of {log2 of the sum, again, delta, delta}
  float* accumulator;       // [B, Q, T / 64, 8, 128, 4], as the threads hold it
  int* turns;               // [B, Q, T / 64]
  int* next_tile;
  int blocks;  // T / 64
  int query_heads, kv_heads, group;
  int tiles;    // of a head: ceil(blocks / 2)
  int handed;   // of all heads
  float scale;  // of the scores
};

// What a tile is: keys [128 tile, ...) of one head, and the blocks of 64 queries that see it.
struct Tile {
  int sequence, kv_head, index, steps;
  __device__ Tile(int number, const Problem& in) {
    const int head = number / in.tiles;
    index = in.tiles - 1 - number % in.tiles;
    sequence = head / in.kv_heads, kv_head = head % in.kv_heads;
    steps = in.blocks - 2 * index;
  }
  __device__ std::int64_t row(const Problem& in) const {
    return std::int64_t{sequence} * in.blocks * kQueries + index * kKeys;
  }
};

__device__ inline void wait_for(std::uint32_t barrier, int parity) {
  while (!has_passed(barrier, parity)) {
  }
}
__device__ inline void wait_for_turn(const int* counter, int turn) {
  while (count_acquire(counter) < turn) {
  }
}

__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float2 load_shared_floats(std::uint32_t address) {
  const uint2 v = load_shared8(address);
  return {__uint_as_float(v.x), __uint_as_float(v.y)};
}
// For all lanes of the warp: what they read or wrote before comes before what waits for the phase.
__device__ inline void warp_arrives(std::uint32_t barrier) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) arrive(barrier);
}

// A sum as left operand: the columns become the depth.
__device__ __forceinline__ void pack(Pair (&f)[16], const Sum64& s) {
#pragma unroll
  for (int i = 0; i < 16; ++i) f[i] = pack_pair(s[2 * i], s[2 * i + 1]);
}

// The calling warp's 16 rows of a sum, times `factor`, to the rows from `to`.
__device__ __forceinline__ void store_sum(bf16* to, std::int64_t stride, const Sum64& s,
                                          float factor) {
  const int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    bf16* place = to + (g + half * 8) * stride + 2 * c;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      *reinterpret_cast<Pair*>(place + n * 8) =
          pack_pair(s[4 * n + 2 * half] * factor, s[4 * n + 2 * half + 1] * factor);
    }
  }
}

template <int Stages, int Slots>
__device__ __forceinline__ void feed(Layout<Stages, Slots> at, const Problem& in,
                                     const CUtensorMap& q, const CUtensorMap& k,
                                     const CUtensorMap& v, const CUtensorMap& dout) {
  Ring<2> kv;
  Ring<Stages> stage;
  for (;; kv.advance()) {
    const int number = atomicAdd(in.next_tile, 1);
    wait_for(at.tile_empty(kv.at), kv.parity ^ 1);
    store_shared4(at.tile(kv.at), number < in.handed ? number : -1);
    if (number >= in.handed) {
      arrive(at.tile_full(kv.at));
      return;
    }
    const Tile tile(number, in);
    const int row = static_cast<int>(tile.row(in));
    arrive_expecting(at.tile_full(kv.at), 4 * kBox);
    copy_box(at.keys(kv.at), k, tile.kv_head * kWidth, row, at.tile_full(kv.at));
    copy_box(at.values(kv.at), v, tile.kv_head * kWidth, row, at.tile_full(kv.at));
    for (int member = 0; member < in.group; ++member) {
      const int head = tile.kv_head * in.group + member;
      const float* statistics =
          in.statistics +
          2 * (std::int64_t{tile.sequence} * in.query_heads + head) * in.blocks * kQueries;
      for (int step = 0; step < tile.steps; ++step, stage.advance()) {
        const int block = 2 * tile.index + step, full = at.stage_full(stage.at);
        wait_for(at.stage_empty(stage.at), stage.parity ^ 1);
        arrive_expecting(full, 2 * kBox + kStatistics);
        copy_box(at.queries(stage.at), q, head * kWidth, row + step * kQueries, full);
        copy_bytes(at.statistics(stage.at), statistics + 2 * block * kQueries, kStatistics, full);
        copy_box(at.douts(stage.at), dout, head * kWidth, row + step * kQueries, full);
      }
    }
  }
}

// Calls run(tile, counter of the step's queries, turn) for each step of each tile handed to the
// block.
template <int Stages, int Slots, class Run>
__device__ __forceinline__ void for_each_step(Layout<Stages, Slots> at, const Problem& in,
                                              Run run) {
  for (Ring<2> kv;; kv.advance()) {
    wait_for(at.tile_full(kv.at), kv.parity);
    const int number = load_shared4(at.tile(kv.at));
    if (number < 0) return;
    const Tile tile(number, in);
    arrive(at.tile_empty(kv.at));
    for (int member = 0; member < in.group; ++member) {
      const int head = tile.sequence * in.query_heads + tile.kv_head * in.group + member;
      int* counters = in.turns + std::int64_t{head} * in.blocks + 2 * tile.index;
      for (int step = 0; step < tile.steps; ++step) run(tile, counters + step, step / 2);
    }
  }
}
// Two threads keep the turns of dq, so that its warpgroup waits for no answer of device memory: one
// sees them come, ahead of time, the other passes them on once what was added is there.
template <int Stages, int Slots>
__device__ __forceinline__ void see_turns(Layout<Stages, Slots> at, const Problem& in) {
  Ring<kTurns> ring;
  for_each_step(at, in, [&](const Tile&, const int* counter, int turn) {
    if (turn == 0) return;
    wait_for(at.turn_empty(ring.at), ring.parity ^ 1);
    wait_for_turn(counter, turn);
    arrive(at.turn_full(ring.at));
    ring.advance();
  });
}
template <int Stages, int Slots>
__device__ __forceinline__ void pass_turns(Layout<Stages, Slots> at, const Problem& in) {
  Ring<kTurns> ring;
  for_each_step(at, in, [&](const Tile& tile, int* counter, int) {
    if (tile.index == 0) return;
    wait_for(at.added_full(ring.at), ring.parity);
    arrive(at.added_empty(ring.at));
    count_release(counter);
    ring.advance();
  });
}

// A warpgroup over 64 keys. In flight while it computes: dp and the share of dk of the step before
// behind the exponentials, the step's share of dv behind dS.
template <int Stages, int Slots>
struct KeyGroup {
  Layout<Stages, Slots> at;
  const Problem& in;
  const int group, warp;          // 0 or 1; of the group
  const std::uint32_t own_place;  // in a tile of dS: the lane's first 16 bytes
  Ring<2> kv;
  Ring<Stages> stage;
  Ring<Slots> slot;
  Sum64 dk, dv, s, dp;
  Pair p[16], ds[16];

  // sum = own rows of `left` times the rows of `right`, over the channels.
  __device__ __forceinline__ void issue_product(Sum64& sum, std::uint32_t left,
                                                std::uint32_t right) {
    const std::uint32_t a = place_of(left + group * kBox), b = place_of(right);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      wgmma<false, false>(sum, descriptor(a + k * kAlong), descriptor(b + k * kAlong), k);
    }
    wgmma_commit();
  }
  // sum (+)= left times the rows of `right`, over the queries.
  __device__ __forceinline__ void issue_sum(Sum64& sum, const Pair (&left)[16], std::uint32_t right,
                                            int add) {
    const std::uint32_t b = place_of(right);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      wgmma<true>(sum, left[4 * k], left[4 * k + 1], left[4 * k + 2], left[4 * k + 3],
                  descriptor(b + k * kDown), add + k);
    }
    wgmma_commit();
  }
  // The second group sees nothing of a head's first block of queries.
  __device__ __forceinline__ void pass_stage() {
    wait_for(at.stage_full(stage.at), stage.parity);
    warp_arrives(at.stage_empty(stage.at));
    stage.advance();
  }
  __device__ __forceinline__ void probabilities(bool diagonal) {
    const int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
    const std::uint32_t statistics = at.statistics(stage.at) + c * 16;
    const float scale = in.scale * kLog2E;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const float2 log_sum = load_shared_floats(statistics + n * 64);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        s[4 * n + e] = exp2_fast(s[4 * n + e] * scale - (e % 2 == 0 ? log_sum.x : log_sum.y));
      }
    }
    if (diagonal) {
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        const int query = i / 4 * 8 + 2 * c + i % 2, key = 16 * warp + g + i % 4 / 2 * 8;
        if (query < key) s[i] = 0;
      }
    }
    pack(p, s);
  }
  __device__ __forceinline__ void score_gradients() {
    const std::uint32_t statistics = at.statistics(stage.at) + threadIdx.x % 4 * 16 + 8;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const float2 delta = load_shared_floats(statistics + n * 64);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        s[4 * n + e] *= dp[4 * n + e] - (e % 2 == 0 ? delta.x : delta.y);
      }
    }
    pack(ds, s);
  }
  __device__ __forceinline__ void leave(const Pair (&rows)[16]) {
    wait_for(at.slot_empty(slot.at), slot.parity ^ 1);
    const std::uint32_t to = at.scores(slot.at) + own_place;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      store_matrices(to ^ (k * 32), rows[4 * k], rows[4 * k + 1], rows[4 * k + 2], rows[4 * k + 3]);
    }
    show_to_async();
    warp_arrives(at.slot_full(slot.at));
    slot.advance();
  }
  __device__ __forceinline__ void pass_slot() {
    const Pair zeros[16] = {};
    leave(zeros);
  }

  // Steps of one tile. Each begins with its scores, with the share of dk of the step before behind
  // them, while what that step left in registers goes to the warpgroup of dq.
  __device__ __forceinline__ void tile(const Tile& tile) {
    const int own = tile.steps - group;  // of a head
    const int steps = own * in.group;
    if (group == 1) pass_stage(), pass_slot();
    if (own == 0) {
      for (int member = 1; member < in.group; ++member) pass_stage(), pass_slot();
      return;
    }
#pragma unroll
    for (int i = 0; i < 16; ++i) ds[i] = 0;  // of the step before the first
    int place = 0, before = stage.at;
    for (int i = 0; i < steps; ++i) {
      const bool passes = group == 1 && place == 0 && i > 0;
      if (passes) pass_stage();
      wait_for(at.stage_full(stage.at), stage.parity);
      issue_product(s, at.keys(kv.at), at.queries(stage.at));
      issue_product(dp, at.values(kv.at), at.douts(stage.at));
      issue_sum(dk, ds, at.queries(before), i);
      if (i > 0) leave(ds);
      if (passes) pass_slot();
      wgmma_wait<2>();
      pin(s);
      pin(p);
      probabilities(place == 0);
      issue_sum(dv, p, at.douts(stage.at), i);
      wgmma_wait<1>();
      pin(dp);
      pin(ds);
      // Its products are done, and leave() fenced what each lane read of its statistics.
      if (i > 0) warp_arrives(at.stage_empty(before));
      score_gradients();
      before = stage.at, place = place + 1 == own ? 0 : place + 1;
      stage.advance();
    }
    issue_sum(dk, ds, at.queries(before), 1);
    leave(ds);
    wgmma_wait<0>();
    pin(dk);
    pin(dv);
    warp_arrives(at.stage_empty(before));
    const std::int64_t row = tile.row(in) + 64 * group + 16 * warp;
    store_sum(in.dk + row * in.dk_stride + tile.kv_head * kWidth, in.dk_stride, dk, in.scale);
    store_sum(in.dv + row * in.dv_stride + tile.kv_head * kWidth, in.dv_stride, dv, 1);
  }

  __device__ __forceinline__ void run() {
    for (;; kv.advance()) {
      wait_for(at.tile_full(kv.at), kv.parity);
      const int number = load_shared4(at.tile(kv.at));
      if (number < 0) return;
      tile(Tile(number, in));
      warp_arrives(at.tile_empty(kv.at));
    }
  }
};

// The warpgroup of dq.
template <int Stages, int Slots>
struct QueryGroup {
  Layout<Stages, Slots> at;
  const Problem& in;
  const int thread;  // of the group
  Ring<2> kv;
  Ring<Slots> slot;
  Ring<kTurns> turns, added;
  Sum64 dq;

  __device__ __forceinline__ void make_dq() {
    const std::uint32_t scores = place_of(at.scores(slot.at)), keys = place_of(at.keys(kv.at));
    wait_for(at.slot_full(slot.at), slot.parity);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      wgmma<true, true>(dq, descriptor(scores + k * kDown), descriptor(keys + k * kDown), k);
    }
    wgmma_commit();
    wgmma_wait<0>();
    pin(dq);
    warp_arrives(at.slot_empty(slot.at));
    slot.advance();
  }
  __device__ __forceinline__ void wait_turn() {
    wait_for(at.turn_full(turns.at), turns.parity);
    warp_arrives(at.turn_empty(turns.at));
    turns.advance();
  }
  // To the accumulator of the step's queries.
  __device__ __forceinline__ void add(float* sum, int turn) {
    make_dq();
    if (turn == 0) {
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        put4(sum + n * 512, dq[4 * n], dq[4 * n + 1], dq[4 * n + 2], dq[4 * n + 3]);
      }
    } else {
      wait_turn();
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        add4(sum + n * 512, dq[4 * n], dq[4 * n + 1], dq[4 * n + 2], dq[4 * n + 3]);
      }
    }
    wait_for(at.added_empty(added.at), added.parity ^ 1);
    warp_arrives(at.added_full(added.at));
    added.advance();
  }
  // The last turn: with what the others added, rounded, to the warp's 16 rows from `to`.
  __device__ __forceinline__ void finish(bf16* to, const float* sum, int turn) {
    float4 others[8] = {};
    if (turn > 0) {
      wait_turn();
#pragma unroll
      for (int n = 0; n < 8; ++n) others[n] = get4(sum + n * 512);
    }
    make_dq();
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const float4& v = others[n];
      dq[4 * n] += v.x, dq[4 * n + 1] += v.y, dq[4 * n + 2] += v.z, dq[4 * n + 3] += v.w;
    }
    store_sum(to, in.dq_stride, dq, in.scale);
  }
  __device__ __forceinline__ void head_of_tile(const Tile& tile, int head) {
    const std::int64_t block =
        (std::int64_t{tile.sequence} * in.query_heads + head) * in.blocks + 2 * tile.index;
    float* sum = in.accumulator + block * (kQueries * kWidth) + thread * 4;
    if (tile.index > 0) {
      for (int i = 0; i < tile.steps; ++i) add(sum + i * (kQueries * kWidth), i / 2);
    } else {
      bf16* to = in.dq + (tile.row(in) + thread / 32 * 16) * in.dq_stride + head * kWidth;
      for (int i = 0; i < tile.steps; ++i) {
        finish(to + i * kQueries * in.dq_stride, sum + i * (kQueries * kWidth), i / 2);
      }
    }
  }

  __device__ __forceinline__ void run() {
    for (;; kv.advance()) {
      wait_for(at.tile_full(kv.at), kv.parity);
      const int number = load_shared4(at.tile(kv.at));
      if (number < 0) return;
      const Tile tile(number, in);
      for (int member = 0; member < in.group; ++member) {
        head_of_tile(tile, tile.kv_head * in.group + member);
      }
      warp_arrives(at.tile_empty(kv.at));
    }
  }
};

template <int Stages, int Slots>
__global__ void __launch_bounds__(kThreads, 1)
    backward_kernel(const __grid_constant__ CUtensorMap q, const __grid_constant__ CUtensorMap k,
                    const __grid_constant__ CUtensorMap v, const __grid_constant__ CUtensorMap dout,
                    const __grid_constant__ Problem in) {
  extern __shared__ __align__(1024) char memory[];
  const Layout<Stages, Slots> at{(shared_address(memory) + 1023) & ~1023u};
  const int group = __shfl_sync(~0u, threadIdx.x / 128, 0);
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2; ++i) {
      barrier_begin(at.tile_full(i), 1);
      barrier_begin(at.tile_empty(i), 8 + 4 + 2);
    }
    for (int i = 0; i < Stages; ++i) {
      barrier_begin(at.stage_full(i), 1);
      barrier_begin(at.stage_empty(i), 8);
    }
    for (int i = 0; i < Slots; ++i) {
      barrier_begin(at.slot_full(i), 8);
      barrier_begin(at.slot_empty(i), 4);
    }
    for (int i = 0; i < kTurns; ++i) {
      barrier_begin(at.turn_full(i), 1);
      barrier_begin(at.turn_empty(i), 4);
      barrier_begin(at.added_full(i), 4);
      barrier_begin(at.added_empty(i), 1);
    }
    show_barriers();
  }
  __syncthreads();
  if (group == 3) {
    give_registers<kFeedRegisters>();
    if (threadIdx.x == 3 * 128) feed(at, in, q, k, v, dout);
    if (threadIdx.x == 3 * 128 + 32) see_turns(at, in);
    if (threadIdx.x == 3 * 128 + 64) pass_turns(at, in);
  } else if (group == 2) {
    give_registers<kQueryRegisters>();
    QueryGroup<Stages, Slots>{at, in, static_cast<int>(threadIdx.x % 128)}.run();
  } else {
    take_registers<kKeyRegisters>();
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    const std::uint32_t place = swizzled(0, 64 * group + 16 * warp + lane % 16, lane / 16);
    KeyGroup<Stages, Slots>{at, in, group, warp, place}.run();
  }
}

// Before it: delta = dout . out beside log_sum_exp in units of log 2, and counters of zero. Eight
// lanes take four rows of a head.
constexpr int kPrepareThreads = 256, kPrepared = 4;
__global__ void __launch_bounds__(kPrepareThreads)
    prepare_kernel(float* statistics, int* turns, int* next_tile, Rows<const bf16> dout,
                   Rows<const bf16> out, Rows<const float> log_sum_exp, std::int64_t length,
                   int heads, std::int64_t count) {
  const std::int64_t index = blockIdx.x * std::int64_t{kPrepareThreads / 8} + threadIdx.x / 8;
  if (index >= count) return;
  const std::int64_t row = index / heads * kPrepared;
  const int head = static_cast<int>(index % heads), lane = threadIdx.x % 8;
  const auto load = [&](Rows<const bf16> from, int i) {
    return *reinterpret_cast<const uint4*>(from.row(row + i) + head * kWidth + lane * 8);
  };
  uint4 a[kPrepared], b[kPrepared];
#pragma unroll
  for (int i = 0; i < kPrepared; ++i) a[i] = load(dout, i), b[i] = load(out, i);
  float delta[kPrepared];
#pragma unroll
  for (int i = 0; i < kPrepared; ++i) {
    const Pair x[4] = {a[i].x, a[i].y, a[i].z, a[i].w}, y[4] = {b[i].x, b[i].y, b[i].z, b[i].w};
    float sum = 0;
#pragma unroll
    for (int e = 0; e < 4; ++e) sum += low_of(x[e]) * low_of(y[e]) + high_of(x[e]) * high_of(y[e]);
#pragma unroll
    for (int step = 4; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
    delta[i] = sum;
  }
  if (lane >= kPrepared / 2) return;  // a lane stores two rows
  const float2 own = lane == 0 ? float2{delta[0], delta[1]} : float2{delta[2], delta[3]};
  const auto sum_of = [&](int i) { return log_sum_exp.row(row + 2 * lane + i)[head] * kLog2E; };
  const std::int64_t t = row % length, place = (row / length * heads + head) * length + t;
  reinterpret_cast<float4*>(statistics)[place / 2 + lane] = {sum_of(0), sum_of(1), own.x, own.y};
  if (t % kQueries == 0 && lane == 0) turns[place / kQueries] = 0;
  if (index == 0 && lane == 0) *next_tile = 0;
}

}  // namespace convoy::cuda::warpgroup_attention
