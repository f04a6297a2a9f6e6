#include "experiments/manifest/data_facts.h"

#include <filesystem>

#include "core/error.h"
#include "core/hdf5.h"
#include "data/recall_task.h"

namespace convoy {

std::optional<DataFacts> data_facts(const std::string& path) {
  if (is_recall(path)) return DataFacts{0, path};
  if (!std::filesystem::exists(path)) return {};
  const Hdf5File file(path, Hdf5File::Mode::read);
  DataFacts facts;
  facts.tokens = file.info("tokens").elements();
  facts.fingerprint = concat(file.string_attribute("/", "tokenizer"), ' ', facts.tokens, ' ',
                             file.string_attribute("/", "source_sha256"));
  return facts;
}

std::optional<double> distinct_tokens(const std::vector<std::string>& files, std::int64_t seq_len) {
  std::int64_t windows = 0;
  for (const auto& path : files) {
    if (is_recall(path)) {
      windows += parse_recall(path).samples;
      continue;
    }
    const auto facts = data_facts(path);
    if (!facts) return {};
    windows += std::max<std::int64_t>(facts->tokens - 1, 0) / seq_len;
  }
  return static_cast<double>(windows * seq_len);
}

}  // namespace convoy
