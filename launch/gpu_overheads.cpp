#include "launch/gpu_overheads.h"

#include <algorithm>
#include <cmath>

namespace convoy {
namespace {

constexpr double kMatmulLibrary = 64.0 * 1024 * 1024;  // core/cuda/matmul_library.cpp

// On a Hopper GPU: the own attention backward's dq in f32 with two statistics of each row of a head
// (core/cuda/warpgroup_attention.cu); for what it does not take, cuDNN's deterministic one, dq in
// f32 for each block of keys, added up at the end, as its version 9.14 asks for.
double attention_backward(const RunConfig& config, const MeshShape& mesh) {
  const ModelConfig& model = config.model;
  const bool library = dtype_of_run(config) == DType::bf16 && model.head_width() % 8 == 0 &&
                       model.head_width() <= 128 && mesh.cp == 1;
  if (!library) return 0;
  const double key_block = model.head_width() <= 64 ? 128 : 256;
  const auto queries = static_cast<double>(config.train.micro_batch * model.seq_len);
  const std::int64_t heads = model.n_heads / mesh.tp;
  if (model.head_width() == 64 && model.seq_len % 64 == 0) {
    constexpr double kRow = (64 + 2) * 4 + 4.0 / 64;  // bytes; a counter of each 64 rows
    return queries * static_cast<double>(heads) * kRow;
  }
  const double dq = queries * static_cast<double>(heads * model.head_width()) * 4;
  const double statistics = queries * static_cast<double>(heads) * 4;
  const double blocks = std::ceil(static_cast<double>(model.seq_len) / key_block);
  return dq * (config.deterministic ? blocks : 1) + statistics;
}

// The gradient rows of the embedding in the order of their tokens, in f32: more than norms and
// convolutions take for their sums.
double embedding_backward(const RunConfig& config) {
  const auto rows = static_cast<double>(config.train.micro_batch * config.model.seq_len);
  constexpr double kSorting = 6 * 4;  // bytes a row: indices, keys, and what the sort takes
  return rows * (4 * static_cast<double>(config.model.d_model) + kSorting);
}

}  // namespace

double gpu_workspace(const RunConfig& config, const MeshShape& mesh) {
  return kMatmulLibrary + std::max(attention_backward(config, mesh), embedding_backward(config));
}

}  // namespace convoy
