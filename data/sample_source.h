// SampleSource: numbered training samples, each a function of its number alone: the windows of a
// token file, or a synthetic task.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "data/batch.h"
#include "data/tokenizer.h"
#include "data/windows.h"

namespace convoy {

class SampleSource {
 public:
  virtual ~SampleSource() = default;
  virtual std::string name() const = 0;  // the file, or the task as a configuration names it
  virtual int vocabulary() const = 0;
  virtual std::int64_t samples() const = 0;  // distinct ones: an epoch
  // The tokenizer whose ids these are; a synthetic task has none.
  virtual std::optional<TokenizerDescription> tokenizer() const = 0;
  virtual std::string vocabulary_name() const = 0;  // for messages

  // Fills a row of a batch of seq_len columns with sample `index` of [0, samples()). Any thread.
  virtual void fill(Batch& batch, std::int64_t row, std::int64_t index) const = 0;
  virtual std::int64_t counted_targets(std::int64_t index) const = 0;  // reads no token
};

// A file, or a task such as "mqar:pairs=8", whose samples are drawn from `seed`. Refuses a file of
// fewer than seq_len + 1 tokens.
std::unique_ptr<SampleSource> open_samples(const std::string& source, std::int64_t seq_len,
                                           Pack pack, std::uint64_t seed);

}  // namespace convoy
