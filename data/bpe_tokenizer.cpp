#include "data/bpe_tokenizer.h"

#include <filesystem>
#include <queue>

#include "core/error.h"
#include "data/parallel_for.h"
#include "data/ranks_file.h"
#include "data/text_file.h"

namespace convoy {
namespace {

constexpr std::size_t kPiecesPerTask = std::size_t{1} << 16;
constexpr std::size_t kBytesWorthThreads = std::size_t{1} << 20;
constexpr std::size_t kLongestCachedPiece = 64;  // longer ones hardly ever repeat

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
}

}  // namespace

// Merges one piece: its symbols form a linked list, and a heap holds the pairs that may merge.
// n bytes take O(n log n), so that a piece of a megabyte is no trouble.
class PieceMerger {
 public:
  PieceMerger(const BpeTokenizer& owner, std::string_view piece) : owner_(owner) {
    const auto size = static_cast<int>(piece.size());
    for (int i = 0; i < size; ++i) {
      const auto byte = static_cast<unsigned char>(piece[static_cast<std::size_t>(i)]);
      symbols_.push_back({owner.byte_ranks_[byte], i - 1, i + 1 < size ? i + 1 : kNone});
    }
    for (int i = 0; i < size; ++i) propose(i);
  }

  std::vector<std::int32_t> merge() {
    while (!candidates_.empty()) {
      const Candidate best = candidates_.top();
      candidates_.pop();
      if (pair_rank(best.left) == best.rank) join(best.left, best.rank);
    }
    std::vector<std::int32_t> tokens;
    for (int i = 0; i != kNone; i = symbol(i).next) tokens.push_back(symbol(i).token);
    return tokens;
  }

 private:
  static constexpr int kNone = -1;
  struct Symbol {
    std::int32_t token;  // kNone once merged into the symbol before it
    int previous, next;
  };
  struct Candidate {
    std::int32_t rank;
    int left;
    bool operator<(const Candidate& other) const {  // the heap's top is the largest
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };

  Symbol& symbol(int i) { return symbols_[static_cast<std::size_t>(i)]; }

  std::int32_t pair_rank(int left) {
    const Symbol& first = symbol(left);
    if (first.token == kNone || first.next == kNone) return kNone;
    return owner_.rank_of_pair(first.token, symbol(first.next).token);
  }

  void propose(int left) {
    if (const std::int32_t rank = pair_rank(left); rank != kNone) candidates_.push({rank, left});
  }

  void join(int left, std::int32_t token) {
    Symbol& first = symbol(left);
    Symbol& second = symbol(first.next);
    first.token = token;
    second.token = kNone;
    first.next = second.next;
    if (first.next != kNone) symbol(first.next).previous = left;
    if (first.previous != kNone) propose(first.previous);
    propose(left);
  }

  const BpeTokenizer& owner_;
  std::vector<Symbol> symbols_;
  std::priority_queue<Candidate> candidates_;
};

BpeTokenizer::BpeTokenizer(std::vector<std::string> tokens, std::string expression)
    : tokens_(std::move(tokens)),
      pre_tokenizer_(std::move(expression)),
      cache_(std::make_unique<PieceCache>()) {
  for (std::size_t rank = 0; rank < tokens_.size(); ++rank)
    ranks_.emplace(tokens_[rank], static_cast<std::int32_t>(rank));
  for (std::size_t byte = 0; byte < byte_ranks_.size(); ++byte) {
    const auto found = ranks_.find(std::string(1, static_cast<char>(byte)));
    CHECK(found != ranks_.end(), "byte ", byte, " has no token");
    byte_ranks_[byte] = found->second;
  }
  find_pairs();
}

// Every way to cut a token into two tokens is a pair that merges into it.
void BpeTokenizer::find_pairs() {
  for (const auto& [token, rank] : ranks_)
    for (std::size_t cut = 1; cut < token.size(); ++cut) {
      const auto left = ranks_.find(token.substr(0, cut));
      if (left == ranks_.end()) continue;
      const auto right = ranks_.find(token.substr(cut));
      if (right != ranks_.end()) pair_ranks_.emplace(pair_key(left->second, right->second), rank);
    }
}

BpeTokenizer BpeTokenizer::load(const std::string& path) {
  auto tokens = parse_ranks(read_text_file(path), path);
  std::string expression(kDefaultExpression);
  if (std::filesystem::exists(path + ".pattern")) expression = read_text_file(path + ".pattern");
  while (expression.ends_with('\n')) expression.pop_back();
  return BpeTokenizer(std::move(tokens), std::move(expression));
}

void BpeTokenizer::save(const std::string& path) const {
  write_text_file(path + ".pattern", pre_tokenizer_.expression() + '\n');
  write_text_file(path, format_ranks(tokens_));
}

std::string BpeTokenizer::name() const { return concat("bpe:", vocabulary()); }

std::string_view BpeTokenizer::bytes_of(std::int32_t token) const {
  if (token < 0 || token >= end_of_text()) return {};
  return tokens_[static_cast<std::size_t>(token)];
}

TokenizerDescription BpeTokenizer::description() const {
  return {.kind = "bpe",
          .has_end_of_text = true,
          .ranks = format_ranks(tokens_),
          .expression = pre_tokenizer_.expression()};
}

std::int32_t BpeTokenizer::rank_of_pair(std::int32_t left, std::int32_t right) const {
  const auto found = pair_ranks_.find(pair_key(left, right));
  return found == pair_ranks_.end() ? -1 : found->second;
}

void BpeTokenizer::append_piece(std::vector<std::int32_t>& out, std::string_view piece) const {
  const auto merge = [this](std::string_view bytes) { return PieceMerger(*this, bytes).merge(); };
  if (const auto whole = ranks_.find(piece); whole != ranks_.end()) {
    out.push_back(whole->second);
  } else if (piece.size() <= kLongestCachedPiece) {
    cache_->append(out, piece, merge);
  } else {
    const auto tokens = merge(piece);
    out.insert(out.end(), tokens.begin(), tokens.end());
  }
}

std::vector<std::int32_t> BpeTokenizer::encode(std::string_view text) const {
  return encode(text, text.size() < kBytesWorthThreads ? 1 : hardware_threads());
}

std::vector<std::int32_t> BpeTokenizer::encode(std::string_view text, int threads) const {
  const std::vector<std::size_t> ends = pre_tokenizer_.piece_ends(text, threads);
  const std::size_t tasks = (ends.size() + kPiecesPerTask - 1) / kPiecesPerTask;
  std::vector<std::vector<std::int32_t>> parts(tasks);
  parallel_for(static_cast<std::int64_t>(tasks), threads, [&](std::int64_t index) {
    const auto task = static_cast<std::size_t>(index);
    const std::size_t first = task * kPiecesPerTask;
    const std::size_t last = std::min(first + kPiecesPerTask, ends.size());
    for (std::size_t i = first; i < last; ++i) {
      const std::size_t begin = i == 0 ? 0 : ends[i - 1];
      append_piece(parts[task], text.substr(begin, ends[i] - begin));
    }
  });
  std::vector<std::int32_t> tokens;
  for (const auto& part : parts) tokens.insert(tokens.end(), part.begin(), part.end());
  return tokens;
}

}  // namespace convoy
