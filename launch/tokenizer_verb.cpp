#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/error.h"
#include "data/bpe_trainer.h"
#include "data/tokenizer_choice.h"
#include "launch/files.h"
#include "launch/verbs.h"

namespace convoy {
namespace {

struct TokenizerArguments {
  std::vector<std::string> inputs;
  std::string tokenizer = "bytes", output, text;
  int vocabulary = 8192;
  bool json = false;
};

std::string read_input(const TokenizerArguments& arguments) {
  if (!arguments.text.empty()) return arguments.text;
  if (!arguments.inputs.empty()) return read_text(arguments.inputs.front());
  return {std::istreambuf_iterator<char>(std::cin), {}};
}

std::unique_ptr<Tokenizer> load(const TokenizerArguments& arguments) {
  return choose_tokenizer(arguments.tokenizer, {});
}

void train(const TokenizerArguments& arguments) {
  std::vector<std::string> texts;
  for (const auto& input : arguments.inputs) texts.push_back(read_text(input));
  const std::vector<std::string_view> documents(texts.begin(), texts.end());
  const BpeTokenizer tokenizer = train_bpe(documents, {.vocabulary = arguments.vocabulary});
  tokenizer.save(arguments.output);
  fmt::print("{}: {}, vocabulary {} with end-of-text\n", arguments.output, tokenizer.name(),
             tokenizer.vocabulary());
}

void encode(const TokenizerArguments& arguments) {
  const auto tokens = load(arguments)->encode(read_input(arguments));
  if (arguments.json) return fmt::print("{}\n", nlohmann::json(tokens).dump());
  for (const std::int32_t token : tokens) fmt::print("{}\n", token);
}

void decode(const TokenizerArguments& arguments) {
  const auto tokenizer = load(arguments);
  std::istringstream input(read_input(arguments));
  std::vector<std::int32_t> tokens;
  for (std::string word; input >> word;) {
    std::int32_t token = -1;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), token);
    if (error != std::errc() || end != word.data() + word.size() || token < 0 ||
        token >= tokenizer->vocabulary()) {
      throw Error("'" + word + "' is not a token id below " +
                  std::to_string(tokenizer->vocabulary()));
    }
    tokens.push_back(token);
  }
  const std::string text = tokenizer->decode(tokens);
  std::fwrite(text.data(), 1, text.size(), stdout);
}

}  // namespace

void add_tokenizer_verb(CLI::App& app) {
  const auto arguments = std::make_shared<TokenizerArguments>();
  auto* group = app.add_subcommand("tokenizer", "Train a byte-level BPE, encode and decode text");
  group->require_subcommand(1);
  auto* training = group->add_subcommand("train", "Train a byte-level BPE");
  training->add_option("--input", arguments->inputs, "text files")->required();
  training
      ->add_option("--vocabulary", arguments->vocabulary,
                   "tokens, the 256 bytes and end-of-text included")
      ->check(CLI::Range(257, 1 << 20));
  training->add_option("--output", arguments->output, "file in tiktoken's text format")->required();
  training->footer("Example: convoy tokenizer train --input book.txt --output book.tiktoken");
  training->callback([arguments] { train(*arguments); });
  auto* encoding = group->add_subcommand("encode", "Text to token ids, one a line");
  encoding->footer("Example: convoy tokenizer encode --tokenizer book.tiktoken --text hello");
  encoding->add_flag("--json", arguments->json, "print a JSON list");
  encoding->callback([arguments] { encode(*arguments); });
  auto* decoding = group->add_subcommand("decode", "Token ids to text");
  decoding->footer("Example: convoy tokenizer decode --tokenizer book.tiktoken --input ids.txt");
  decoding->callback([arguments] { decode(*arguments); });
  for (auto* verb : {encoding, decoding}) {
    verb->add_option("--tokenizer", arguments->tokenizer, "bytes or a tokenizer file");
    verb->add_option("--input", arguments->inputs, "file; standard input by default");
    verb->add_option("--text", arguments->text, "the input itself");
  }
}

}  // namespace convoy
