// prepare: text files to one token file. A document is an input file, or, with a separator, the
// text between two separator bytes; empty documents are dropped.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/byte_tokenizer.h"

namespace convoy {

struct PrepareProgress {
  std::int64_t bytes_done = 0;
  std::int64_t bytes_total = 0;
};

struct PrepareOptions {
  std::vector<std::string> inputs = {};
  std::string tokenizer = "bytes";  // bytes, bpe:N (trained on the inputs) or a file
  std::string output = {};
  std::optional<char> separator = {};
  EndOfText end_of_text = EndOfText::yes;  // whether one closes each document
  std::function<void(const PrepareProgress&)> on_progress = {};
};

struct PrepareReport {
  std::int64_t documents = 0;
  std::int64_t tokens = 0;
  std::int64_t bytes = 0;  // of text, separators not counted
  int vocabulary = 0;
  std::string tokenizer;
  std::string source_sha256;  // of the input files in a row
};

// Reads all inputs into memory. On an Error the output is as it was before.
PrepareReport prepare(const PrepareOptions& options);

// One byte, given as itself or as a number: "|", "0x1E", "30".
char parse_separator(std::string_view text);

}  // namespace convoy
