#include "data/sample_source.h"

#include "core/error.h"
#include "data/recall_samples.h"

namespace convoy {
namespace {

class FileSamples final : public SampleSource {
 public:
  FileSamples(const std::string& path, std::int64_t seq_len, Pack pack)
      : file_(path), seq_len_(seq_len), pack_(pack) {
    if (samples() >= 1) return;
    throw Error(concat(path, " has ", file_.tokens(), " tokens, fewer than the ", seq_len + 1,
                       " of one window; lower model.seq_len to ", file_.tokens() - 1,
                       " or less, or add text"));
  }

  std::string name() const override { return file_.path(); }
  int vocabulary() const override { return file_.vocabulary(); }
  std::int64_t samples() const override { return (file_.tokens() - 1) / seq_len_; }
  std::optional<TokenizerDescription> tokenizer() const override {
    return file_.tokenizer_description();
  }
  std::string vocabulary_name() const override { return file_.tokenizer_name(); }

  void fill(Batch& batch, std::int64_t row, std::int64_t index) const override {
    fill_window(batch, row, file_, index * seq_len_, pack_);
  }
  std::int64_t counted_targets(std::int64_t index) const override {
    return convoy::counted_targets(file_, index * seq_len_, seq_len_, pack_);
  }

 private:
  TokenFile file_;
  std::int64_t seq_len_;
  Pack pack_;
};

}  // namespace

std::unique_ptr<SampleSource> open_samples(const std::string& source, std::int64_t seq_len,
                                           Pack pack, std::uint64_t seed) {
  if (is_recall(source)) {
    return std::make_unique<RecallSamples>(RecallTask(parse_recall(source), seq_len), seed);
  }
  return std::make_unique<FileSamples>(source, seq_len, pack);
}

}  // namespace convoy
