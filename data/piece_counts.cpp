#include "data/piece_counts.h"

#include <algorithm>
#include <mutex>
#include <unordered_map>

#include "data/parallel_for.h"

namespace convoy {
namespace {

using Counts = std::unordered_map<std::string_view, std::int64_t>;

constexpr std::size_t kPiecesPerTask = std::size_t{1} << 17;

void count(Counts& counts, std::string_view piece) {
  for (; piece.size() > kLongestCountedPiece; piece.remove_prefix(kLongestCountedPiece))
    ++counts[piece.substr(0, kLongestCountedPiece)];
  ++counts[piece];
}

Counts count_document(const PreTokenizer& pre_tokenizer, std::string_view text, int threads) {
  const std::vector<std::size_t> ends = pre_tokenizer.piece_ends(text, threads);
  Counts total;
  std::mutex total_mutex;
  const std::size_t tasks = (ends.size() + kPiecesPerTask - 1) / kPiecesPerTask;
  parallel_for(static_cast<std::int64_t>(tasks), threads, [&](std::int64_t task) {
    const std::size_t first = static_cast<std::size_t>(task) * kPiecesPerTask;
    const std::size_t last = std::min(first + kPiecesPerTask, ends.size());
    Counts counts;
    for (std::size_t i = first; i < last; ++i) {
      const std::size_t begin = i == 0 ? 0 : ends[i - 1];
      count(counts, text.substr(begin, ends[i] - begin));
    }
    const std::scoped_lock lock(total_mutex);
    for (const auto& [piece, times] : counts) total[piece] += times;
  });
  return total;
}

}  // namespace

std::vector<PieceCount> count_pieces(const PreTokenizer& pre_tokenizer,
                                     std::span<const std::string_view> documents, int threads) {
  Counts total;
  for (const std::string_view document : documents)
    for (const auto& [piece, times] : count_document(pre_tokenizer, document, threads))
      total[piece] += times;
  std::vector<PieceCount> sorted(total.begin(), total.end());
  std::sort(sorted.begin(), sorted.end());
  return sorted;
}

}  // namespace convoy
