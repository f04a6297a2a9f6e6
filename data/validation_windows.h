// ValidationWindows: a whole token file as windows that do not overlap, the last one shorter and
// padded. Bits per byte = nats of the counted targets / ln 2 / their bytes.
#pragma once

#include <cstdint>

#include "data/validation_data.h"

namespace convoy {

class ValidationWindows final : public ValidationData {
 public:
  // `file` must outlive this. Refuses a file of fewer than two tokens.
  ValidationWindows(const TokenFile& file, std::int64_t seq_len, Pack pack);

  std::string name() const override { return file_.path(); }
  int vocabulary() const override { return file_.vocabulary(); }
  std::int64_t size() const override { return (file_.tokens() - 2) / seq_len_ + 1; }

  void fill(Batch& batch, std::int64_t row, std::int64_t window) const override;
  Counted counted(std::int64_t window) const override;

 private:
  const TokenFile& file_;
  std::int64_t seq_len_;
  Pack pack_;
};

}  // namespace convoy
