// Event files for TensorBoard, one folder per run: the scalars of `curves` by step. The format is
// that of TFRecord files (length, masked CRC32C of it, data, masked CRC32C of them) holding
// protocol buffers of the messages Event and Summary; both are simple enough to be written by hand.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "experiments/export/tables.h"

namespace convoy {

// CRC-32C (Castagnoli), and as TFRecord files store it: rotated and shifted, because a sum of data
// that contain sums is weak.
std::uint32_t crc32c(std::string_view bytes);
std::uint32_t masked_crc32c(std::string_view bytes);

std::string tf_record(std::string_view data);

// tensorflow.Event: the first of a file names the version, the others carry scalars.
std::string version_event(double wall_time);
std::string scalar_event(double wall_time, std::int64_t step,
                         const std::vector<std::pair<std::string, double>>& scalars);

// FOLDER/<name of the run>/events.out.tfevents.0.convoy for every run of the table.
void write_tensorboard(const SweepPlan& plan, const Table& curves,
                       const std::filesystem::path& folder);

}  // namespace convoy
