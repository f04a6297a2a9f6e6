#include "experiments/sweep/run_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"
#include "experiments/manifest/data_facts.h"
#include "experiments/manifest/run_identity.h"
#include "experiments/run_record.h"
#include "launch/checkpoint/checkpoint.h"
#include "launch/environment.h"
#include "launch/files.h"
#include "launch/run_directory.h"

namespace convoy {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kRecord = "sweep.json";
constexpr const char* kFailure = "failure.txt";

int open_lock(const fs::path& folder) {
  return ::open((folder / "lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
}

// Whether somebody trains this run now.
bool is_held(const fs::path& folder) {
  const int descriptor = ::open((folder / "lock").c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return false;
  const bool held = ::flock(descriptor, LOCK_SH | LOCK_NB) != 0;
  ::close(descriptor);
  return held;
}

bool is_complete(const PlannedRun& run, const fs::path& folder) {
  const RunRecord record = read_run(folder);
  const bool trained = !record.train.empty() && record.train.back().step == run.steps;
  const bool judged =
      run.config.data.val.empty() || (!record.eval.empty() && record.eval.back().step == run.steps);
  return trained && judged;
}

// The first setting that differs, for the message.
std::string difference(const RunConfig& there, const RunConfig& here) {
  const auto theirs = settings_of(there);
  for (const auto& [key, value] : settings_of(here)) {
    if (theirs.at(key) != value)
      return concat(key, " is ", theirs.at(key), " there, ", value, " here");
  }
  return "the settings are the same";
}

Json data_record(const PlannedRun& run) {
  Json json = Json::object();
  std::vector<std::string> files = run.config.data.train;
  if (!run.config.data.val.empty()) files.push_back(run.config.data.val);
  for (const auto& path : files) {
    if (const auto facts = data_facts(path)) json[path] = facts->fingerprint;
  }
  return json;
}

void require_same_run(const PlannedRun& run, const fs::path& folder, const Json& data) {
  const std::string remedy = concat("; move ", folder.string(), " away, or use another store");
  if (const auto resolved = folder / "config.toml"; fs::exists(resolved)) {
    const RunConfig there = parse_config(read_text(resolved), resolved.string(), {});
    if (identity_text(there) != identity_text(run.config)) {
      throw Error(concat(run.id, " is in the store with another configuration (",
                         difference(there, run.config), ")", remedy));
    }
  }
  if (!fs::exists(folder / kRecord)) return;
  const Json record = Json::parse(read_text(folder / kRecord), nullptr, false);
  if (record.is_discarded()) return;
  for (const auto& [path, fingerprint] : data.items()) {
    const auto& before = record.at("data");
    if (!before.contains(path) || before.at(path) == fingerprint) continue;
    throw Error(concat(run.id, " was trained on other data: ", path, " has changed since", remedy));
  }
}

}  // namespace

std::string name_of(RunState state) {
  static const char* const kNames[] = {"planned", "running", "interrupted",
                                       "done",    "failed",  "diverged"};
  return kNames[static_cast<std::size_t>(state)];
}

std::optional<RunLock> RunLock::take(const fs::path& folder) {
  fs::create_directories(folder);
  const int descriptor = open_lock(folder);
  if (descriptor < 0) throw Error(concat("cannot write in ", folder.string()));
  if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0) return RunLock(descriptor);
  ::close(descriptor);
  return {};
}

void RunLock::sign(pid_t process) const {
  const std::string text = concat(host_name(), ' ', process, '\n');
  if (::ftruncate(descriptor_, 0) != 0 ||
      ::pwrite(descriptor_, text.data(), text.size(), 0) != std::ssize(text)) {
    throw Error("cannot write into a lock file of the run store; is the disk full?");
  }
}

RunLock::RunLock(RunLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

RunLock& RunLock::operator=(RunLock&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

RunLock::~RunLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

fs::path RunStore::config_file(const PlannedRun& run) const { return folder(run) / "planned.toml"; }

RunState RunStore::state(const PlannedRun& run) const {
  const fs::path place = folder(run);
  if (is_held(place)) return RunState::running;
  const std::string status = run_status(place);
  if (status == "done" && is_complete(run, place)) return RunState::done;
  if (status == "failed") return RunState::failed;
  if (status == "diverged") return RunState::diverged;
  if (fs::exists(place / kFailure)) return RunState::failed;
  return status.empty() && !fs::exists(place / "metrics.jsonl") ? RunState::planned
                                                                : RunState::interrupted;
}

std::string RunStore::message(const PlannedRun& run) const {
  if (const auto failure = folder(run) / kFailure; fs::exists(failure)) return read_text(failure);
  const auto path = folder(run) / "run.json";
  if (!fs::exists(path)) return "";
  const Json json = Json::parse(read_text(path), nullptr, false);
  return json.is_discarded() ? "" : json.value("message", "");
}

std::int64_t RunStore::steps_done(const PlannedRun& run) const {
  if (!fs::exists(folder(run) / "run.json")) return 0;
  return read_run(folder(run)).steps;
}

void RunStore::prepare(const PlannedRun& run) const {
  const fs::path place = folder(run);
  const Json data = data_record(run);
  require_same_run(run, place, data);
  replace_text(config_file(run), to_toml(run.config));
  replace_text(
      place / kRecord,
      Json({{"id", run.id}, {"config_hash", config_hash(run.config)}, {"data", data}}).dump(2) +
          "\n");
}

void RunStore::note_failure(const PlannedRun& run, const std::string& reason) const {
  if (reason.empty()) {
    fs::remove(folder(run) / kFailure);
  } else if (fs::exists(folder(run))) {
    replace_text(folder(run) / kFailure, reason);
  }
}

fs::path RunStore::branch_checkpoint(const PlannedRun& run) const {
  if (run.parent.empty()) return {};
  const fs::path root = root_ / run.parent / "checkpoints";
  if (!fs::exists(root)) return {};
  const std::string limit = checkpoint_name(run.branch_step);
  fs::path best;
  for (const auto& entry : fs::directory_iterator(root)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("step_") || name > limit || name <= best.filename().string()) continue;
    if (fs::exists(entry.path() / "manifest.json")) best = entry.path();
  }
  return best;
}

}  // namespace convoy
