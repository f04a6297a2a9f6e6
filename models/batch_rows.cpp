#include "models/batch_rows.h"

#include <algorithm>

#include "core/conv_shape.h"

namespace convoy {

std::int64_t padded_length(std::int64_t length, const Sharding& sharding) {
  const std::int64_t multiple = length_multiple(sharding.mesh, sharding.sequence_parallel);
  return (length + multiple - 1) / multiple * multiple;
}

namespace {

// Calls run(sequence, position) for each row of a rank, in their order.
template <class Function>
void for_each_row(std::int64_t sequences, const RowLayout& layout, int rank, Function&& run) {
  for (std::int64_t sequence = 0; sequence < sequences; ++sequence) {
    for (int segment = 0; segment < layout.segments(); ++segment) {
      const std::int64_t first = layout.begin_of(rank, segment);
      const std::int64_t last = first + layout.segment_length();
      for (std::int64_t position = first; position < last; ++position) run(sequence, position);
    }
  }
}

}  // namespace

std::vector<std::int64_t> row_indices(std::int64_t sequences, const RowLayout& layout, int rank) {
  std::vector<std::int64_t> indices;
  indices.reserve(static_cast<std::size_t>(sequences * layout.rows()));
  for_each_row(sequences, layout, rank, [&](auto sequence, auto position) {
    indices.push_back(sequence * layout.length + position);
  });
  return indices;
}

namespace {

struct Row {
  std::int32_t token, target, position, document_start;

  std::int32_t reach() const { return std::min(position - document_start, kMaxConvWidth - 1); }
};

// A row of the batch, whose sequences may be padded.
Row row_at(const WholeBatch& batch, std::int64_t sequence, std::int64_t position) {
  const auto at = static_cast<std::int32_t>(position);
  if (position >= batch.length) return {0, -1, at, static_cast<std::int32_t>(batch.length)};
  const auto i = static_cast<std::size_t>(sequence * batch.length + position);
  return {batch.tokens[i], batch.targets[i], at, batch.document_start[i]};
}

}  // namespace

BatchRows rows_of_rank(const WholeBatch& batch, const Sharding& sharding) {
  BatchRows rows;
  fill_rows(rows, batch, sharding);
  return rows;
}

void fill_rows(BatchRows& rows, const WholeBatch& batch, const Sharding& sharding) {
  const auto size = static_cast<std::size_t>(batch.sequences * batch.length);
  CHECK(batch.tokens.size() == size && batch.targets.size() == size &&
            batch.document_start.size() == size,
        "a batch of ", batch.sequences, " x ", batch.length, " has ", batch.tokens.size(),
        " tokens, ", batch.targets.size(), " targets, ", batch.document_start.size(),
        " document starts");
  const std::int64_t padded = padded_length(batch.length, sharding);
  const RowLayout all = sharding.all_rows(padded), own = sharding.own_rows(padded);
  rows.sequences = batch.sequences;
  rows.length = all.rows();
  const auto count = static_cast<std::size_t>(batch.sequences * all.rows());
  for (auto* values :
       {&rows.tokens, &rows.targets, &rows.positions, &rows.document_start, &rows.reach}) {
    values->resize(count);
  }
  std::size_t i = 0;
  for_each_row(batch.sequences, all, sharding.cp.rank(), [&](auto sequence, auto position) {
    const Row row = row_at(batch, sequence, position);
    rows.tokens[i] = row.token;
    rows.targets[i] = row.target;
    rows.positions[i] = row.position;
    rows.document_start[i] = row.document_start;
    rows.reach[i++] = row.reach();
  });
  rows.own_reach.clear();
  rows.own_reach.reserve(static_cast<std::size_t>(batch.sequences * own.rows()));
  for_each_row(batch.sequences, own, sharding.row_owners().rank(),
               [&](auto sequence, auto position) {
                 rows.own_reach.push_back(row_at(batch, sequence, position).reach());
               });
}

void fill_labels(LabelRows& labels, std::span<const std::int32_t> targets) {
  labels.rows.clear();
  labels.targets.clear();
  for (std::size_t i = 0; i < targets.size(); ++i) {
    if (targets[i] < 0) continue;
    labels.rows.push_back(static_cast<std::int32_t>(i));
    labels.targets.push_back(targets[i]);
  }
  labels.place.assign(targets.size(), static_cast<std::int32_t>(labels.rows.size()));
  for (std::size_t n = 0; n < labels.rows.size(); ++n) {
    labels.place[static_cast<std::size_t>(labels.rows[n])] = static_cast<std::int32_t>(n);
  }
}

}  // namespace convoy
