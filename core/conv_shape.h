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

}  // namespace convoy
