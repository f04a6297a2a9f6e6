// Sizes that follow from a convolution's shape.
#pragma once

#include "core/backend.h"

namespace convoy {

constexpr int kMaxConvWidth = 8;

// Columns of the projection that generate the filters of `channels` channels.
constexpr std::int64_t generated_columns(const ConvShape& shape, std::int64_t channels) {
  switch (shape.kind) {
    case FilterKind::headwise: return channels / shape.head_size * shape.width;
    case FilterKind::lowrank: return shape.filter_rank;
    case FilterKind::none:
    case FilterKind::fixed: return 0;
  }
  return 0;
}

// Whether a GPU takes a convolution of whole sequences together with what follows it, in one pass:
// the taps and ranks of one product of its matrix units, in rows of whole packs of 16 bytes.
constexpr bool fuses_on_gpu(const ConvShape& shape, std::int64_t channels, DType dtype) {
  return shape.kind == FilterKind::lowrank && dtype == DType::bf16 && channels % 8 == 0 &&
         shape.width <= 4 && shape.filter_rank <= 16 && shape.filter_rank % 8 == 0;
}

}  // namespace convoy
