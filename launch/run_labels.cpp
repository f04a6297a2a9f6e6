#include "launch/run_labels.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "data/recall_task.h"

namespace convoy {
namespace {

// A task that cannot be read is one of the configuration's problems, told with all the others;
// until then it counts like a file.
std::int64_t labels_of(const std::string& source, std::int64_t seq_len) {
  if (!is_recall(source)) return seq_len;
  try {
    return std::min(parse_recall(source).pairs, seq_len);
  } catch (const Error&) {
    return seq_len;
  }
}

}  // namespace

std::int64_t labels_of_window(const RunConfig& config) {
  const std::int64_t seq_len = config.model.seq_len;
  std::int64_t most = config.data.train.empty() ? seq_len : 0;
  for (const auto& source : config.data.train) most = std::max(most, labels_of(source, seq_len));
  if (!config.data.val.empty()) most = std::max(most, labels_of(config.data.val, seq_len));
  return most;
}

double labelled_share(const RunConfig& config) {
  const auto& [train, val, mix, pack, seed] = config.data;
  const std::int64_t seq_len = config.model.seq_len;
  if (labels_of_window(config) == seq_len) return 1;
  double labels = 0, weights = 0;
  for (std::size_t i = 0; i < train.size(); ++i) {
    const double weight = i < mix.size() ? mix[i] : 1;
    labels += weight * static_cast<double>(labels_of(train[i], seq_len));
    weights += weight;
  }
  return labels / weights / static_cast<double>(seq_len);
}

FlopParts training_flops_per_token(const RunConfig& config) {
  return training_flops_per_token(config.model, labelled_share(config));
}

double training_flops_per_token(const RunConfig& config, const std::string& convention) {
  return training_flops_per_token(config.model, convention, labelled_share(config));
}

}  // namespace convoy
