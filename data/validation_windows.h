// ValidationWindows: a whole token file as windows that do not overlap, the last one shorter and
// padded. Bits per byte = nats of the counted targets / ln 2 / their bytes.
#pragma once

#include <cstdint>

#include "data/windows.h"

namespace convoy {

class ValidationWindows {
 public:
  // `file` must outlive this. Refuses a file of fewer than two tokens.
  ValidationWindows(const TokenFile& file, std::int64_t seq_len, Pack pack);

  std::int64_t size() const { return (file_.tokens() - 2) / seq_len_ + 1; }

  // A window past the last fills the row with padding, to complete a batch.
  void fill(Batch& batch, std::int64_t row, std::int64_t window) const;

  struct Counted {
    std::int64_t targets = 0;
    std::int64_t bytes = 0;  // that these targets decode to; end-of-text has none
  };
  Counted counted(std::int64_t window) const;

 private:
  const TokenFile& file_;
  std::int64_t seq_len_;
  Pack pack_;
};

}  // namespace convoy
