#include "launch/checkpoint/manifest.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/sha256.h"
#include "launch/files.h"

namespace convoy {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array kDTypes = {DType::f64, DType::f32, DType::bf16, DType::i32, DType::u16};
constexpr std::size_t kDigits = 64;  // of a SHA-256

// The text ends in `"manifest_sha256": "<64 digits>"` + newline and brace; the sum is taken over
// the text with the digits blanked.
const std::string kSelfKey = "\"manifest_sha256\": \"";

std::size_t digits_position(const std::string& text) {
  const auto key = text.rfind(kSelfKey);
  return key == std::string::npos ? key : key + kSelfKey.size();
}

std::string with_digits(std::string text, const std::string& digits) {
  return text.replace(digits_position(text), kDigits, digits);
}

DType dtype_named(const std::string& name) {
  for (const DType dtype : kDTypes) {
    if (name_of(dtype) == name) return dtype;
  }
  throw Error("dtype '" + name + "' is not known");
}

Json to_json(const ManifestPiece& p) {
  return {{"file", p.file},     {"dataset", p.dataset}, {"first", p.first},  {"count", p.count},
          {"offset", p.offset}, {"bytes", p.bytes},     {"sha256", p.sha256}};
}

Json to_json(const ManifestTensor& t) {
  Json pieces = Json::array();
  for (const auto& piece : t.pieces) pieces.push_back(to_json(piece));
  return {{"name", t.name},
          {"dtype", std::string(name_of(t.dtype))},
          {"shape", t.shape},
          {"pieces", pieces}};
}

ManifestPiece piece_of(const Json& json) {
  return {json.at("file"),   json.at("dataset"), json.at("first"), json.at("count"),
          json.at("offset"), json.at("bytes"),   json.at("sha256")};
}

ManifestTensor tensor_of(const Json& json) {
  ManifestTensor tensor{json.at("name"), dtype_named(json.at("dtype")), json.at("shape"), {}};
  for (const auto& piece : json.at("pieces")) tensor.pieces.push_back(piece_of(piece));
  return tensor;
}

// Why the pieces are not the whole tensor, in order, inside files of the checkpoint; else empty.
std::string defect_of(const ManifestTensor& tensor, const std::vector<ManifestFile>& files) {
  std::int64_t next = 0;
  for (const auto& piece : tensor.pieces) {
    const auto file = std::find_if(files.begin(), files.end(),
                                   [&](const ManifestFile& f) { return f.name == piece.file; });
    if (file == files.end()) return concat(piece.file, ", where it lies, is not listed");
    const auto bytes = piece.count * static_cast<std::int64_t>(size_of(tensor.dtype));
    if (piece.count < 0 || piece.bytes != bytes || piece.offset < 0 ||
        piece.offset + bytes > file->bytes) {
      return concat(piece.count, " elements at byte ", piece.offset, " do not fit ", piece.file);
    }
    if (piece.first != next) return concat("element ", next, " is followed by ", piece.first);
    next += piece.count;
  }
  return next == tensor.size() ? "" : concat("holds ", next, " of ", tensor.size(), " elements");
}

}  // namespace

std::int64_t ManifestTensor::size() const {
  std::int64_t product = 1;
  for (const auto dim : shape) product *= dim;
  return product;
}

std::string Manifest::to_text() const {
  Json json = {{"format", "convoy checkpoint"},
               {"version", kVersion},
               {"step", step},
               {"files", Json::array()},
               {"tensors", Json::array()}};
  for (const auto& file : files) {
    json["files"].push_back({{"name", file.name}, {"bytes", file.bytes}, {"sha256", file.sha256}});
  }
  for (const auto& tensor : tensors) json["tensors"].push_back(to_json(tensor));
  json["manifest_sha256"] = std::string(kDigits, '0');
  const std::string blank = json.dump(1) + "\n";
  return with_digits(blank, sha256_of(blank));
}

Manifest Manifest::parse(const std::string& text, const std::filesystem::path& path) {
  const auto damaged = [&](const std::string& why) {
    return Error(path.string() + " is damaged: " + why);
  };
  const auto position = digits_position(text);
  if (position == std::string::npos || position + kDigits > text.size()) {
    throw damaged("it has no checksum of itself");
  }
  const std::string digits = text.substr(position, kDigits);
  if (sha256_of(with_digits(text, std::string(kDigits, '0'))) != digits) {
    throw damaged("its checksum of itself does not match");
  }
  const Json json = Json::parse(text);
  if (json.at("version") != kVersion) {
    throw Error(concat(path.string(), " has format version ", json.at("version").dump(),
                       "; this program reads version ", kVersion));
  }
  Manifest manifest;
  manifest.step = json.at("step");
  for (const auto& file : json.at("files")) {
    manifest.files.push_back({file.at("name"), file.at("bytes"), file.at("sha256")});
  }
  for (const auto& tensor : json.at("tensors")) {
    manifest.tensors.push_back(tensor_of(tensor));
    const std::string defect = defect_of(manifest.tensors.back(), manifest.files);
    if (!defect.empty()) throw damaged(manifest.tensors.back().name + ": " + defect);
  }
  return manifest;
}

Manifest Manifest::read(const std::filesystem::path& checkpoint) {
  const std::filesystem::path path = checkpoint / kFileName;
  return parse(read_text(path), path);
}

}  // namespace convoy
