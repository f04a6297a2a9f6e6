// ValidationData: what a model is judged on, as numbered windows: a token file from end to end, or
// samples of a synthetic task.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "data/batch.h"
#include "data/windows.h"

namespace convoy {

class ValidationData {
 public:
  virtual ~ValidationData() = default;
  virtual std::string name() const = 0;
  virtual int vocabulary() const = 0;
  virtual std::int64_t size() const = 0;  // windows

  // A window past the last fills the row with padding, to complete a batch.
  virtual void fill(Batch& batch, std::int64_t row, std::int64_t window) const = 0;

  struct Counted {
    std::int64_t targets = 0;
    std::int64_t bytes = 0;  // that these targets decode to; end-of-text has none
  };
  virtual Counted counted(std::int64_t window) const = 0;

  // What a reader of the last token alone would get right, where a task knows it.
  virtual std::optional<double> last_token_accuracy() const { return {}; }
};

// A file, or a task such as "mqar:pairs=8,samples=3000".
std::unique_ptr<ValidationData> open_validation(const std::string& source, std::int64_t seq_len,
                                                Pack pack);

}  // namespace convoy
