// The manifest of a checkpoint: every file with its size and SHA-256, every tensor with the pieces
// it is stored in and theirs. It is written last, so a checkpoint without one was never finished,
// and it carries a checksum of itself. A tensor may be stored in several pieces by several writers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "parallel/placement.h"

namespace convoy {

struct ManifestFile {
  std::string name;
  std::int64_t bytes = 0;
  std::string sha256;
};

// Where a tensor was split over ranks along a dim (parallel/placement.h): which of `parts` shards a
// piece is of. One part is the whole tensor.
struct ManifestShard {
  int dim = 0;
  std::int64_t sections = 1;
  int parts = 1, index = 0;
};

// Elements [first, first + count) of a tensor, or of a shard of it, in row-major order: one dataset
// of an HDF5 file, whose raw bytes lie at `offset`.
struct ManifestPiece {
  std::string file, dataset;
  std::int64_t first = 0, count = 0;
  std::int64_t offset = 0, bytes = 0;
  std::string sha256;
  ManifestShard shard = {};
};

// The part of a tensor of this global shape.
Shard shard_of(const std::vector<std::int64_t>& shape, const ManifestShard& shard);

struct ManifestTensor {
  std::string name;  // "parameters/blocks.0.mlp.up.weight", "moment1/..."
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  std::vector<ManifestPiece> pieces;

  std::int64_t size() const;
};

struct Manifest {
  static constexpr int kVersion = 1;
  static constexpr const char* kFileName = "manifest.json";

  std::int64_t step = 0;
  std::vector<ManifestFile> files;
  std::vector<ManifestTensor> tensors;

  // Adds what another writer of the same checkpoint has written.
  void merge(const Manifest& other);

  std::string to_text() const;
  // Throws an Error that names `path` where the text is damaged or of another version.
  static Manifest parse(const std::string& text, const std::filesystem::path& path);
  // Of one of several writers: its tensors need not be whole.
  static Manifest parse_part(const std::string& text, const std::filesystem::path& path);
  static Manifest read(const std::filesystem::path& checkpoint);
};

}  // namespace convoy
