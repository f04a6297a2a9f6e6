// Checkpoints of a few tensors whose content follows from the step.
#pragma once

#include <algorithm>
#include <fstream>
#include <map>

#include "core/cpu/cpu_backend.h"
#include "launch/checkpoint/writer.h"
#include "tests/launch/temporary_folder.h"

namespace convoy::test {

struct SmallModel {
  std::vector<float> weight = std::vector<float>(60);
  std::vector<double> moment = std::vector<double>(60);
  std::vector<BF16> half = std::vector<BF16>(7);

  explicit SmallModel(std::int64_t step = 0) { set(step); }

  void set(std::int64_t step) {
    for (std::size_t i = 0; i < weight.size(); ++i) {
      weight[i] = static_cast<float>(step) + 0.5f * static_cast<float>(i);
      moment[i] = -static_cast<double>(step) / 3 + static_cast<double>(i);
    }
    std::fill(half.begin(), half.end(), BF16(static_cast<float>(step)));
  }
  std::vector<TensorRecord> records() {
    return {{"parameters/a.weight", {weight.data(), DType::f32, DeviceKind::cpu, {4, 15}}},
            {"moment1/a.weight", {moment.data(), DType::f64, DeviceKind::cpu, {4, 15}}},
            {"parameters/blocks.0.b", {half.data(), DType::bf16, DeviceKind::cpu, {7}}}};
  }
};

inline std::map<std::string, std::string> texts_of(std::int64_t step) {
  return {{"state.json", "{\"step\": " + std::to_string(step) + "}\n"},
          {"config.toml", "[model]\nd_model = 8\n"}};
}

// What a checkpoint holds must be one whole model, that of its own step.
inline void expect_consistent(const Checkpoint& checkpoint) {
  const std::int64_t step = checkpoint.manifest().step;
  SmallModel expected(step), read(-1);
  for (const auto& record : read.records()) checkpoint.read(record.name, record.tensor);
  EXPECT_EQ(read.weight, expected.weight);
  EXPECT_EQ(read.moment, expected.moment);
  EXPECT_EQ(static_cast<float>(read.half[3]), static_cast<float>(step));
  EXPECT_EQ(checkpoint.text("state.json"), texts_of(step).at("state.json"));
}

}  // namespace convoy::test
