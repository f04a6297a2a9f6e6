// Associative recall as training samples and as validation data. The two never share a sample: they
// are drawn from different streams.
#pragma once

#include "data/recall_task.h"
#include "data/sample_source.h"
#include "data/validation_data.h"

namespace convoy {

class RecallSamples final : public SampleSource {
 public:
  RecallSamples(RecallTask task, std::uint64_t seed);

  std::string name() const override;
  int vocabulary() const override { return static_cast<int>(task_.settings().vocabulary); }
  std::int64_t samples() const override { return task_.settings().samples; }
  std::optional<TokenizerDescription> tokenizer() const override { return {}; }
  std::string vocabulary_name() const override { return "associative recall"; }
  void fill(Batch& batch, std::int64_t row, std::int64_t index) const override;
  std::int64_t counted_targets(std::int64_t) const override { return task_.settings().pairs; }

 private:
  RecallTask task_;
  RandomStream stream_;
};

// The same samples for every run, whatever its seed.
class RecallValidation final : public ValidationData {
 public:
  explicit RecallValidation(RecallTask task);

  std::string name() const override { return "associative recall"; }
  int vocabulary() const override { return static_cast<int>(task_.settings().vocabulary); }
  std::int64_t size() const override { return task_.settings().samples; }
  void fill(Batch& batch, std::int64_t row, std::int64_t window) const override;
  Counted counted(std::int64_t) const override { return {task_.settings().pairs, 0}; }
  // Of variable keys; a key of one token is its last one.
  std::optional<double> last_token_accuracy() const override { return last_token_accuracy_; }

 private:
  RecallTask task_;
  RandomStream stream_;
  std::optional<double> last_token_accuracy_;
};

}  // namespace convoy
