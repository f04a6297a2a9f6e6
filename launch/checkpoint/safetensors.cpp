#include "launch/checkpoint/safetensors.h"

#include <array>
#include <bit>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "core/cpu/cpu_backend.h"

namespace convoy {
namespace {

using Json = nlohmann::ordered_json;

const std::string kPrefix = "parameters/";

const char* safetensors_dtype(DType dtype) {
  switch (dtype) {
    case DType::f64: return "F64";
    case DType::f32: return "F32";
    case DType::bf16: return "BF16";
    default: throw Error(concat("safetensors export of ", name_of(dtype), " is not possible"));
  }
}

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

// The header: 8 bytes of length, then JSON padded with spaces to a multiple of 8.
std::string header_bytes(const Json& json) {
  std::string text = json.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const auto length = static_cast<std::uint64_t>(text.size());
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(length >> (8 * i)));
  return bytes + text;
}

Json header_of(const Checkpoint& checkpoint, DType dtype) {
  Json json = {{"__metadata__", {{"format", "pt"}, {"producer", "convoy"}}}};
  std::int64_t offset = 0;
  for (const auto& tensor : checkpoint.manifest().tensors) {
    if (!tensor.name.starts_with(kPrefix)) continue;
    const std::int64_t end = offset + tensor.size() * static_cast<std::int64_t>(size_of(dtype));
    json[exported_name(tensor.name.substr(kPrefix.size()))] = {{"dtype", safetensors_dtype(dtype)},
                                                               {"shape", tensor.shape},
                                                               {"data_offsets", {offset, end}}};
    offset = end;
  }
  return json;
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
  static_assert(std::endian::native == std::endian::little, "safetensors is little-endian");
  const std::filesystem::path temporary = output.string() + ".partial";
  const auto backend = make_cpu_backend(NumericsMode::fast);
  std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
  file << header_bytes(header_of(checkpoint, dtype));
  for (const auto& tensor : checkpoint.manifest().tensors) {
    if (!tensor.name.starts_with(kPrefix)) continue;
    const auto size = static_cast<std::size_t>(tensor.size());
    std::vector<std::byte> stored(size * size_of(tensor.dtype)), wanted(size * size_of(dtype));
    const Tensor from(stored.data(), tensor.dtype, DeviceKind::cpu, tensor.shape);
    checkpoint.read(tensor.name, from);
    backend->convert(Tensor(wanted.data(), dtype, DeviceKind::cpu, tensor.shape), from);
    file.write(reinterpret_cast<const char*>(wanted.data()), std::ssize(wanted));
  }
  file.close();
  if (!file) throw Error("cannot write " + temporary.string());
  std::filesystem::rename(temporary, output);
}

}  // namespace convoy
