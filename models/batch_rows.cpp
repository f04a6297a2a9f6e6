#include "models/batch_rows.h"

#include <algorithm>

#include "core/conv_shape.h"

namespace convoy {

std::int64_t padded_length(std::int64_t length, const Sharding& sharding) {
  const std::int64_t multiple = length_multiple(sharding.mesh, sharding.sequence_parallel);
  return (length + multiple - 1) / multiple * multiple;
}

std::vector<std::int64_t> row_indices(std::int64_t sequences, const RowLayout& layout, int rank) {
  std::vector<std::int64_t> indices;
  indices.reserve(static_cast<std::size_t>(sequences * layout.rows()));
  for (std::int64_t sequence = 0; sequence < sequences; ++sequence) {
    for (int segment = 0; segment < layout.segments(); ++segment) {
      const std::int64_t first = sequence * layout.length + layout.begin_of(rank, segment);
      for (std::int64_t i = 0; i < layout.segment_length(); ++i) indices.push_back(first + i);
    }
  }
  return indices;
}

namespace {

struct Row {
  std::int32_t token, target, position, document_start;

  std::int32_t reach() const { return std::min(position - document_start, kMaxConvWidth - 1); }
};

// Row `index` of the batch padded to `padded` rows a sequence.
Row row_at(const WholeBatch& batch, std::int64_t padded, std::int64_t index) {
  const std::int64_t position = index % padded;
  const auto at = static_cast<std::int32_t>(position);
  if (position >= batch.length) return {0, -1, at, static_cast<std::int32_t>(batch.length)};
  const auto i = static_cast<std::size_t>(index / padded * batch.length + position);
  return {batch.tokens[i], batch.targets[i], at, batch.document_start[i]};
}

}  // namespace

BatchRows rows_of_rank(const WholeBatch& batch, const Sharding& sharding) {
  const auto size = static_cast<std::size_t>(batch.sequences * batch.length);
  CHECK(batch.tokens.size() == size && batch.targets.size() == size &&
            batch.document_start.size() == size,
        "a batch of ", batch.sequences, " x ", batch.length, " has ", batch.tokens.size(),
        " tokens, ", batch.targets.size(), " targets, ", batch.document_start.size(),
        " document starts");
  const std::int64_t padded = padded_length(batch.length, sharding);
  const RowLayout all = sharding.all_rows(padded), own = sharding.own_rows(padded);
  BatchRows rows;
  rows.sequences = batch.sequences;
  rows.length = all.rows();
  for (const auto index : row_indices(batch.sequences, all, sharding.cp.rank())) {
    const Row row = row_at(batch, padded, index);
    rows.tokens.push_back(row.token);
    rows.targets.push_back(row.target);
    rows.positions.push_back(row.position);
    rows.document_start.push_back(row.document_start);
    rows.reach.push_back(row.reach());
  }
  for (const auto index : row_indices(batch.sequences, own, sharding.row_owners().rank())) {
    rows.own_reach.push_back(row_at(batch, padded, index).reach());
  }
  return rows;
}

}  // namespace convoy
