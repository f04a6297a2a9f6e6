// TrainingData: sample i of a training run, as a function of the data seed and i. Several sources
// may be mixed by weight; each has its own order of samples.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/sample_order.h"
#include "data/sample_source.h"
#include "data/source_mix.h"

namespace convoy {

struct DataSource {
  std::string path;  // or the name of a synthetic task
  double weight = 1;
};

struct TrainingDataOptions {
  std::vector<DataSource> sources;
  std::int64_t seq_len = 0;
  Pack pack = Pack::documents;
  std::uint64_t seed = 0;
};

class TrainingData {
 public:
  // Refuses files with fewer than seq_len + 1 tokens and files of different tokenizers.
  explicit TrainingData(const TrainingDataOptions& options);

  int vocabulary() const { return sources_.front()->vocabulary(); }
  void require_vocabulary(int model_vocabulary) const;  // the model's must be as large at least
  std::int64_t windows_per_epoch() const;               // of all sources together
  // Of all sources; a synthetic task has none.
  std::optional<TokenizerDescription> tokenizer() const { return sources_.front()->tokenizer(); }

  // Fills a row of a batch of seq_len columns. From any thread.
  void fill(Batch& batch, std::int64_t row, std::int64_t sample) const;

  // Unmasked targets of the samples [first, first + count): the divisor of a batch's loss.
  std::int64_t counted_targets(std::int64_t first, std::int64_t count) const;

 private:
  struct Place {
    const SampleSource& source;
    std::int64_t index;
  };
  Place place_of(std::int64_t sample) const;

  std::int64_t seq_len_;
  std::vector<std::unique_ptr<SampleSource>> sources_;
  std::vector<SampleOrder> orders_;  // one per source
  SourceMix mix_;
};

}  // namespace convoy
