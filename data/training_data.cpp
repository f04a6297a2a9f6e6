#include "data/training_data.h"

#include "core/error.h"
#include "core/random.h"

namespace convoy {
namespace {

std::vector<double> weights_of(const std::vector<DataSource>& sources) {
  if (sources.empty()) throw Error("there is no training data; set data.train or data.mix");
  std::vector<double> weights;
  for (const DataSource& source : sources) weights.push_back(source.weight);
  return weights;
}

void require_same_tokenizer(const SampleSource& first, const SampleSource& other) {
  if (first.tokenizer() == other.tokenizer() && first.vocabulary() == other.vocabulary()) return;
  throw Error(concat("data.mix joins ", first.name(), " (tokenizer ", first.vocabulary_name(),
                     ") and ", other.name(), " (tokenizer ", other.vocabulary_name(),
                     "), which are not the same tokenizer; prepare one with `--tokenizer ",
                     first.name(), "`"));
}

}  // namespace

TrainingData::TrainingData(const TrainingDataOptions& options)
    : seq_len_(options.seq_len), mix_(weights_of(options.sources), mix64(options.seed)) {
  CHECK(seq_len_ > 0, "seq_len is ", seq_len_);
  for (const DataSource& source : options.sources) {
    const std::uint64_t seed = options.seed + mix64(sources_.size() + 1);
    sources_.push_back(open_samples(source.path, seq_len_, options.pack, seed));
    require_same_tokenizer(*sources_.front(), *sources_.back());
    orders_.emplace_back(seed, sources_.back()->samples());
  }
}

void TrainingData::require_vocabulary(int model_vocabulary) const {
  if (vocabulary() > model_vocabulary)
    throw Error(concat(sources_.front()->name(), " has a vocabulary of ", vocabulary(), " (",
                       sources_.front()->vocabulary_name(), "), the model one of ",
                       model_vocabulary, "; set model.vocab to ", vocabulary(), " or more"));
}

std::int64_t TrainingData::windows_per_epoch() const {
  std::int64_t windows = 0;
  for (const auto& source : sources_) windows += source->samples();
  return windows;
}

TrainingData::Place TrainingData::place_of(std::int64_t sample) const {
  const auto [source, index] = mix_.sample(sample);
  const auto s = static_cast<std::size_t>(source);
  return {*sources_[s], orders_[s].window(index)};
}

void TrainingData::fill(Batch& batch, std::int64_t row, std::int64_t sample) const {
  CHECK(batch.length == seq_len_, "a batch of length ", batch.length, ", not ", seq_len_);
  const Place place = place_of(sample);
  place.source.fill(batch, row, place.index);
}

std::int64_t TrainingData::counted_targets(std::int64_t first, std::int64_t count) const {
  std::int64_t targets = 0;
  for (std::int64_t sample = first; sample < first + count; ++sample) {
    const Place place = place_of(sample);
    targets += place.source.counted_targets(place.index);
  }
  return targets;
}

}  // namespace convoy
