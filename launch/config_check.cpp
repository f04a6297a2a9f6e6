// What a whole run must satisfy, and the numbers that follow from it.
#include <algorithm>
#include <cmath>

#include "data/recall_task.h"
#include "launch/config.h"
#include "launch/layout.h"
#include "launch/run_device.h"
#include "launch/run_labels.h"

namespace convoy {
namespace {

class RunChecker {
 public:
  RunChecker(const RunConfig& config, int ranks)
      : c_(config), ranks_(ranks), problems_(config.problems) {
    for (auto& problem : problems_of(config.model)) problems_.push_back(std::move(problem));
  }

  std::vector<std::string> run() {
    check_layout();
    check_length();
    check_batch();
    check_optimizer();
    check_schedule();
    check_data();
    check_trace();
    check_ignored();
    return std::move(problems_);
  }

 private:
  template <class... Parts>
  void require(bool condition, const Parts&... parts) {
    if (!condition) problems_.push_back(concat(parts...));
  }
  bool changed(const std::string& key) const {
    return std::find(c_.keys_changed.begin(), c_.keys_changed.end(), key) != c_.keys_changed.end();
  }

  void check_layout() {
    const auto& p = c_.parallel;
    for (auto& problem : layout_problems(c_, ranks_)) problems_.push_back(std::move(problem));
    require(p.recompute_blocks >= 0 && p.recompute_blocks <= c_.model.n_layers,
            "parallel.recompute_blocks is ", p.recompute_blocks,
            "; use 0 to n_layers = ", c_.model.n_layers);
    require(p.communication_deadline_s >= 0, "parallel.communication_deadline_s is ",
            p.communication_deadline_s, "; use 0 (off) or a number of seconds");
    require(c_.train.device != "cuda" || cuda_device_count() > 0,
            "train.device = \"cuda\", but there is no GPU here or the program was built without "
            "CUDA; use \"cpu\" or \"auto\"");
    require(c_.train.precision != "bf16" || device_of_run(c_) == DeviceKind::cuda,
            "train.precision = \"bf16\" needs a CUDA device; use \"f32\" on a CPU");
  }

  void check_length() {
    const auto& t = c_.train;
    const int ways = (t.steps != 0) + (t.tokens != 0) + (t.flops != 0);
    require(ways == 1, "give exactly one of train.steps, train.tokens, train.flops (", ways,
            " are given)");
    require(t.steps >= 0 && t.tokens >= 0 && t.flops >= 0,
            "train.steps, tokens and flops cannot be negative");
    if (ways == 1 && t.batch_tokens > 0 && c_.model.seq_len > 0) {
      require(total_steps(c_) >= 1, "the run has no whole step: ", t.tokens, " tokens or ", t.flops,
              " FLOPs are less than one batch of ", t.batch_tokens, " tokens");
    }
  }

  void check_batch() {
    const auto& t = c_.train;
    require(t.micro_batch >= 1, "train.micro_batch is ", t.micro_batch, "; use 1 or more");
  }

  void check_optimizer() {
    const auto& o = c_.optimizer;
    require(o.lr > 0, "optimizer.lr is ", o.lr, "; use a positive number");
    require(o.eps > 0, "optimizer.eps is ", o.eps, "; use a positive number");
    require(o.clip >= 0, "optimizer.clip is ", o.clip, "; use 0 (off) or more");
    require(o.weight_decay >= 0, "optimizer.weight_decay is ", o.weight_decay, "; use 0 or more");
    require(o.spike_factor == 0 || o.spike_factor > 1, "optimizer.spike_factor is ", o.spike_factor,
            "; use 0 (off) or more than 1");
    require(o.max_skipped >= 1, "optimizer.max_skipped is ", o.max_skipped, "; use 1 or more");
    for (const double beta : o.betas) {
      require(beta >= 0 && beta < 1, "optimizer.betas has ", beta, "; use numbers in [0, 1)");
    }
  }

  void check_schedule() {
    const auto& s = c_.lr_schedule;
    const int ways = (s.warmup_steps != 0) + (s.warmup_tokens != 0) + (s.warmup_fraction != 0);
    require(ways <= 1,
            "give at most one of lr_schedule.warmup_steps, warmup_tokens, "
            "warmup_fraction (",
            ways, " are given)");
    require(s.warmup_steps >= 0 && s.warmup_tokens >= 0, "a warm-up cannot be negative");
    require(s.warmup_fraction >= 0 && s.warmup_fraction < 1, "lr_schedule.warmup_fraction is ",
            s.warmup_fraction, "; use a number in [0, 1)");
    require(s.cooldown >= 0 && s.cooldown <= 1, "lr_schedule.cooldown is ", s.cooldown,
            "; use a share of the steps in [0, 1]");
    require(s.min_lr >= 0 && s.min_lr <= c_.optimizer.lr, "lr_schedule.min_lr is ", s.min_lr,
            "; use 0 to optimizer.lr = ", c_.optimizer.lr);
  }

  void check_data() {
    const auto& d = c_.data;
    require(!d.train.empty(),
            "data.train is missing; make a token file with `convoy prepare`, or "
            "name a task, such as mqar:pairs=8");
    require(d.mix.empty() || d.mix.size() == d.train.size(), "data.mix has ", d.mix.size(),
            " weights for ", d.train.size(), " files of data.train");
    std::vector<std::string> sources = d.train;
    if (!d.val.empty()) sources.push_back(d.val);
    for (const auto& source : sources) check_task(source);
    for (const double weight : d.mix) {
      require(weight > 0, "data.mix has the weight ", weight, "; use positive numbers");
    }
    require(c_.checkpoint.keep >= 1, "checkpoint.keep is ", c_.checkpoint.keep, "; use 1 or more");
    require(c_.log.every >= 1, "log.every is ", c_.log.every, "; use 1 or more");
    require(c_.eval.every >= 0 && c_.eval.batches >= 0 && c_.checkpoint.every >= 0,
            "eval.every, eval.batches and checkpoint.every cannot be negative");
  }

