// A safetensors file (Hugging Face's format): named tensors behind a JSON header that says where
// each lies.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace convoy {

struct SafetensorsEntry {
  std::string name;
  DType dtype;  // f64, f32, bf16 or i32
  std::vector<std::int64_t> shape;
  std::function<void(const Tensor& host)> fill;  // sets the values; asked for one at a time
};

// Writes under a temporary name, then renames.
void write_safetensors(const std::filesystem::path& output,
                       const std::vector<SafetensorsEntry>& entries);

}  // namespace convoy
