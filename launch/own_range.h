// Which part of a bucket a rank keeps where `parts` ranks divide every bucket among them: the
// index-th of equal, aligned parts. One part is the whole.
#pragma once

#include "core/flat_range.h"
#include "models/parameters.h"

namespace convoy {

struct OwnRange {
  int parts = 1, index = 0;

  std::int64_t size(const Bucket& bucket) const { return bucket.size / parts; }
  // In the value buffer.
  std::int64_t begin(const Bucket& bucket) const { return bucket.begin + index * size(bucket); }
  // Where it lies in a buffer that holds this rank's parts of all buckets, one behind the other.
  std::int64_t place(const Bucket& bucket) const { return bucket.begin / parts; }
  std::int64_t gradient_place(const Bucket& bucket) const { return bucket.gradient_begin / parts; }

  Tensor of(const Tensor& flat) const {
    const std::int64_t count = flat.size() / parts;
    return flat_range(flat, index * count, count);
  }
};

}  // namespace convoy
