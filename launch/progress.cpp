#include "launch/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>

namespace convoy {

std::string format_duration(double seconds) {
  const auto whole = static_cast<long>(std::lround(std::max(seconds, 0.0)));
  if (whole >= 3600) {
    return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  }
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

Progress::Progress(const RunConfig& config, RunDirectory::Role role)
    : style_(Style::lines), steps_(total_steps(config)), every_(config.log.every) {
  const bool terminal = isatty(STDOUT_FILENO) != 0;
  const std::string& console = config.log.console;
  if (console == "progress" || (console == "auto" && terminal)) style_ = Style::renewed;
  if (console == "quiet" || role == RunDirectory::Role::silent) style_ = Style::silent;
}

Progress::~Progress() {
  if (line_open_) std::fputc('\n', stdout);
}

void Progress::note(const std::string& text) {
  if (style_ == Style::silent) return;
  fmt::print("{}{}\n", line_open_ ? "\n" : "", text);
  line_open_ = false;
  std::fflush(stdout);
}

void Progress::step(const TrainRow& row, double eta_seconds) {
  constexpr double kRenewSeconds = 0.2;
  if (style_ == Style::silent) return;
  const bool due = row.step % every_ == 0 || row.step == steps_ || row.step == 1;
  if (style_ == Style::lines && !due) return;
  if (style_ == Style::renewed && !due && since_last_.seconds() < kRenewSeconds) return;
  since_last_.restart();
  const std::string line =
      fmt::format("step {}/{}  loss {:.4f}  lr {:.2e}  |g| {:.3f}  {:.0f} tokens/s  ETA {}{}",
                  row.step, steps_, row.train_loss, row.lr, row.grad_norm, row.tokens_per_s,
                  format_duration(eta_seconds), row.skipped ? "  SKIPPED" : "");
  if (style_ == Style::renewed) {
    fmt::print("\r\033[K{}", line);
    line_open_ = true;
  } else {
    fmt::print("{}\n", line);
  }
  std::fflush(stdout);
}

void Progress::evaluation(const EvalRow& row) {
  std::string text =
      fmt::format("step {}/{}  validation loss {:.4f} nats", row.step, steps_, row.val_loss);
  if (row.bytes > 0) {
    text += fmt::format("  {:.4f} bits per byte", row.val_bits_per_byte);
  } else {
    text += fmt::format("  accuracy {:.4f}", row.val_accuracy);
  }
  if (!std::isnan(row.last_token_accuracy)) {
    text += fmt::format(" (by the last token alone {:.4f})", row.last_token_accuracy);
  }
  note(text);
}

}  // namespace convoy
