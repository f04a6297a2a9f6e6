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

void require_same_tokenizer(const TokenFile& first, const TokenFile& other) {
  if (first.tokenizer_description() != other.tokenizer_description())
    throw Error(concat("data.mix joins ", first.path(), " (tokenizer ", first.tokenizer_name(),
                       ") and ", other.path(), " (tokenizer ", other.tokenizer_name(),
                       "), which are not the same tokenizer; prepare one with `--tokenizer ",
                       first.path(), "`"));
}

std::int64_t windows_of(const TokenFile& file, std::int64_t seq_len) {
  const std::int64_t windows = (file.tokens() - 1) / seq_len;
  if (windows < 1)
    throw Error(concat(file.path(), " has ", file.tokens(), " tokens, fewer than the ", seq_len + 1,
                       " of one window; lower model.seq_len to ", file.tokens() - 1,
                       " or less, or add text"));
  return windows;
}

}  // namespace

TrainingData::TrainingData(const TrainingDataOptions& options)
    : seq_len_(options.seq_len),
      pack_(options.pack),
      mix_(weights_of(options.sources), mix64(options.seed)) {
  CHECK(seq_len_ > 0, "seq_len is ", seq_len_);
  for (const DataSource& source : options.sources) {
    const TokenFile& file = files_.emplace_back(source.path);
    if (files_.size() > 1) require_same_tokenizer(files_.front(), file);
    orders_.emplace_back(options.seed + mix64(files_.size()), windows_of(file, seq_len_));
  }
}

void TrainingData::require_vocabulary(int model_vocabulary) const {
  if (vocabulary() > model_vocabulary)
    throw Error(concat(files_.front().path(), " has a vocabulary of ", vocabulary(), " (",
                       files_.front().tokenizer_name(), "), the model one of ", model_vocabulary,
                       "; set model.vocab to ", vocabulary(), " or more"));
}

std::int64_t TrainingData::windows_per_epoch() const {
  std::int64_t windows = 0;
  for (const TokenFile& file : files_) windows += windows_of(file, seq_len_);
  return windows;
}

TrainingData::Place TrainingData::place_of(std::int64_t sample) const {
  const auto [source, index] = mix_.sample(sample);
  const auto s = static_cast<std::size_t>(source);
  return {files_[s], orders_[s].window(index) * seq_len_};
}

void TrainingData::fill(Batch& batch, std::int64_t row, std::int64_t sample) const {
  CHECK(batch.length == seq_len_, "a batch of length ", batch.length, ", not ", seq_len_);
  const Place place = place_of(sample);
  fill_window(batch, row, place.file, place.begin, pack_);
}

std::int64_t TrainingData::counted_targets(std::int64_t first, std::int64_t count) const {
  std::int64_t targets = 0;
  for (std::int64_t sample = first; sample < first + count; ++sample) {
    const Place place = place_of(sample);
    targets += convoy::counted_targets(place.file, place.begin, seq_len_, pack_);
  }
  return targets;
}

}  // namespace convoy
