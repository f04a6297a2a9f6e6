#include "launch/checkpoint/writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <iomanip>
#include <memory>
#include <set>
#include <sstream>
#include <utility>

#include "core/backend.h"
#include "core/hdf5.h"
#include "core/sha256.h"
#include "launch/files.h"

namespace convoy {
namespace {

namespace fs = std::filesystem;

std::string numbered(const char* start, std::int64_t number) {
  std::ostringstream name;
  name << start << std::setw(5) << std::setfill('0') << number;
  return name.str();
}

std::string shard_name(int rank) { return numbered("shard_", rank) + ".h5"; }
// What a writer other than the first leaves for the first: its manifest, or why there is none.
std::string part_name(int rank) { return numbered("part_", rank) + ".json"; }
std::string failure_name(int rank) { return numbered("part_", rank) + ".failed"; }

// Makes a file's or a folder's content durable.
void sync(const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY);
  const bool synced = descriptor >= 0 && ::fsync(descriptor) == 0;
  const int error = errno;
  if (descriptor >= 0) ::close(descriptor);
  if (!synced) throw Error("cannot sync " + path.string() + ": " + std::strerror(error));
}

// What killed writers left under hidden names, of whatever step.
void remove_hidden(const fs::path& root, std::string_view ending) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(root)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(".step_") && name.ends_with(ending)) found.push_back(entry.path());
  }
  for (const auto& path : found) fs::remove_all(path);
}

// Swaps two folders at one instant; false on a file system that cannot (NFS).
bool exchange(const fs::path& a, const fs::path& b) {
  if (::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0) return true;
  if (errno == EINVAL || errno == ENOSYS) return false;
  throw Error(concat("cannot swap ", a.string(), " and ", b.string(), ": ", std::strerror(errno)));
}

std::string_view bytes_of(const Tensor& tensor) {
  return {static_cast<const char*>(tensor.data()), tensor.bytes()};
}

}  // namespace

// Host copies of the tensors, in one allocation.
struct CheckpointWriter::Snapshot {
  std::int64_t step = 0;
  std::vector<int> writers;
  bool makes_folder = false;  // itself, because it writes alone
  std::map<std::string, std::string> texts;
  std::vector<std::byte> memory;
  std::vector<TensorRecord> records;
};

CheckpointWriter::CheckpointWriter(Backend& backend, Options options)
    : backend_(backend), options_(std::move(options)) {}

CheckpointWriter::~CheckpointWriter() {
  if (thread_.joinable()) thread_.join();
}

