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
  Json json = {{"file", p.file},    {"dataset", p.dataset}, {"first", p.first},
               {"count", p.count},  {"offset", p.offset},   {"bytes", p.bytes},
               {"sha256", p.sha256}};
  if (p.shard.parts > 1) {
    json["shard"] = {{"dim", p.shard.dim},
                     {"sections", p.shard.sections},
                     {"parts", p.shard.parts},
                     {"index", p.shard.index}};
  }
  return json;
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
  ManifestPiece piece{json.at("file"),   json.at("dataset"), json.at("first"), json.at("count"),
                      json.at("offset"), json.at("bytes"),   json.at("sha256")};
  if (const auto shard = json.find("shard"); shard != json.end()) {
    piece.shard = {shard->at("dim"), shard->at("sections"), shard->at("parts"), shard->at("index")};
  }
  return piece;
}

ManifestTensor tensor_of(const Json& json) {
  ManifestTensor tensor{json.at("name"), dtype_named(json.at("dtype")), json.at("shape"), {}};
  for (const auto& piece : json.at("pieces")) tensor.pieces.push_back(piece_of(piece));
  return tensor;
}

// Why a piece is not inside a file of the checkpoint; else empty.
std::string defect_of(const ManifestPiece& piece, const ManifestTensor& tensor,
                      const std::vector<ManifestFile>& files) {
  const auto file = std::find_if(files.begin(), files.end(),
                                 [&](const ManifestFile& f) { return f.name == piece.file; });
  if (file == files.end()) return concat(piece.file, ", where it lies, is not listed");
  const auto bytes = piece.count * static_cast<std::int64_t>(size_of(tensor.dtype));
  if (piece.count < 0 || piece.bytes != bytes || piece.offset < 0 ||
      piece.offset + bytes > file->bytes) {
    return concat(piece.count, " elements at byte ", piece.offset, " do not fit ", piece.file);
  }
  return "";
}

// Why the pieces are not the whole tensor, shard by shard and in order; else empty.
std::string defect_of(const ManifestTensor& tensor, const std::vector<ManifestFile>& files) {
  if (tensor.pieces.empty()) return "has no pieces";
  const ManifestShard split = tensor.pieces.front().shard;
  if (split.parts < 1 || split.sections < 1 || split.dim < 0 ||
      split.dim >= std::ssize(tensor.shape)) {
    return concat("is split in ", split.parts, " parts along dim ", split.dim);
  }
  const std::int64_t size = shard_of(tensor.shape, split).size();
  std::vector<std::int64_t> next(static_cast<std::size_t>(split.parts), 0);
  for (const auto& piece : tensor.pieces) {
    const std::string defect = defect_of(piece, tensor, files);
    if (!defect.empty()) return defect;
    const ManifestShard& shard = piece.shard;
    if (shard.dim != split.dim || shard.sections != split.sections || shard.parts != split.parts ||
        shard.index < 0 || shard.index >= split.parts) {
      return concat("has pieces of ", split.parts, " shards and of ", shard.parts);
    }
    std::int64_t& place = next[static_cast<std::size_t>(shard.index)];
    if (piece.first != place) return concat("element ", place, " is followed by ", piece.first);
    place += piece.count;
  }
  for (const auto end : next) {
    if (end != size) return concat("holds ", end, " of ", size, " elements");
  }
  return "";
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

namespace {

Manifest parsed(const std::string& text, const std::filesystem::path& path, bool whole) {
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
  if (json.at("version") != Manifest::kVersion) {
    throw Error(concat(path.string(), " has format version ", json.at("version").dump(),
                       "; this program reads version ", Manifest::kVersion));
  }
  Manifest manifest;
  manifest.step = json.at("step");
  for (const auto& file : json.at("files")) {
    manifest.files.push_back({file.at("name"), file.at("bytes"), file.at("sha256")});
  }
  for (const auto& tensor : json.at("tensors")) {
    manifest.tensors.push_back(tensor_of(tensor));
    if (!whole) continue;
    const std::string defect = defect_of(manifest.tensors.back(), manifest.files);
    if (!defect.empty()) throw damaged(manifest.tensors.back().name + ": " + defect);
  }
  return manifest;
}

}  // namespace

Manifest Manifest::parse(const std::string& text, const std::filesystem::path& path) {
  return parsed(text, path, true);
}

Manifest Manifest::parse_part(const std::string& text, const std::filesystem::path& path) {
  return parsed(text, path, false);
}

void Manifest::merge(const Manifest& other) {
  files.insert(files.end(), other.files.begin(), other.files.end());
  for (const auto& theirs : other.tensors) {
    const auto ours = std::find_if(tensors.begin(), tensors.end(),
                                   [&](const auto& tensor) { return tensor.name == theirs.name; });
    if (ours == tensors.end()) {
      tensors.push_back(theirs);
      continue;
    }
    CHECK(ours->dtype == theirs.dtype && ours->shape == theirs.shape, theirs.name,
          " differs between two writers");
    ours->pieces.insert(ours->pieces.end(), theirs.pieces.begin(), theirs.pieces.end());
    std::stable_sort(ours->pieces.begin(), ours->pieces.end(), [](const auto& a, const auto& b) {
      return std::pair(a.shard.index, a.first) < std::pair(b.shard.index, b.first);
    });
  }
}

Shard shard_of(const std::vector<std::int64_t>& shape, const ManifestShard& shard) {
  MeshShape mesh;
  MeshPosition position;
  mesh.tp = shard.parts;
  position.tp = shard.index;
  const Split split{shard.dim, MeshAxis::tp, shard.sections, Padding::allowed};
  return {{.shape = shape, .split = split}, mesh, position};
}

Manifest Manifest::read(const std::filesystem::path& checkpoint) {
  const std::filesystem::path path = checkpoint / kFileName;
  return parse(read_text(path), path);
}

}  // namespace convoy
