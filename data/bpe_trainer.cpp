#include "data/bpe_trainer.h"

#include <algorithm>
#include <queue>
#include <unordered_set>

#include "core/error.h"
#include "data/parallel_for.h"
#include "data/piece_counts.h"

namespace convoy {
namespace {

using Token = std::int32_t;

struct Pair {
  Token left;
  Token right;
  auto operator<=>(const Pair&) const = default;
};

struct PairHash {
  std::size_t operator()(const Pair& pair) const {
    const auto key =
        static_cast<std::uint64_t>(pair.left) << 32 | static_cast<unsigned>(pair.right);
    return key * 0x9e3779b97f4a7c15u >> 20;
  }
};

struct Word {
  std::vector<Token> tokens;
  std::int64_t count;
};

struct PairUse {
  std::int64_t count = 0;  // occurrences in the text
  std::vector<int> words;  // every word that holds the pair, and some that did
};

// A pair as it was when it entered the heap; out of date where its count has changed since.
struct Candidate {
  std::int64_t count;
  Pair pair;
  bool operator<(const Candidate& other) const {  // the heap's top is the largest
    return count != other.count ? count < other.count : pair > other.pair;
  }
};

class Trainer {
 public:
  explicit Trainer(std::span<const PieceCount> pieces) {
    for (int byte = 0; byte < 256; ++byte) add_token(std::string(1, static_cast<char>(byte)));
    for (const auto& [piece, count] : pieces) {
      Word word{{}, count};
      for (const char c : piece) word.tokens.push_back(static_cast<unsigned char>(c));
      words_.push_back(std::move(word));
    }
    for (int w = 0; w < std::ssize(words_); ++w) {
      const auto& [tokens, count] = words_[static_cast<std::size_t>(w)];
      for (std::size_t i = 1; i < tokens.size(); ++i) change({tokens[i - 1], tokens[i]}, count, w);
    }
    propose_changed();
  }

  std::vector<std::string> train(std::size_t size) {
    while (tokens_.size() < size && !candidates_.empty()) {
      const Candidate best = candidates_.top();
      candidates_.pop();
      const auto use = pairs_.find(best.pair);
      if (use == pairs_.end() || use->second.count != best.count) continue;
      merge(best.pair, token_of(best.pair));
    }
    return std::move(tokens_);
  }

 private:
  Token add_token(std::string bytes) {
    const auto id = static_cast<Token>(tokens_.size());
    ids_.emplace(bytes, id);
    tokens_.push_back(std::move(bytes));
    return id;
  }

  Token token_of(const Pair& pair) {
    std::string bytes = tokens_[static_cast<std::size_t>(pair.left)] +
                        tokens_[static_cast<std::size_t>(pair.right)];
    const auto known = ids_.find(bytes);
    return known != ids_.end() ? known->second : add_token(std::move(bytes));
  }

  void change(const Pair& pair, std::int64_t difference, int w) {
    PairUse& use = pairs_[pair];
    use.count += difference;
    if (difference > 0 && (use.words.empty() || use.words.back() != w)) use.words.push_back(w);
    changed_.insert(pair);
  }

  void merge(const Pair& pair, Token token) {
    const std::vector<int> holders = std::move(pairs_[pair].words);
    for (const int w : holders) merge_word(w, pair, token);
    pairs_.erase(pair);
    changed_.erase(pair);
    propose_changed();
  }

  // Only the pairs beside a merge change; before it stand tokens that are merged already.
  void merge_word(int w, const Pair& pair, Token token) {
    auto& [tokens, count] = words_[static_cast<std::size_t>(w)];
    std::size_t out = 0;
    for (std::size_t i = 0; i < tokens.size(); ++i, ++out) {
      tokens[out] = tokens[i];
      if (i + 1 == tokens.size() || Pair{tokens[i], tokens[i + 1]} != pair) continue;
      tokens[out] = token;
      ++i;
      if (out > 0) {
        change({tokens[out - 1], pair.left}, -count, w);
        change({tokens[out - 1], token}, +count, w);
      }
      if (i + 1 < tokens.size()) {
        change({pair.right, tokens[i + 1]}, -count, w);
        change({token, tokens[i + 1]}, +count, w);
      }
    }
    tokens.resize(out);
  }

  void propose_changed() {
    for (const Pair& pair : changed_)
      if (const auto use = pairs_.find(pair); use != pairs_.end() && use->second.count > 0)
        candidates_.push({use->second.count, pair});
    changed_.clear();
  }

  std::vector<std::string> tokens_;
  std::unordered_map<std::string, Token> ids_;
  std::vector<Word> words_;
  std::unordered_map<Pair, PairUse, PairHash> pairs_;
  std::unordered_set<Pair, PairHash> changed_;
  std::priority_queue<Candidate> candidates_;
};

}  // namespace

BpeTokenizer train_bpe(std::span<const std::string_view> documents,
                       const BpeTrainingOptions& options) {
  constexpr int kSmallest = 257;
  if (options.vocabulary < kSmallest)
    throw Error(concat("a BPE vocabulary of ", options.vocabulary, " is too small: 256 bytes and ",
                       "end-of-text need ", kSmallest));
  const PreTokenizer pre_tokenizer(options.expression);
  const int threads = options.threads > 0 ? options.threads : hardware_threads();
  const auto pieces = count_pieces(pre_tokenizer, documents, threads);
  const auto wanted = static_cast<std::size_t>(options.vocabulary) - 1;
  std::vector<std::string> tokens = Trainer(pieces).train(wanted);
  if (tokens.size() < wanted)
    throw Error(concat("the text gives a BPE vocabulary of ", tokens.size() + 1, " at most, not ",
                       options.vocabulary, "; ask for that or train on more text"));
  return BpeTokenizer(std::move(tokens), options.expression);
}

}  // namespace convoy