  void check_task(const std::string& source) {
    if (!is_recall(source)) return;
    try {
      const RecallTask task(parse_recall(source), c_.model.seq_len);
      require(task.settings().vocabulary <= c_.model.vocab, "\"", source, "\" has a vocabulary of ",
              task.settings().vocabulary, ", the model one of ", c_.model.vocab,
              "; set model.vocab, or vocab= of the task");
    } catch (const Error& error) {
      problems_.emplace_back(error.what());
    }
  }

  void check_trace() {
    const std::vector<std::int64_t>& steps = c_.log.trace_steps;
    require(steps.size() == 2 && steps[0] >= 1 && steps[0] <= steps[1],
            "log.trace_steps are the first and the last step to trace: two numbers, from 1 on");
    if (c_.log.trace.empty() || c_.train.batch_tokens <= 0) return;
    require(device_of_run(c_) == DeviceKind::cpu,
            "log.trace records when the host runs operations, which says nothing about a GPU; set "
            "train.device = \"cpu\", or use NVIDIA's Nsight Systems");
    require(steps.size() != 2 || steps[1] <= total_steps(c_), "log.trace_steps end at step ",
            steps.back(), " of ", total_steps(c_), ": nothing would be written");
  }

  // A setting that would change nothing is a mistake somewhere.
  void check_ignored() {
    const auto& conv = c_.model.conv;
    const auto ignored = [&](const std::string& key, bool used, const std::string& because) {
      require(used || !changed(key), key, " is set but has no effect ", because, "; remove it");
    };
    if (conv.kind == FilterKind::none) {
      for (const char* key : {"on", "width", "rank", "head_size", "residual", "init"}) {
        ignored(concat("model.conv.", key), false, "with model.conv.kind = \"none\"");
      }
    } else {
      ignored("model.conv.rank", conv.kind == FilterKind::lowrank, "without kind = \"lowrank\"");
      ignored("model.conv.head_size", conv.kind == FilterKind::headwise,
              "without kind = \"headwise\"");
    }
    const bool wsd = c_.lr_schedule.kind == "wsd";
    ignored("lr_schedule.cooldown", wsd, "with kind = \"cosine\"");
    ignored("lr_schedule.shape", wsd, "with kind = \"cosine\"");
    const auto& p = c_.parallel;
    ignored("parallel.sequence_parallel", p.tp > 1, "with parallel.tp = 1");
    ignored("parallel.overlap", ranks_ > 1, "on one rank");
    ignored("parallel.recompute_blocks", c_.parallel.recompute == "block",
            "without parallel.recompute = \"block\"");
    ignored("eval.every", !c_.data.val.empty(), "without data.val");
    ignored("eval.batches", !c_.data.val.empty(), "without data.val");
    ignored("train.cuda_graph",
            device_of_run(c_) == DeviceKind::cuda && ranks_ == 1 &&
                c_.numerics == NumericsMode::fast && p.zero == 0,
            "on a CPU, on several ranks, in invariant mode or under ZeRO");
    ignored("numerics.deterministic", device_of_run(c_) == DeviceKind::cuda, "on a CPU");
    ignored("numerics.matmul_table",
            device_of_run(c_) == DeviceKind::cuda && c_.numerics == NumericsMode::fast,
            "on a CPU or in invariant mode");
    ignored("log.trace_steps", !c_.log.trace.empty(), "without log.trace");
    ignored("data.mix", c_.data.train.size() > 1, "with one training file");
  }

  const RunConfig& c_;
  int ranks_;
  std::vector<std::string> problems_;
};

}  // namespace

std::vector<std::string> problems_of(const RunConfig& config, int ranks) {
  return RunChecker(config, ranks).run();
}

namespace {

void require_none(const std::vector<std::string>& problems, const std::string& what) {
  if (problems.empty()) return;
  std::string text =
      concat(what, " has ", problems.size(), " problem", problems.size() == 1 ? ":" : "s:");
  for (const auto& problem : problems) text += "\n  - " + problem;
  throw Error(text);
}

}  // namespace

void require_trainable(const RunConfig& config, int ranks) {
  require_none(problems_of(config, ranks), config.origin);
}

void require_sound_model(const RunConfig& config) {
  std::vector<std::string> problems = config.problems;
  for (auto& problem : problems_of(config.model)) problems.push_back(std::move(problem));
  require_none(problems, config.origin);
}

std::int64_t total_steps(const RunConfig& config) {
  const auto& t = config.train;
  if (t.steps > 0) return t.steps;
  if (t.tokens > 0) return t.tokens / t.batch_tokens;
  const double step_flops =
      training_flops_per_token(config).total() * static_cast<double>(t.batch_tokens);
  return static_cast<std::int64_t>(std::floor(t.flops / step_flops));
}

std::int64_t warmup_steps(const RunConfig& config) {
  const auto& s = config.lr_schedule;
  if (s.warmup_steps > 0) return s.warmup_steps;
  if (s.warmup_tokens > 0) return s.warmup_tokens / config.train.batch_tokens;
  return static_cast<std::int64_t>(
      std::floor(s.warmup_fraction * static_cast<double>(total_steps(config))));
}

std::int64_t micro_batches(const RunConfig& config) {
  return config.train.batch_tokens / (config.model.seq_len * config.train.micro_batch);
}

DType dtype_of_run(const RunConfig& config) {
  if (config.train.precision == "f64") return DType::f64;
  return config.train.precision == "bf16" ? DType::bf16 : DType::f32;
}

}  // namespace convoy
