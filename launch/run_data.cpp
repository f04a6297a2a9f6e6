#include "launch/run_data.h"

namespace convoy {

TrainingDataOptions training_data_of(const RunConfig& config) {
  TrainingDataOptions options;
  for (std::size_t i = 0; i < config.data.train.size(); ++i) {
    options.sources.push_back(
        {config.data.train[i], config.data.mix.empty() ? 1.0 : config.data.mix[i]});
  }
  options.seq_len = config.model.seq_len;
  options.pack = parse_pack(config.data.pack);
  options.seed = static_cast<std::uint64_t>(config.data.seed);
  return options;
}

}  // namespace convoy
