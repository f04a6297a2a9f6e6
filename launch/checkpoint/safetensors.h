// Export of a checkpoint's parameters as one safetensors file. Names are those of Hugging Face's
// Llama (Qwen3's where there is QK-norm), so a model without convolutions loads there as it is:
// the rotary convention, half-split pairs, is the same, and no weight is permuted. A convolution's
// tensors follow their linear: model.layers.N.self_attn.q_proj.conv.{A,G,U,s}.
#pragma once

#include <filesystem>
#include <string>

#include "launch/checkpoint/checkpoint.h"

namespace convoy {

// "blocks.7.attention.q.weight" -> "model.layers.7.self_attn.q_proj.weight".
std::string exported_name(const std::string& parameter);

// Writes under a temporary name, then renames. `dtype`: f64, f32 or bf16.
void export_safetensors(const Checkpoint& checkpoint, const std::filesystem::path& output,
                        DType dtype);

}  // namespace convoy
