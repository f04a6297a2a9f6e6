// RowLayout: which positions of a sequence a rank holds. Under context parallelism a sequence is
// cut into 2 cp chunks and rank c holds chunks c and 2 cp - 1 - c (zigzag), so that causal
// attention is equal work for all; where tp ranks split rows too, each chunk is cut once more. What
// a rank holds of a chunk is a segment. The layout of all ranks is known to each of them.
#pragma once

#include <cstdint>

#include "core/error.h"

namespace convoy {

struct RowLayout {
  std::int64_t length = 0;  // T
  int cp = 1;
  int tp = 1;  // 1 also where the tp ranks hold the same rows

  int ranks() const { return cp * tp; }            // numbered cp-major, as in MeshAxis::sequence
  int segments() const { return cp > 1 ? 2 : 1; }  // of a sequence on each rank
  std::int64_t chunk_length() const { return length / (cp * segments()); }
  std::int64_t segment_length() const { return chunk_length() / tp; }
  std::int64_t rows() const { return segments() * segment_length(); }  // of a sequence on each rank

  // The first position of a rank's segment.
  std::int64_t begin_of(int rank, int segment) const {
    const int place = rank / tp;
    const int chunk = segment == 0 ? place : 2 * cp - 1 - place;
    return chunk * chunk_length() + rank % tp * segment_length();
  }

  struct Place {
    int rank, segment;
    std::int64_t row;  // within the segment
  };
  Place place_of(std::int64_t position) const {
    CHECK(position >= 0 && position < length, "position ", position, " of ", length);
    const auto chunk = static_cast<int>(position / chunk_length());
    const std::int64_t within = position % chunk_length();
    const int place = chunk < cp ? chunk : 2 * cp - 1 - chunk;
    const auto part = static_cast<int>(within / segment_length());
    return {place * tp + part, chunk < cp ? 0 : 1, within % segment_length()};
  }
};

}  // namespace convoy
