#include "launch/checkpoint/safetensors_file.h"

#include <bit>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace convoy {
namespace {

using Json = nlohmann::ordered_json;

const char* safetensors_dtype(DType dtype) {
  switch (dtype) {
    case DType::f64: return "F64";
    case DType::f32: return "F32";
    case DType::bf16: return "BF16";
    case DType::i32: return "I32";
    default: throw Error(concat("safetensors export of ", name_of(dtype), " is not possible"));
  }
}

std::int64_t bytes_of(const SafetensorsEntry& entry) {
  auto bytes = static_cast<std::int64_t>(size_of(entry.dtype));
  for (const std::int64_t dim : entry.shape) bytes *= dim;
  return bytes;
}

// The header: 8 bytes of length, then JSON padded with spaces to a multiple of 8.
std::string header_of(const std::vector<SafetensorsEntry>& entries) {
  Json json = {{"__metadata__", {{"format", "pt"}, {"producer", "convoy"}}}};
  std::int64_t offset = 0;
  for (const auto& entry : entries) {
    const std::int64_t end = offset + bytes_of(entry);
    json[entry.name] = {{"dtype", safetensors_dtype(entry.dtype)},
                        {"shape", entry.shape},
                        {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = json.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const auto length = static_cast<std::uint64_t>(text.size());
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(length >> (8 * i)));
  return bytes + text;
}

}  // namespace

void write_safetensors(const std::filesystem::path& output,
                       const std::vector<SafetensorsEntry>& entries) {
  static_assert(std::endian::native == std::endian::little, "safetensors is little-endian");
  const std::filesystem::path temporary = output.string() + ".partial";
  std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
  file << header_of(entries);
  for (const auto& entry : entries) {
    std::vector<std::byte> values(static_cast<std::size_t>(bytes_of(entry)));
    entry.fill(Tensor(values.data(), entry.dtype, DeviceKind::cpu, entry.shape));
    file.write(reinterpret_cast<const char*>(values.data()), std::ssize(values));
  }
  file.close();
  if (!file) throw Error("cannot write " + temporary.string());
  std::filesystem::rename(temporary, output);
}

}  // namespace convoy
