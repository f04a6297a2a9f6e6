// What a plan needs to know of training data: of a token file without reading its tokens, of a
// synthetic task from its name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace convoy {

struct DataFacts {
  std::int64_t tokens = 0;  // of a file
  std::string fingerprint;  // of the source text and how it was made into tokens
};

// Nothing where the file is not there (yet).
std::optional<DataFacts> data_facts(const std::string& path);

// Tokens that windows of `seq_len` can train on without repeating one, over all files; nothing
// where one of them is missing.
std::optional<double> distinct_tokens(const std::vector<std::string>& files, std::int64_t seq_len);

}  // namespace convoy
