#include "launch/run_checkpoint.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "core/backend.h"
#include "launch/lr_schedule.h"
#include "models/accounting.h"

namespace convoy {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kState = "state.json";
constexpr const char* kConfig = "config.toml";
constexpr const char* kTokenizer = "tokenizer.json";
constexpr const char* kRanks = "tokenizer.tiktoken";

// Control values are written as 17 digits, which bring back every bit; NaN and infinities, which
// JSON lacks, as text.
Json exact(double value) {
  if (std::isfinite(value)) return value;
  return concat(value);
}

double exact_back(const Json& json) {
  return json.is_string() ? std::stod(json.get<std::string>()) : json.get<double>();
}

std::string state_text(const RunConfig& config, const TrainingState& state,
                       const Optimizer::Control& control) {
  Json json = {{"step", state.step},
               {"attempt", state.attempt},
               {"wall_s", state.wall_s},
               {"tokens", state.step * config.train.batch_tokens},
               {"architecture", config.model.label()},
               {"parameters", count_parameters(config.model).total},
               {"val_loss", exact(state.val_loss)},
               {"val_bits_per_byte", exact(state.val_bits_per_byte)},
               {"val_targets", state.val_targets},
               {"control", Json::array()}};
  for (const double value : control) json["control"].push_back(exact(value));
  return json.dump(1) + "\n";
}

std::map<std::string, std::string> tokenizer_texts(const TokenizerDescription& d) {
  const Json json = {
      {"kind", d.kind}, {"has_end_of_text", d.has_end_of_text}, {"expression", d.expression}};
  std::map<std::string, std::string> texts = {{kTokenizer, json.dump(1) + "\n"}};
  if (!d.ranks.empty()) texts[kRanks] = d.ranks;
  return texts;
}

ManifestShard manifest_shard(const Parameter& parameter) {
  const Shard& shard = parameter.shard;
  if (shard.parts() == 1) return {};
  const Split& split = *parameter.placement.split;
  return {split.dim, split.sections, shard.parts(), shard.index()};
}

TensorRecord record_of(const std::string& kind, const OwnPart& part, const Tensor& values) {
  const Parameter& parameter = *part.parameter;
  TensorRecord record{kind + parameter.name, values};
  const ManifestShard shard = manifest_shard(parameter);
  if (part.is_whole() && shard.parts == 1) {
    record.tensor = Tensor(values.data(), values.dtype(), values.device(), parameter.shape);
  } else {
    record.shape = parameter.placement.shape;
    record.first = part.first;
    record.shard = shard;
  }
  return record;
}

// The ranks that have something to write, and the first.
std::vector<int> writers_among(Communicator& world, bool writes) {
  std::vector<std::int32_t> flags(static_cast<std::size_t>(world.size()), 0);
  flags[static_cast<std::size_t>(world.rank())] = writes || world.rank() == 0 ? 1 : 0;
  const Tensor all(flags.data(), DType::i32, DeviceKind::cpu, {world.size()});
  world.all_reduce(all, Reduction::sum).wait();
  std::vector<int> writers;
  for (int rank = 0; rank < world.size(); ++rank) {
    if (flags[static_cast<std::size_t>(rank)] > 0) writers.push_back(rank);
  }
  return writers;
}

}  // namespace

