// A checkpoint is a folder: HDF5 files of tensors under their global names, state.json (small
// scalars, opaque here), a few small text files, and the manifest.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "launch/checkpoint/manifest.h"

namespace convoy {

class Checkpoint {
 public:
  // `path`: a checkpoint, a folder with a link `latest` to one, or a run directory. Checks the
  // manifest and the presence and size of every file; verify_checkpoint() checks every byte.
  static Checkpoint open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  // Why this is not the checkpoint that `latest` names; empty where it is, or was named itself.
  const std::string& note() const { return note_; }
  const Manifest& manifest() const { return manifest_; }
  const ManifestTensor& tensor(const std::string& name) const;
  // Elements [first, first + destination.size()) of a tensor into contiguous host memory of the
  // same dtype.
  void read(const std::string& name, std::int64_t first, Tensor destination) const;
  // All of it; the shapes must agree.
  void read(const std::string& name, Tensor destination) const;
  std::string text(const std::string& file) const;  // of a small file
  std::int64_t parameters() const;                  // elements under "parameters/"

 private:
  void read_shard_piece(const ManifestTensor& tensor, const ManifestPiece& piece,
                        std::int64_t first, const Tensor& destination) const;
  Checkpoint(std::filesystem::path path, Manifest manifest, std::string note = "")
      : path_(std::move(path)), manifest_(std::move(manifest)), note_(std::move(note)) {}

  std::filesystem::path path_;
  Manifest manifest_;
  std::string note_;
};

// The folder of step 12 is named step_00000012, so that names sort by step.
std::string checkpoint_name(std::int64_t step);

// The newest complete checkpoint below `root`: what `latest` names, or else the newest whole one;
// then `note` says why.
std::optional<std::filesystem::path> find_latest(const std::filesystem::path& root,
                                                 std::string* note = nullptr);

// Every problem found by reading every byte: each names the file and, where the damage lies in one,
// the tensor. Empty: sound.
std::vector<std::string> verify_checkpoint(const std::filesystem::path& checkpoint);

}  // namespace convoy
