#include "launch/checkpoint/safetensors.h"

#include <map>

#include "core/cpu/cpu_backend.h"
#include "launch/checkpoint/safetensors_file.h"

namespace convoy {
namespace {

const std::string kPrefix = "parameters/";

// Replaces the beginning of a name inside a block.
std::string name_in_block(const std::string& rest) {
  static const std::map<std::string, std::string> kStarts = {
      {"attention_norm.", "input_layernorm."},
      {"mlp_norm.", "post_attention_layernorm."},
      {"attention.q_norm.", "self_attn.q_norm."},
      {"attention.k_norm.", "self_attn.k_norm."},
      {"attention.q.", "self_attn.q_proj."},
      {"attention.k.", "self_attn.k_proj."},
      {"attention.v.", "self_attn.v_proj."},
      {"attention.o.", "self_attn.o_proj."},
      {"mlp.gate.", "mlp.gate_proj."},
      {"mlp.up.", "mlp.up_proj."},
      {"mlp.down.", "mlp.down_proj."}};
  for (const auto& [ours, theirs] : kStarts) {
    if (rest.starts_with(ours)) return theirs + rest.substr(ours.size());
  }
  throw Error("parameter name '" + rest + "' inside a block has no exported name");
}

}  // namespace

std::string exported_name(const std::string& parameter) {
  if (parameter == "embedding.weight") return "model.embed_tokens.weight";
  if (parameter == "final_norm.weight") return "model.norm.weight";
  if (parameter == "head.weight") return "lm_head.weight";
  const std::string start = "blocks.";
  const auto dot = parameter.find('.', start.size());
  if (!parameter.starts_with(start) || dot == std::string::npos) {
    throw Error("parameter name '" + parameter + "' has no exported name");
  }
  return "model.layers." + parameter.substr(start.size(), dot - start.size()) + "." +
         name_in_block(parameter.substr(dot + 1));
}

void export_safetensors(const Checkpoint& checkpoint, const std::filesystem::path& output,
                        DType dtype) {
  const auto backend = make_cpu_backend(NumericsMode::fast);
  std::vector<SafetensorsEntry> entries;
  for (const auto& tensor : checkpoint.manifest().tensors) {
    if (!tensor.name.starts_with(kPrefix)) continue;
    const auto values = [&checkpoint, &backend, &tensor](const Tensor& host) {
      std::vector<std::byte> stored(static_cast<std::size_t>(tensor.size()) *
                                    size_of(tensor.dtype));
      const Tensor from(stored.data(), tensor.dtype, DeviceKind::cpu, tensor.shape);
      checkpoint.read(tensor.name, from);
      backend->convert(host, from);
    };
    entries.push_back(
        {exported_name(tensor.name.substr(kPrefix.size())), dtype, tensor.shape, values});
  }
  write_safetensors(output, entries);
}

}  // namespace convoy
