// Reads every byte of a checkpoint against its manifest, without HDF5: the manifest knows where in
// a file each tensor's bytes lie, so damage is named even where HDF5 could not open the file.
#include <algorithm>
#include <fstream>
#include <set>

#include "core/error.h"
#include "core/sha256.h"
#include "launch/checkpoint/checkpoint.h"

namespace convoy {
namespace {

namespace fs = std::filesystem;

std::string sha256_of_range(const fs::path& path, std::int64_t offset, std::int64_t bytes) {
  std::ifstream file(path, std::ios::binary);
  file.seekg(offset);
  Sha256 sum;
  std::vector<char> part(std::size_t{1} << 20);
  while (bytes > 0 && file) {
    file.read(part.data(), std::min<std::int64_t>(bytes, std::ssize(part)));
    sum.update(std::string_view(part.data(), static_cast<std::size_t>(file.gcount())));
    bytes -= file.gcount();
  }
  return sum.hex();
}

// The tensors with damaged bytes in one file.
std::vector<std::string> damaged_tensors(const fs::path& checkpoint, const Manifest& manifest,
                                         const std::string& file) {
  std::vector<std::string> names;
  for (const auto& tensor : manifest.tensors) {
    for (const auto& piece : tensor.pieces) {
      if (piece.file != file) continue;
      if (sha256_of_range(checkpoint / file, piece.offset, piece.bytes) != piece.sha256) {
        names.push_back(tensor.name);
      }
    }
  }
  return names;
}

void check_file(const fs::path& checkpoint, const Manifest& manifest, const ManifestFile& file,
                std::vector<std::string>& problems) {
  const fs::path path = checkpoint / file.name;
  if (!fs::exists(path)) {
    problems.push_back(file.name + " is missing");
    return;
  }
  const auto bytes = static_cast<std::int64_t>(fs::file_size(path));
  if (bytes != file.bytes) {
    problems.push_back(concat(file.name, " has ", bytes, " bytes instead of ", file.bytes));
  } else if (sha256_of_file(path.string()) == file.sha256) {
    return;
  }
  const auto tensors = damaged_tensors(checkpoint, manifest, file.name);
  for (const auto& tensor : tensors) {
    problems.push_back(file.name + ": the bytes of tensor " + tensor + " are damaged");
  }
  if (tensors.empty() && bytes == file.bytes)
    problems.push_back(file.name + " is damaged outside of its tensors");
}

}  // namespace

std::vector<std::string> verify_checkpoint(const fs::path& checkpoint) {
  Manifest manifest;
  try {
    manifest = Manifest::read(checkpoint);
  } catch (const std::exception& error) {
    return {error.what()};
  }
  std::vector<std::string> problems;
  std::set<std::string> known = {Manifest::kFileName};
  for (const auto& file : manifest.files) {
    known.insert(file.name);
    try {
      check_file(checkpoint, manifest, file, problems);
    } catch (const std::exception& error) {  // a folder in its place, no permission
      problems.push_back(file.name + " cannot be read: " + error.what());
    }
  }
  for (const auto& entry : fs::directory_iterator(checkpoint)) {
    const std::string name = entry.path().filename().string();
    if (!known.contains(name)) problems.push_back(name + " does not belong to the checkpoint");
  }
  return problems;
}

}  // namespace convoy
