#include "models/row_gather.h"

#include <algorithm>

namespace convoy {

RowGather::RowGather(const Context& context, const Sharding& sharding, const BatchView& batch,
                     Tensor all, Tensor own)
    : context_(context),
      sharding_(sharding),
      own_rows_(batch.own_rows()),
      part_(own_rows_ / (batch.sequences * sharding.segments())),
      all_(all) {
  if (!sharding.splits_rows()) {
    own_ = {{0, all.rows(), 0}};
    return;
  }
  post(own);
  place(own_, sharding_.tp.rank(), 0, own);
}

void RowGather::post(Tensor own) {
  const std::int64_t count = std::clamp<std::int64_t>(own_rows_ / sharding_.gather.least_rows, 1,
                                                      sharding_.gather.most_chunks);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t begin = i * own_rows_ / count, end = (i + 1) * own_rows_ / count;
    Chunk chunk{
        begin, end - begin, context_.take({sharding_.tp.size() * (end - begin), own.cols()}), {}};
    chunk.work = sharding_.tp.all_gather(chunk.gathered, own.row_range(begin, chunk.count));
    if (sharding_.overlap == Overlap::no) chunk.work.wait();
    chunks_.push_back(std::move(chunk));
  }
}

void RowGather::place(Runs& runs, int rank, std::int64_t begin, Tensor rows) const {
  for (std::int64_t done = 0; done < rows.rows();) {
    const std::int64_t row = begin + done, within = row % part_;
    const std::int64_t segment_begin = row / part_ * part_ * sharding_.tp.size();
    const std::int64_t count = std::min(part_ - within, rows.rows() - done);
    const Run run{segment_begin + rank * part_ + within, count, segment_begin};
    ops::copy(context_, run.of(all_), rows.row_range(done, count));
    runs.push_back(run);
    done += count;
  }
}

RowGather::Runs RowGather::next() {
  const std::size_t turn = turn_++;
  if (turn == 0) return own_;
  if (turn > chunks_.size()) return {};
  Chunk& chunk = chunks_[turn - 1];
  chunk.work.wait();
  Runs arrived;
  for (int rank = 0; rank < sharding_.tp.size(); ++rank) {
    if (rank == sharding_.tp.rank()) continue;
    place(arrived, rank, chunk.begin, chunk.gathered.row_range(rank * chunk.count, chunk.count));
  }
  sharding_.tp.progress();
  return arrived;
}

}  // namespace convoy
