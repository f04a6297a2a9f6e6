#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "data/austen.h"
#include "data/prepare.h"
#include "launch/verbs.h"

namespace convoy {
namespace {

struct PrepareArguments {
  PrepareOptions options;
  std::string separator;
  bool without_end_of_text = false;
  bool json = false;
};

void show_progress(const PrepareProgress& progress) {
  fmt::print(stderr, "\r{:3.0f} % of {:.1f} MB{}",
             100.0 * static_cast<double>(progress.bytes_done) /
                 static_cast<double>(std::max<std::int64_t>(progress.bytes_total, 1)),
             static_cast<double>(progress.bytes_total) / 1e6,
             progress.bytes_done == progress.bytes_total ? "\n" : "");
}

void run_prepare(PrepareArguments& arguments) {
  PrepareOptions& options = arguments.options;
  if (!arguments.separator.empty()) options.separator = parse_separator(arguments.separator);
  if (arguments.without_end_of_text) options.end_of_text = EndOfText::no;
  if (isatty(STDERR_FILENO) != 0) options.on_progress = show_progress;
  const PrepareReport report = prepare(options);
  if (arguments.json) {
    const nlohmann::ordered_json json = {{"output", options.output},
                                         {"tokenizer", report.tokenizer},
                                         {"vocabulary", report.vocabulary},
                                         {"documents", report.documents},
                                         {"tokens", report.tokens},
                                         {"bytes", report.bytes},
                                         {"source_sha256", report.source_sha256}};
    return fmt::print("{}\n", json.dump(2));
  }
  fmt::print("{}: {} tokens of {} bytes in {} documents, tokenizer {}, vocabulary {}\n",
             options.output, report.tokens, report.bytes, report.documents, report.tokenizer,
             report.vocabulary);
}

}  // namespace

void add_prepare_verb(CLI::App& app) {
  const auto arguments = std::make_shared<PrepareArguments>();
  PrepareOptions& options = arguments->options;
  auto* verb = app.add_subcommand("prepare", "Turn text files into a token file");
  verb->add_option("--input", options.inputs, "text files; each is a document")->required();
  verb->add_option("--tokenizer", options.tokenizer, "bytes, bpe:N (trained on the input) or FILE");
  verb->add_option("--output", options.output, "token file (.h5)")->required();
  verb->add_option("--separator", arguments->separator,
                   "a byte that ends a document inside a file, as 0x1E");
  verb->add_flag("--no-end-of-text", arguments->without_end_of_text,
                 "do not close documents with an end-of-text token");
  verb->add_flag("--json", arguments->json, "print JSON");
  verb->footer("Example: convoy prepare --input book.txt --tokenizer bpe:8192 --output book.h5");
  verb->callback([arguments] { run_prepare(*arguments); });
}

void add_corpus_verb(CLI::App& app) {
  struct Arguments {
    std::string package, output;
  };
  const auto arguments = std::make_shared<Arguments>();
  auto* corpus = app.add_subcommand("corpus", "Make a text corpus from packaged data");
  corpus->require_subcommand(1);
  auto* austen = corpus->add_subcommand("austen", "The six novels of r-cran-janeaustenr");
  austen->add_option("--package", arguments->package, "folder that dpkg-deb -x unpacked into")
      ->required();
  austen->add_option("--output", arguments->output, "folder for the two text files")->required();
  austen->footer("Example: convoy corpus austen --package unpacked --output corpora");
  austen->callback([arguments] {
    const AustenReport report = write_austen_corpus(arguments->package, arguments->output);
    fmt::print("{}/austen.train.txt: {} bytes, sha256 {}\n{}/austen.val.txt: {} bytes, sha256 {}\n",
               arguments->output, report.train_bytes, report.train_sha256, arguments->output,
               report.val_bytes, report.val_sha256);
  });
}

}  // namespace convoy
