#include "data/recall_task.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <numeric>

#include "core/error.h"

namespace convoy {
namespace {

constexpr std::string_view kPrefix = "mqar:";
constexpr double kAlpha = 0.01;
constexpr std::int64_t kLongestKey = 4;

using Tokens = std::vector<std::int32_t>;

// The random numbers of one sample, drawn in turn.
class Draws {
 public:
  Draws(const RandomStream& stream, std::int64_t sample)
      : stream_(stream), next_(static_cast<std::uint64_t>(sample) << 32) {}

  double uniform() { return stream_.uniform(next_++); }  // [0, 1)
  std::int64_t below(std::int64_t n) {
    return static_cast<std::int64_t>(uniform() * static_cast<double>(n));
  }
  double exponential(double rate) { return -std::log1p(-uniform()) / rate; }

  template <class T>
  void shuffle(std::vector<T>& values) {  // Fisher and Yates
    for (std::int64_t i = std::ssize(values) - 1; i > 0; --i) {
      std::swap(values[static_cast<std::size_t>(i)],
                values[static_cast<std::size_t>(below(i + 1))]);
    }
  }

 private:
  const RandomStream& stream_;
  std::uint64_t next_;
};

// `count` distinct tokens of [first, first + range), in the order drawn.
Tokens distinct(Draws& draws, std::int64_t count, std::int64_t first, std::int64_t range) {
  Tokens tokens;
  while (std::ssize(tokens) < count) {
    const auto token = static_cast<std::int32_t>(first + draws.below(range));
    if (std::find(tokens.begin(), tokens.end(), token) == tokens.end()) tokens.push_back(token);
  }
  return tokens;
}

// `count` slots without replacement, by weight, in the order drawn: the order in which exponential
// clocks of those rates ring.
std::vector<std::int64_t> weighted_slots(Draws& draws, std::int64_t count,
                                         const std::vector<double>& rates) {
  std::vector<std::pair<double, std::int64_t>> rings;
  for (std::int64_t slot = 0; slot < std::ssize(rates); ++slot) {
    rings.emplace_back(draws.exponential(rates[static_cast<std::size_t>(slot)]), slot);
  }
  std::partial_sort(rings.begin(), rings.begin() + count, rings.end());
  std::vector<std::int64_t> slots;
  for (std::int64_t i = 0; i < count; ++i) {
    slots.push_back(rings[static_cast<std::size_t>(i)].second);
  }
  return slots;
}

// The shorter of two is never longer than the other here: keys are made shortest first.
bool starts_one(const std::vector<Tokens>& keys, const Tokens& key) {
  return std::any_of(keys.begin(), keys.end(), [&](const Tokens& other) {
    return std::equal(other.begin(), other.end(), key.begin());
  });
}

// K keys of 1 to 4 tokens 1..K, none a prefix of another, that leave room for themselves twice, the
// values and a filler before each query. There is always one more key: the ones before it, at most
// K - 1, start at most (K - 1) / K of all sequences.
std::vector<Tokens> variable_keys(Draws& draws, std::int64_t count, std::int64_t length) {
  std::vector<std::int64_t> lengths(static_cast<std::size_t>(count));
  do {
    for (auto& size : lengths) size = 1 + draws.below(kLongestKey);
  } while (2 * std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0}) + 2 * count >
           length);
  std::sort(lengths.begin(), lengths.end());
  std::vector<Tokens> keys;
  for (const std::int64_t size : lengths) {
    Tokens key(static_cast<std::size_t>(size));
    do {
      for (auto& token : key) token = static_cast<std::int32_t>(1 + draws.below(count));
    } while (starts_one(keys, key));
    keys.push_back(key);
  }
  return keys;
}

// `total` in `parts` shares of 0 or more, cut at random places.
std::vector<std::int64_t> random_shares(Draws& draws, std::int64_t total, std::int64_t parts) {
  std::vector<std::int64_t> cuts = {0, total};
  for (std::int64_t i = 1; i < parts; ++i) cuts.push_back(draws.below(total + 1));
  std::sort(cuts.begin(), cuts.end());
  std::vector<std::int64_t> shares;
  for (std::size_t i = 1; i < cuts.size(); ++i) shares.push_back(cuts[i] - cuts[i - 1]);
  return shares;
}

// Writes pairs and queries one after the other into a row of fillers.
class SampleWriter {
 public:
  SampleWriter(std::span<std::int32_t> tokens, std::span<std::int32_t> targets)
      : tokens_(tokens), targets_(targets) {}

  void pair(const Tokens& key, std::int32_t value) {
    write(key);
    tokens_[at_++] = value;
  }
  void query(std::int64_t fillers, const Tokens& key, std::int32_t value) {
    at_ += static_cast<std::size_t>(fillers);
    write(key);
    targets_[at_ - 1] = value;
  }
  std::int64_t written() const { return static_cast<std::int64_t>(at_); }
  std::int64_t left() const { return std::ssize(tokens_) - written(); }

 private:
  void write(const Tokens& key) {
    for (const std::int32_t token : key) tokens_[at_++] = token;
  }

  std::span<std::int32_t> tokens_, targets_;
  std::size_t at_ = 0;
};

// Key i is asked for in slot i of two positions each, counted from the end of the pairs.
void write_single(SampleWriter sample, const Tokens& keys, const Tokens& values,
                  const std::vector<std::int64_t>& slots) {
  for (std::size_t i = 0; i < keys.size(); ++i) sample.pair({keys[i]}, values[i]);
  const std::int64_t first = sample.written();
  std::vector<std::size_t> order(slots.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](auto a, auto b) { return slots[a] < slots[b]; });
  for (const std::size_t i : order) {
    sample.query(first + 2 * slots[i] - sample.written(), {keys[i]}, values[i]);
  }
}

