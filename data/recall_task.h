// RecallTask: associative recall, the synthetic task that separates mixers of tokens. A sample
// shows K pairs of a key and a value, then asks for some of the keys again among fillers; the label
// at the end of a repeated key is its value, and no other position counts.
//
// Keys of one token (multi-query associative recall, arXiv 2312.04927): keys and values are drawn
// from two halves of the vocabulary; key i is asked for at 2K + 2 slot_i, slots drawn without
// replacement with weight (slot + 1)^(alpha - 1), alpha = 0.01.
// Keys of variable length: 1 to 4 tokens of an alphabet of K, none a prefix of another, so that no
// single token identifies a key; pairs and queries come in random order.
//
// A sample is a function of (stream, index) alone.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/random.h"

namespace convoy {

enum class RecallKeys : std::uint8_t { single, variable };

// What a configuration says: "mqar:pairs=8,keys=variable,samples=3000".
struct RecallSettings {
  std::int64_t pairs = 0;  // K
  RecallKeys keys = RecallKeys::single;
  std::int64_t samples = 100'000;  // distinct ones; then they repeat in another order
  std::int64_t vocabulary = 8192;  // V; token 0 is the filler, values are V/2 .. V-1
};

// Whether the name of a data source means this task rather than a file.
bool is_recall(std::string_view source);
RecallSettings parse_recall(std::string_view source);

class RecallTask {
 public:
  // Refuses a length or vocabulary that cannot hold K pairs.
  RecallTask(const RecallSettings& settings, std::int64_t length);

  const RecallSettings& settings() const { return settings_; }
  std::int64_t length() const { return length_; }

  // tokens, targets [length]; targets are -1 where nothing is asked.
  void fill(std::span<std::int32_t> tokens, std::span<std::int32_t> targets,
            const RandomStream& stream, std::int64_t index) const;

 private:
  RecallSettings settings_;
  std::int64_t length_;
  std::vector<double> slot_rates_;  // of exponential clocks: the weights of the slots
};

// How often a reader that sees only the last token of a repeated key is right: it guesses among the
// sample's keys that end with that token. `right` of `asked` positions.
struct LastTokenOracle {
  double right = 0;
  std::int64_t asked = 0;
};
LastTokenOracle last_token_oracle(std::span<const std::int32_t> tokens,
                                  std::span<const std::int32_t> targets, std::int64_t vocabulary);

}  // namespace convoy
