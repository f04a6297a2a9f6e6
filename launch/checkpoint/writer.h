// Writes checkpoints so that a kill at any moment leaves the one before: everything goes into a
// hidden folder, is synced, gets its manifest last, and is renamed; then `latest` moves, then old
// ones go. save() takes a snapshot and returns; a background thread writes it.
#pragma once

#include <exception>
#include <map>
#include <thread>

#include "core/memory.h"
#include "launch/checkpoint/checkpoint.h"

namespace convoy {

struct TensorRecord {
  std::string name;  // "parameters/...", "moment1/..."
  Tensor tensor;     // contiguous, on any device
};

class CheckpointWriter {
 public:
  struct Options {
    std::filesystem::path root;
    std::int64_t keep = 2;  // the newest so many stay
    bool async = true;
    std::vector<std::int64_t> pinned = {};  // steps whose checkpoints stay as well
  };

  CheckpointWriter(Backend& backend, Options options);
  ~CheckpointWriter();  // waits; a failure is lost here, so call finish() first
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // Copies the tensors and starts to write `root/step_<step>`. `texts`: small files by name.
  // Rethrows what failed in the save before.
  void save(std::int64_t step, const std::map<std::string, std::string>& texts,
            const std::vector<TensorRecord>& records);
  // Returns when everything saved is durable; rethrows what failed.
  void finish();

 private:
  struct Snapshot;

  void snapshot(Snapshot& snapshot, const std::vector<TensorRecord>& records);
  void write(const Snapshot& snapshot) const;
  void write_shard(const std::filesystem::path& folder, const Snapshot& snapshot,
                   Manifest& manifest) const;
  void publish(const std::filesystem::path& partial, const std::string& name) const;
  void remove_old() const;

  Backend& backend_;
  Options options_;
  std::thread thread_;
  std::exception_ptr failure_;
};

}  // namespace convoy
