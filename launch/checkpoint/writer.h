// Writes checkpoints so that a kill at any moment leaves the one before: everything goes into a
// hidden folder, is synced, gets its manifest last, and is renamed; then `latest` moves, then old
// ones go. save() takes a snapshot and returns; a background thread writes it.
//
// Several ranks may write one checkpoint, each a file of its own with the pieces of tensors that it
// has. Each says what it has written in a small file beside it; the first rank waits for those of
// all writers, joins them into the manifest, and publishes. So no rank needs another's memory, and
// the threads need no communicator.
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
  // Where it is only a piece: of which tensor or shard, and its first element there.
  std::vector<std::int64_t> shape = {};  // global; empty: the tensor is whole
  std::int64_t first = 0;
  ManifestShard shard = {};

  bool is_piece() const { return !shape.empty(); }
};

class CheckpointWriter {
 public:
  struct Options {
    std::filesystem::path root;
    std::int64_t keep = 2;  // the newest so many stay
    bool async = true;
    std::vector<std::int64_t> pinned = {};  // steps whose checkpoints stay as well
    int rank = 0;                           // among those that write together
    double deadline_s = 0;  // for the other writers' shards, which the first waits for; 0: none
  };

  CheckpointWriter(Backend& backend, Options options);
  ~CheckpointWriter();  // waits; a failure is lost here, so call finish() first
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // Copies the tensors and starts to write `root/step_<step>`. `texts`: small files by name, of the
  // first rank. Rethrows what failed in the save before.
  void save(std::int64_t step, const std::map<std::string, std::string>& texts,
            const std::vector<TensorRecord>& records);
  // The same by all `writers`, of which rank 0 is one. Rank 0 prepares before any of them begins,
  // when all of them have finished what was before.
  void prepare(std::int64_t step);
  void save_together(std::int64_t step, const std::map<std::string, std::string>& texts,
                     const std::vector<TensorRecord>& records, const std::vector<int>& writers);
  // Returns when everything saved is durable; rethrows what failed.
  void finish();

 private:
  struct Snapshot;

  void start(Snapshot what, const std::vector<TensorRecord>& records);
  void make_folder(std::int64_t step) const;
  void snapshot(Snapshot& snapshot, const std::vector<TensorRecord>& records);
  void write(const Snapshot& snapshot) const;
  void write_part(const Snapshot& snapshot) const;
  void write_shard(const std::filesystem::path& folder, const Snapshot& snapshot,
                   Manifest& manifest) const;
  std::filesystem::path partial_folder(std::int64_t step) const;
  void publish(const std::filesystem::path& partial, const std::string& name) const;
  void remove_old() const;

  Backend& backend_;
  Options options_;
  std::thread thread_;
  std::exception_ptr failure_;
};

}  // namespace convoy