void save_run_checkpoint(CheckpointWriter& writer, Communicator& world, const RunConfig& config,
                         const TrainingState& state, const Optimizer& optimizer, bool counts,
                         const std::optional<TokenizerDescription>& tokenizer) {
  std::vector<TensorRecord> records;
  const auto& parts = optimizer.parts();
  const auto add_all = [&](const std::string& kind, auto tensor_of) {
    for (std::size_t i = 0; i < parts.size(); ++i) {
      if (parts[i].is_copy || (parts[i].is_shared && !counts)) continue;
      records.push_back(record_of(kind, parts[i], tensor_of(i)));
    }
  };
  add_all("parameters/", [&](std::size_t i) { return parts[i].exact(); });
  add_all("moment1/", [&](std::size_t i) { return optimizer.moment1(i); });
  add_all("moment2/", [&](std::size_t i) { return optimizer.moment2(i); });
  std::map<std::string, std::string> texts;
  if (world.rank() == 0) {
    if (tokenizer) texts = tokenizer_texts(*tokenizer);
    texts[kState] = state_text(config, state, optimizer.control());
    texts[kConfig] = to_toml(config);
  }
  writer.finish();
  const std::vector<int> writers = writers_among(world, !records.empty());
  if (world.rank() == 0) writer.prepare(state.step);
  world.barrier();  // the folder is there, and nothing old in it
  if (world.rank() == 0 || !records.empty()) {
    writer.save_together(state.step, texts, records, writers);
  }
}

namespace {

// A stored tensor in host memory, in the dtype it was stored in.
class HostTensor {
 public:
  HostTensor(const Checkpoint& checkpoint, const std::string& name, const Tensor& like)
      : bytes_(static_cast<std::size_t>(like.size()) * size_of(checkpoint.tensor(name).dtype)),
        view_(bytes_.data(), checkpoint.tensor(name).dtype, DeviceKind::cpu, like.shape()) {
    checkpoint.read(name, view_);
  }
  const Tensor& view() const { return view_; }

 private:
  std::vector<std::byte> bytes_;
  Tensor view_;
};

// Elements [part.first, part.first + part.count) of this rank's shard of a tensor, in host memory,
// in the dtype they were stored in.
class HostPart {
 public:
  HostPart(const Checkpoint& checkpoint, const std::string& kind, const OwnPart& part)
      : dtype_(checkpoint.tensor(kind + part.parameter->name).dtype),
        bytes_(static_cast<std::size_t>(part.count) * size_of(dtype_)) {
    const Parameter& parameter = *part.parameter;
    const std::string name = kind + parameter.name;
    if (checkpoint.tensor(name).shape != parameter.placement.shape) {
      std::vector<std::byte> none(1);
      const Tensor wanted(none.data(), dtype_, DeviceKind::cpu, parameter.placement.shape);
      checkpoint.read(name, wanted);  // throws, with both shapes
    }
    if (manifest_shard(parameter).parts == 1) {
      checkpoint.read(name, part.first, view());
    } else {
      read_shard(checkpoint, name, part);
    }
  }
  Tensor view() {
    const auto count = static_cast<std::int64_t>(bytes_.size() / size_of(dtype_));
    return {bytes_.data(), dtype_, DeviceKind::cpu, {count}};
  }

 private:
  void read_shard(const Checkpoint& checkpoint, const std::string& name, const OwnPart& part) {
    const std::int64_t size = checkpoint.tensor(name).size();
    std::vector<std::byte> whole(static_cast<std::size_t>(size) * size_of(dtype_));
    checkpoint.read(name, 0, Tensor(whole.data(), dtype_, DeviceKind::cpu, {size}));
    dispatch_real(dtype_, [&]<class T>() {
      const T* from = reinterpret_cast<const T*>(whole.data());
      T* to = view().data<T>();
      for (std::int64_t i = 0; i < part.count; ++i) {
        const auto index = part.parameter->shard.global_index_of(part.first + i);
        to[i] = index ? from[*index] : T{0};
      }
    });
  }

  DType dtype_;
  std::vector<std::byte> bytes_;
};

}  // namespace

// Weights of a bf16 run are stored as their f32 masters; a model that only runs takes the rounding.
void load_parameters(const Checkpoint& checkpoint, ParameterStore& store) {
  for (const auto& p : store.all()) {
    const HostTensor host(checkpoint, "parameters/" + p.name, p.exact());
    const DType stored = host.view().dtype();
    CHECK(stored == p.exact().dtype() || (stored == DType::f32 && p.value.dtype() == DType::bf16),
          p.name, " is stored in ", name_of(stored), " and wanted in ", name_of(p.exact().dtype()));
    store.set(p, host.view());
  }
}