void CheckpointWriter::finish() {
  if (thread_.joinable()) thread_.join();
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void CheckpointWriter::snapshot(Snapshot& snapshot, const std::vector<TensorRecord>& records) {
  std::size_t bytes = 0;
  for (const auto& record : records) bytes += record.tensor.bytes();
  snapshot.memory.resize(bytes);
  std::size_t offset = 0;
  for (const auto& record : records) {
    const Tensor& tensor = record.tensor;
    const Tensor copy(snapshot.memory.data() + offset, tensor.dtype(), DeviceKind::cpu,
                      tensor.shape());
    backend_.copy(copy, tensor);
    snapshot.records.push_back(record);
    snapshot.records.back().tensor = copy;
    offset += tensor.bytes();
  }
  backend_.synchronize();
}

fs::path CheckpointWriter::partial_folder(std::int64_t step) const {
  return options_.root / ("." + checkpoint_name(step) + ".partial");
}

void CheckpointWriter::prepare(std::int64_t step) {
  finish();
  make_folder(step);
}

void CheckpointWriter::make_folder(std::int64_t step) const {
  fs::create_directories(options_.root);
  remove_hidden(options_.root, ".partial");
  fs::create_directory(partial_folder(step));
}

void CheckpointWriter::save_together(std::int64_t step,
                                     const std::map<std::string, std::string>& texts,
                                     const std::vector<TensorRecord>& records,
                                     const std::vector<int>& writers) {
  start({step, writers, false, texts, {}, {}}, records);
}

void CheckpointWriter::save(std::int64_t step, const std::map<std::string, std::string>& texts,
                            const std::vector<TensorRecord>& records) {
  start({step, {options_.rank}, true, texts, {}, {}}, records);
}

void CheckpointWriter::start(Snapshot what, const std::vector<TensorRecord>& records) {
  finish();
  const auto taken = std::make_shared<Snapshot>(std::move(what));
  snapshot(*taken, records);
  thread_ = std::thread([this, taken] {
    try {
      options_.rank == 0 ? write(*taken) : write_part(*taken);
    } catch (...) {
      failure_ = std::current_exception();
    }
  });
  if (!options_.async) finish();
}

void CheckpointWriter::write_shard(const fs::path& folder, const Snapshot& snapshot,
                                   Manifest& manifest) const {
  const std::string name = shard_name(options_.rank);
  Hdf5File file((folder / name).string(), Hdf5File::Mode::create);
  for (const auto& [dataset, tensor, shape, first, shard] : snapshot.records) {
    file.write(dataset, element_type(tensor.dtype()), tensor.shape(), tensor.data());
  }
  file.flush();
  for (const auto& record : snapshot.records) {
    const Tensor& tensor = record.tensor;
    const auto offset = file.file_offset(record.name);
    CHECK(offset.has_value(), "dataset ", record.name, " has no place in its file");
    const std::vector<std::int64_t> own(tensor.shape().begin(), tensor.shape().end());
    manifest.tensors.push_back(
        {record.name,
         tensor.dtype(),
         record.is_piece() ? record.shape : own,
         {{name, record.name, record.first, tensor.size(), *offset,
           static_cast<std::int64_t>(tensor.bytes()), sha256_of(bytes_of(tensor)), record.shard}}});
  }
  file.close();
  sync(folder / name);
  manifest.files.push_back({name, static_cast<std::int64_t>(fs::file_size(folder / name)),
                            sha256_of_file((folder / name).string())});
}

// A writer other than the first: its shard, then, by one rename, what is in it.
void CheckpointWriter::write_part(const Snapshot& snapshot) const {
  const fs::path partial = partial_folder(snapshot.step);
  try {
    Manifest manifest;
    manifest.step = snapshot.step;
    write_shard(partial, snapshot, manifest);
    replace_text(partial / part_name(options_.rank), manifest.to_text());
  } catch (const std::exception& error) {
    replace_text(partial / failure_name(options_.rank), error.what());
    throw;
  }
}

namespace {

// Waits for what another writer leaves; `deadline_s` of 0: for ever.
Manifest await_part(const fs::path& partial, int rank, double deadline_s) {
  const auto start = std::chrono::steady_clock::now();
  const fs::path part = partial / part_name(rank), failure = partial / failure_name(rank);
  for (auto pause = std::chrono::milliseconds(1); !fs::exists(part);
       pause = std::min(2 * pause, std::chrono::milliseconds(100))) {
    if (fs::exists(failure)) {
      throw Error(concat("rank ", rank, " could not write its shard of ", partial.string(), ": ",
                         read_text(failure)));
    }
    const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - start;
    if (deadline_s > 0 && waited.count() > deadline_s) {
      throw Error(concat("rank ", rank, " has not written its shard of ", partial.string(), " in ",
                         deadline_s,
                         " s: it has ended, or its disk is slow; where it is slow, raise "
                         "parallel.communication_deadline_s"));
    }
    std::this_thread::sleep_for(pause);
  }
  Manifest manifest = Manifest::parse_part(read_text(part), part);
  fs::remove(part);
  return manifest;
}

}  // namespace

void CheckpointWriter::write(const Snapshot& snapshot) const {
  const std::string name = checkpoint_name(snapshot.step);
  const fs::path partial = partial_folder(snapshot.step);
  if (snapshot.makes_folder) make_folder(snapshot.step);
  Manifest manifest;
  manifest.step = snapshot.step;
  write_shard(partial, snapshot, manifest);
  for (const int writer : snapshot.writers) {
    if (writer != options_.rank) manifest.merge(await_part(partial, writer, options_.deadline_s));
  }
  for (const auto& [file, text] : snapshot.texts) {
    replace_text(partial / file, text);
    sync(partial / file);
    manifest.files.push_back({file, static_cast<std::int64_t>(fs::file_size(partial / file)),
                              sha256_of_file((partial / file).string())});
  }
  // What is published can be read.
  const std::string text = manifest.to_text();
  Manifest::parse(text, partial / Manifest::kFileName);
  replace_text(partial / Manifest::kFileName, text);
  sync(partial / Manifest::kFileName);
  sync(partial);
  publish(partial, name);
  remove_old();
}

void CheckpointWriter::publish(const fs::path& partial, const std::string& name) const {
  const fs::path target = options_.root / name;
  // The same step again: `latest` may name it, so it must not be gone even for a moment. Where
  // folders cannot be swapped there is such a moment, between two renames.
  const bool swapped = fs::exists(target) && exchange(partial, target);
  if (!swapped) {
    const fs::path old = options_.root / ("." + name + ".old");
    fs::remove_all(old);
    if (fs::exists(target)) fs::rename(target, old);
    fs::rename(partial, target);
  }
  sync(options_.root);
  const fs::path link = options_.root / ".latest.partial";
  fs::remove(link);
  fs::create_symlink(name, link);
  fs::rename(link, options_.root / "latest");
  sync(options_.root);
  if (swapped) fs::remove_all(partial);  // the replaced one
}

void CheckpointWriter::remove_old() const {
  remove_hidden(options_.root, ".old");
  std::set<std::string> pinned;
  for (const std::int64_t step : options_.pinned) pinned.insert(checkpoint_name(step));
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(options_.root)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("step_") && !pinned.contains(name)) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  const fs::path latest = options_.root / fs::read_symlink(options_.root / "latest");
  while (std::ssize(found) > options_.keep) {
    const fs::path oldest = found.front();
    found.erase(found.begin());
    if (oldest == latest) continue;
    // Renamed first, so that a half-removed folder is never taken for a checkpoint.
    const fs::path hidden = options_.root / ("." + oldest.filename().string() + ".old");
    fs::rename(oldest, hidden);
    fs::remove_all(hidden);
  }
}

}  // namespace convoy