// Pairs, then queries, each in a random order; the fillers that are left are split at random over
// the gaps before the queries.
void write_variable(SampleWriter sample, const std::vector<Tokens>& keys, const Tokens& values,
                    Draws& draws) {
  std::vector<std::size_t> order(keys.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  draws.shuffle(order);
  std::int64_t asked = 0;  // tokens of all queries
  for (const std::size_t i : order) {
    sample.pair(keys[i], values[i]);
    asked += std::ssize(keys[i]);
  }
  const auto count = std::ssize(keys);
  const auto gaps = random_shares(draws, sample.left() - asked - count, count);
  draws.shuffle(order);
  for (std::size_t i = 0; i < order.size(); ++i) {
    sample.query(1 + gaps[i], keys[order[i]], values[order[i]]);
  }
}

std::int64_t number_of(std::string_view text, std::string_view source) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 1) {
    throw Error(concat("the data source \"", source, "\" has \"", text,
                       "\", which is not a whole number of 1 or more"));
  }
  return value;
}

}  // namespace

bool is_recall(std::string_view source) { return source.starts_with(kPrefix); }

RecallSettings parse_recall(std::string_view source) {
  CHECK(is_recall(source), "not a recall task: ", source);
  RecallSettings settings;
  std::string_view rest = source.substr(kPrefix.size());
  while (!rest.empty()) {
    const std::string_view part = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(part.size() + 1, rest.size()));
    const auto equals = part.find('=');
    const std::string_view key = part.substr(0, equals);
    const std::string_view value =
        equals == std::string_view::npos ? std::string_view() : part.substr(equals + 1);
    if (key == "pairs") {
      settings.pairs = number_of(value, source);
    } else if (key == "samples") {
      settings.samples = number_of(value, source);
    } else if (key == "vocab") {
      settings.vocabulary = number_of(value, source);
    } else if (key == "keys" && (value == "single" || value == "variable")) {
      settings.keys = value == "single" ? RecallKeys::single : RecallKeys::variable;
    } else {
      throw Error(concat("the data source \"", source, "\" has \"", part,
                         "\"; it takes pairs=K, keys=single or keys=variable, samples=N, vocab=V"));
    }
  }
  if (settings.pairs < 1) {
    throw Error(concat("the data source \"", source,
                       "\" lacks pairs=K, how many keys a sample "
                       "has; write for example mqar:pairs=8"));
  }
  return settings;
}

RecallTask::RecallTask(const RecallSettings& settings, std::int64_t length)
    : settings_(settings), length_(length) {
  const std::int64_t k = settings.pairs, half = settings.vocabulary / 2;
  if (half - 1 < k) {
    throw Error(concat("associative recall of ", k, " pairs needs a vocabulary of ", 2 * k + 2,
                       " or more, half of it for values; it has ", settings.vocabulary,
                       ": raise vocab or lower pairs"));
  }
  // Variable keys have 2.5 tokens on average and stand in a sample twice; lengths are drawn again
  // until they fit, which must not take forever.
  const bool variable = settings.keys == RecallKeys::variable;
  const std::int64_t least = (variable ? 7 : 4) * k;
  if (length < least) {
    throw Error(concat("associative recall of ", k, " pairs", variable ? " with variable keys" : "",
                       " needs ", least, " = ", variable ? 7 : 4, " x ", k,
                       " positions or more, and model.seq_len is ", length,
                       "; raise it or lower pairs"));
  }
  for (std::int64_t slot = 0; slot < (length - 2 * k) / 2; ++slot) {
    slot_rates_.push_back(std::pow(static_cast<double>(slot + 1), kAlpha - 1));
  }
}

void RecallTask::fill(std::span<std::int32_t> tokens, std::span<std::int32_t> targets,
                      const RandomStream& stream, std::int64_t index) const {
  CHECK(std::ssize(tokens) == length_ && std::ssize(targets) == length_, "a row of ", tokens.size(),
        " for a sample of ", length_);
  std::fill(tokens.begin(), tokens.end(), 0);
  std::fill(targets.begin(), targets.end(), -1);
  Draws draws(stream, index);
  const SampleWriter sample(tokens, targets);
  const std::int64_t half = settings_.vocabulary / 2;
  const Tokens values = distinct(draws, settings_.pairs, half, settings_.vocabulary - half);
  if (settings_.keys == RecallKeys::single) {
    const Tokens keys = distinct(draws, settings_.pairs, 1, half - 1);
    write_single(sample, keys, values, weighted_slots(draws, settings_.pairs, slot_rates_));
  } else {
    write_variable(sample, variable_keys(draws, settings_.pairs, length_), values, draws);
  }
}

LastTokenOracle last_token_oracle(std::span<const std::int32_t> tokens,
                                  std::span<const std::int32_t> targets, std::int64_t vocabulary) {
  std::map<std::int32_t, int> keys_ending_with;
  for (std::size_t i = 1; i < tokens.size(); ++i) {
    if (tokens[i] >= vocabulary / 2) ++keys_ending_with[tokens[i - 1]];  // a value follows its key
  }
  LastTokenOracle oracle;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (targets[i] < 0) continue;
    oracle.right += 1.0 / keys_ending_with.at(tokens[i]);
    ++oracle.asked;
  }
  return oracle;
}

}  // namespace convoy