TrainingState load_run_checkpoint(const std::filesystem::path& path, const RunConfig& config,
                                  Optimizer& optimizer) {
  const Checkpoint checkpoint = Checkpoint::open(path);
  if (checkpoint.parameters() != count_parameters(config.model).total) {
    throw Error(concat(path.string(), " is of another model: it has ", checkpoint.parameters(),
                       " parameters, this configuration ", count_parameters(config.model).total));
  }
  for (std::size_t i = 0; i < optimizer.parts().size(); ++i) {
    const OwnPart& part = optimizer.parts()[i];
    optimizer.set(i, HostPart(checkpoint, "parameters/", part).view(),
                  HostPart(checkpoint, "moment1/", part).view(),
                  HostPart(checkpoint, "moment2/", part).view());
  }
  const Json json = Json::parse(checkpoint.text(kState));
  Optimizer::Control control{};
  for (std::size_t i = 0; i < control.size(); ++i) control[i] = exact_back(json.at("control")[i]);
  optimizer.set_control(control);
  TrainingState state;
  state.step = json.at("step");
  state.attempt = json.at("attempt");
  state.wall_s = json.at("wall_s");
  state.val_loss = exact_back(json.at("val_loss"));
  state.val_bits_per_byte = exact_back(json.at("val_bits_per_byte"));
  state.val_targets = json.at("val_targets");
  return state;
}

namespace {

// Settings that a branch may change: the learning rates that follow are compared step by step.
bool may_differ(const std::string& key) {
  static const std::set<std::string> kFree = {"train.steps", "train.tokens", "train.flops",
                                              "train.cuda_graph"};
  for (const char* section : {"checkpoint.", "log.", "parallel.", "eval.", "lr_schedule."}) {
    if (key.starts_with(section)) return true;
  }
  return kFree.contains(key);
}

}  // namespace

void require_same_past(const std::filesystem::path& path, const RunConfig& config) {
  const Checkpoint checkpoint = Checkpoint::open(path);
  const RunConfig parent = config_of_checkpoint(checkpoint);
  const auto theirs = settings_of(parent);
  for (const auto& [key, value] : settings_of(config)) {
    if (may_differ(key) || theirs.at(key) == value) continue;
    throw Error(concat("cannot branch from ", path.string(), ": ", key, " is ", theirs.at(key),
                       " there and ", value, " here; a branch changes only its length"));
  }
  for (std::int64_t step = 1; step <= checkpoint.manifest().step; ++step) {
    const double there = learning_rate(parent, step), here = learning_rate(config, step);
    if (there == here) continue;
    throw Error(concat("cannot branch from ", path.string(), ": the learning rate of step ", step,
                       " is ", there, " there and ", here,
                       " here; branch no later than where the shorter cooldown begins"));
  }
}

RunConfig config_of_checkpoint(const Checkpoint& checkpoint,
                               const std::vector<std::string>& overrides) {
  return parse_config(checkpoint.text(kConfig), (checkpoint.path() / kConfig).string(), overrides);
}

std::unique_ptr<Tokenizer> tokenizer_of_checkpoint(const Checkpoint& checkpoint) {
  if (!std::filesystem::exists(checkpoint.path() / kTokenizer)) {
    throw Error(concat(checkpoint.path().string(),
                       " was trained on a synthetic task, so it has no tokenizer and no text to "
                       "continue; judge it by convoy eval"));
  }
  const Json json = Json::parse(checkpoint.text(kTokenizer));
  TokenizerDescription description;
  description.kind = json.at("kind");
  description.has_end_of_text = json.at("has_end_of_text");
  description.expression = json.at("expression");
  if (description.kind == "bpe") description.ranks = checkpoint.text(kRanks);
  return make_tokenizer(description);
}

}  // namespace convoy
