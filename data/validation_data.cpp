#include "data/validation_data.h"

#include "data/recall_samples.h"
#include "data/validation_windows.h"

namespace convoy {
namespace {

class FileValidation final : public ValidationData {
 public:
  FileValidation(const std::string& path, std::int64_t seq_len, Pack pack)
      : file_(path), windows_(file_, seq_len, pack) {}

  std::string name() const override { return windows_.name(); }
  int vocabulary() const override { return windows_.vocabulary(); }
  std::int64_t size() const override { return windows_.size(); }
  void fill(Batch& batch, std::int64_t row, std::int64_t window) const override {
    windows_.fill(batch, row, window);
  }
  Counted counted(std::int64_t window) const override { return windows_.counted(window); }

 private:
  TokenFile file_;
  ValidationWindows windows_;  // refers to file_
};

}  // namespace

std::unique_ptr<ValidationData> open_validation(const std::string& source, std::int64_t seq_len,
                                                Pack pack) {
  if (is_recall(source)) {
    return std::make_unique<RecallValidation>(RecallTask(parse_recall(source), seq_len));
  }
  return std::make_unique<FileValidation>(source, seq_len, pack);
}

}  // namespace convoy
