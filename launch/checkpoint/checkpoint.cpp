#include "launch/checkpoint/checkpoint.h"

#include <algorithm>
#include <iomanip>
#include <sstream>

#include "core/error.h"
#include "core/hdf5.h"
#include "launch/files.h"

namespace convoy {
namespace {

namespace fs = std::filesystem;

// A checkpoint whose manifest is sound and whose files are there in their sizes.
Manifest read_complete(const fs::path& path) {
  Manifest manifest = Manifest::read(path);
  for (const auto& file : manifest.files) {
    const fs::path place = path / file.name;
    if (!fs::exists(place)) throw Error(place.string() + " is missing from the checkpoint");
    const auto bytes = static_cast<std::int64_t>(fs::file_size(place));
    if (bytes != file.bytes) {
      throw Error(concat(place.string(), " has ", bytes, " bytes instead of ", file.bytes));
    }
  }
  return manifest;
}

// Why a checkpoint is not complete; empty where it is.
std::string defect_of(const fs::path& path) {
  try {
    read_complete(path);
    return "";
  } catch (const std::exception& error) {
    return error.what();
  }
}

bool is_complete(const fs::path& path) { return defect_of(path).empty(); }

// Elements [first, first + count) of a dataset; whole rows are read and the part wanted is kept.
void read_elements(const fs::path& path, const std::string& dataset, DType dtype,
                   std::int64_t first, std::int64_t count, std::byte* destination) {
  const Hdf5File file(path.string(), Hdf5File::Mode::read);
  const std::int64_t a_row = file.info(dataset).row_elements();
  const std::int64_t row = first / a_row;
  const std::int64_t rows = (first + count + a_row - 1) / a_row - row;
  std::vector<std::byte> buffer(static_cast<std::size_t>(rows * a_row) * size_of(dtype));
  file.read_rows(dataset, element_type(dtype), row, rows, buffer.data());
  std::copy_n(buffer.data() + static_cast<std::size_t>(first - row * a_row) * size_of(dtype),
              static_cast<std::size_t>(count) * size_of(dtype), destination);
}

}  // namespace

std::optional<fs::path> find_latest(const fs::path& root, std::string* note) {
  if (!fs::is_directory(root)) return {};
  const fs::path link = root / "latest";
  std::string defect = "there is no link " + link.string();
  if (fs::is_symlink(link)) {
    const fs::path named = root / fs::read_symlink(link);
    defect = defect_of(named);
    if (defect.empty()) return named;
  }
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(root)) {
    if (entry.path().filename().string().starts_with("step_")) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());  // steps are padded with zeros
  while (!found.empty() && !is_complete(found.back())) found.pop_back();
  if (found.empty()) return {};
  if (note) *note = defect + "; the newest complete one is " + found.back().filename().string();
  return found.back();
}

std::string checkpoint_name(std::int64_t step) {
  std::ostringstream name;
  name << "step_" << std::setw(8) << std::setfill('0') << step;
  return name.str();
}

Checkpoint Checkpoint::open(const fs::path& path) {
  if (fs::exists(path / Manifest::kFileName)) return {path, read_complete(path)};
  std::string note;
  for (const fs::path& root : {path, path / "checkpoints"}) {
    if (const auto latest = find_latest(root, &note)) {
      return {*latest, read_complete(*latest), note};
    }
  }
  throw Error("no checkpoint in " + path.string() +
              "; name a folder step_..., one with a link `latest`, or a run directory");
}

const ManifestTensor& Checkpoint::tensor(const std::string& name) const {
  const auto place = std::find_if(manifest_.tensors.begin(), manifest_.tensors.end(),
                                  [&](const ManifestTensor& t) { return t.name == name; });
  if (place == manifest_.tensors.end()) {
    throw Error(path_.string() + " holds no tensor " + name);
  }
  return *place;
}

// The elements of a piece of a shard lie all over the tensor.
void Checkpoint::read_shard_piece(const ManifestTensor& tensor, const ManifestPiece& piece,
                                  std::int64_t first, const Tensor& destination) const {
  const std::size_t size = size_of(tensor.dtype);
  std::vector<std::byte> buffer(static_cast<std::size_t>(piece.count) * size);
  read_elements(path_ / piece.file, piece.dataset, tensor.dtype, 0, piece.count, buffer.data());
  const Shard shard = shard_of(tensor.shape, piece.shard);
  auto* bytes = static_cast<std::byte*>(destination.data());
  for (std::int64_t i = 0; i < piece.count; ++i) {
    const auto index = shard.global_index_of(piece.first + i);
    if (!index || *index < first || *index >= first + destination.size()) continue;
    std::copy_n(buffer.data() + static_cast<std::size_t>(i) * size, size,
                bytes + static_cast<std::size_t>(*index - first) * size);
  }
}

void Checkpoint::read(const std::string& name, std::int64_t first, Tensor destination) const {
  const ManifestTensor& wanted = tensor(name);
  if (wanted.dtype != destination.dtype()) {
    throw Error(concat(path_.string(), ": ", name, " is ", name_of(wanted.dtype), ", not ",
                       name_of(destination.dtype())));
  }
  CHECK(destination.contiguous() && first >= 0 && first + destination.size() <= wanted.size(), name,
        ": elements [", first, ", ", first + destination.size(), ") of ", wanted.size());
  const std::int64_t end = first + destination.size();
  auto* bytes = static_cast<std::byte*>(destination.data());
  for (const auto& piece : wanted.pieces) {
    if (piece.shard.parts > 1) {
      read_shard_piece(wanted, piece, first, destination);
      continue;
    }
    const std::int64_t from = std::max(first, piece.first);
    const std::int64_t to = std::min(end, piece.first + piece.count);
    if (from >= to) continue;
    read_elements(path_ / piece.file, piece.dataset, wanted.dtype, from - piece.first, to - from,
                  bytes + static_cast<std::size_t>(from - first) * size_of(wanted.dtype));
  }
}

void Checkpoint::read(const std::string& name, Tensor destination) const {
  const ManifestTensor& wanted = tensor(name);
  const auto shape = destination.shape();
  if (!std::equal(shape.begin(), shape.end(), wanted.shape.begin(), wanted.shape.end())) {
    Tensor stored(destination.data(), wanted.dtype, DeviceKind::cpu, wanted.shape);
    throw Error(concat(path_.string(), ": ", name, " is ", stored.describe(),
                       ", but this model needs ", destination.describe()));
  }
  read(name, 0, destination);
}

std::string Checkpoint::text(const std::string& file) const { return read_text(path_ / file); }

std::int64_t Checkpoint::parameters() const {
  std::int64_t total = 0;
  for (const auto& t : manifest_.tensors) {
    if (t.name.starts_with("parameters/")) total += t.size();
  }
  return total;
}

}  // namespace convoy
