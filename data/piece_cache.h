// PieceCache: the tokens of pieces seen before. Text repeats its words, so nearly every piece is
// found here. Shared by threads: the table is split into shards, each under its own lock.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace convoy {

class PieceCache {
 public:
  // Appends the tokens of `piece` to `out`: remembered ones, or those that `encode` returns.
  template <class Encode>
  void append(std::vector<std::int32_t>& out, std::string_view piece, const Encode& encode) {
    Shard& shard = shards_[std::hash<std::string_view>{}(piece) % kShards];
    const std::scoped_lock lock(shard.mutex);
    auto entry = shard.tokens.find(piece);
    if (entry == shard.tokens.end()) {
      if (shard.tokens.size() >= kPiecesPerShard) shard.tokens.clear();
      entry = shard.tokens.emplace(piece, encode(piece)).first;
    }
    out.insert(out.end(), entry->second.begin(), entry->second.end());
  }

 private:
  static constexpr std::size_t kShards = 64;
  static constexpr std::size_t kPiecesPerShard = 1 << 13;

  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const {
      return std::hash<std::string_view>{}(text);
    }
  };
  struct Shard {
    std::mutex mutex;
    std::unordered_map<std::string, std::vector<std::int32_t>, Hash, std::equal_to<>> tokens;
  };
  std::array<Shard, kShards> shards_;
};

}  // namespace convoy
