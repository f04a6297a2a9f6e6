// From a manifest to runs: sizes x budgets x arms x seeds x multipliers, each with its branches.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "core/error.h"
#include "experiments/manifest/data_facts.h"
#include "experiments/manifest/matching.h"
#include "experiments/manifest/run_identity.h"
#include "experiments/manifest/run_rules.h"
#include "experiments/manifest/sweep_plan.h"
#include "launch/planner.h"
#include "launch/run_labels.h"

namespace convoy {
namespace {

constexpr double kHighLearningRate = 5e-3;

// One arm at one size, before any budget: what all of its runs share.
struct Cell {
  const ConfigLayer* arch;
  const ConfigLayer* size;
  RunConfig config;
  double n = 0;
  double flops_per_token = 0;  // by the plan's convention
  double step_seconds = 0;     // estimated
  std::vector<std::string> warnings;
};

std::string short_number(double value) { return concat(value); }

class Expander {
 public:
  explicit Expander(const SweepManifest& manifest) : m_(manifest) { plan_.manifest = manifest; }

  SweepPlan run() {
    make_cells();
    if (problems_.empty()) {
      for (const auto& size : m_.sizes) {
        for (const double budget : budgets()) add_budget(size, budget);
      }
      require_distinct();
      warn_of_the_whole();
      for (const auto& exclusion : m_.plan.exclude) {
        if (used_exclusions_.contains(exclusion.text)) continue;
        problem(concat("plan.exclude \"", exclusion.text, "\" leaves out no run; remove it"), "");
      }
      if (plan_.runs.empty() && problems_.empty()) problem("plan.exclude leaves no run", "");
    }
    report();
    return std::move(plan_);
  }

 private:
  // The same problem in many runs is told once, with the first place and how many more there are.
  void problem(const std::string& text, const std::string& where) {
    problems_[text].push_back(where);
  }

  const std::vector<double>& budgets() const {
    if (m_.plan.mode == "ladder") return m_.plan.tokens_per_param;
    if (m_.plan.mode == "steps") return m_.plan.steps;
    return m_.plan.mode == "isoflop" ? m_.plan.flops : m_.plan.tokens;
  }

  Cell& cell(const std::string& arch, const std::string& size) { return cells_.at({arch, size}); }

  void make_cells() {
    for (const auto& size : m_.sizes) {
      for (const auto& arch : m_.archs) make_cell(arch, size);
      if (!problems_.empty()) continue;
      const ModelConfig reference = cell(m_.compare.reference, size.name).config.model;
      for (const auto& arch : m_.archs) finish_cell(cell(arch.name, size.name), reference);
    }
  }

  // What the sweep decides is taken out of the layers; what is unknown or wrong in them is told.
  void make_cell(const ConfigLayer& arch, const ConfigLayer& size) {
    const std::string where = concat("arch ", arch.name, ", size ", size.name);
    Cell cell{&arch, &size, {}, 0, 0, 0, {}};
    cell.config = parse_config(merge_toml({m_.base, size.toml, arch.toml}), where, {});
    for (const auto& text : cell.config.problems) problem(text, where);
    for (const auto& text : problems_of(cell.config.model)) problem(text, where);
    if (cell.config.train.batch_tokens < 1) {
      problem(concat("train.batch_tokens is ", cell.config.train.batch_tokens), where);
    }
    cells_.emplace(std::pair(arch.name, size.name), std::move(cell));
  }

  void finish_cell(Cell& cell, const ModelConfig& reference) {
    RunConfig& config = cell.config;
    if (cell.arch->name != m_.compare.reference) {
      const ModelConfig own = config.model;
      config.model = matched_shape(reference, config, m_.plan);
      warn_of_shape(cell, own);
    }
    config.train.tokens = 0;
    config.train.flops = 0;
    if (!m_.rules.schedule.empty()) config.lr_schedule.kind = m_.rules.schedule;
    if (m_.rules.cooldown >= 0) config.lr_schedule.cooldown = m_.rules.cooldown;
    cell.n = parameters_by(config.model, m_.plan.param_convention);
    cell.flops_per_token = training_flops_per_token(config, m_.plan.flop_convention);
    try {
      const auto ranks = static_cast<int>(m_.launch.ranks_of(cell.size->name));
      cell.step_seconds = make_plan(config, ranks, device_spec(m_.launch.device)).step_seconds;
    } catch (const Error& error) {
      problem(error.what(), config.origin);
    }
  }

  void warn_of_shape(Cell& cell, const ModelConfig& own) {
    const ModelConfig& model = cell.config.model;
    if (m_.plan.match_by == "tokens") return;
    cell.warnings.push_back(concat("matched by ", m_.plan.match_by, ": d_model ", own.d_model,
                                   " -> ", model.d_model, ", n_layers ", own.n_layers, " -> ",
                                   model.n_layers, ", d_ff ", own.d_ff, " -> ", model.d_ff));
  }

  // The reference's tokens for a budget, and what the others are matched to.
  ReferenceRun reference_run(const Cell& reference, double budget) const {
    if (m_.plan.mode == "isoflop") return {budget / reference.flops_per_token, budget};
    const auto batch = static_cast<double>(reference.config.train.batch_tokens);
    const double wanted = m_.plan.mode == "ladder"  ? budget * reference.n
                          : m_.plan.mode == "steps" ? budget * batch
                                                    : budget;
    const double tokens = std::max(std::round(wanted / batch), 1.0) * batch;
    return {tokens, tokens * reference.flops_per_token};
  }

  void add_budget(const ConfigLayer& size, double budget) {
    const ReferenceRun reference = reference_run(cell(m_.compare.reference, size.name), budget);
    for (const auto& arch : m_.archs) {
      for (const std::int64_t seed : m_.plan.seeds) {
        for (const double multiplier : m_.rules.lr_multipliers) {
          add_chain(cell(arch.name, size.name), reference, budget, seed, multiplier);
        }
      }
    }
  }

  // A long run and its branches, the longest first; each a run of its own.
  void add_chain(const Cell& cell, const ReferenceRun& reference, double budget, std::int64_t seed,
                 double multiplier) {
    std::vector<double> shares =
        m_.rules.branch_at.empty() ? std::vector<double>{1} : m_.rules.branch_at;
    std::sort(shares.rbegin(), shares.rend());
    std::vector<PlannedRun> chain;
    for (const double share : shares) {
      PlannedRun run = make_run(cell, budget, seed, multiplier, share);
      if (is_excluded(run)) continue;
      try {
        set_length(run, cell, reference);
        finish_run(run, cell);
        chain.push_back(std::move(run));
      } catch (const Error& error) {
        problem(error.what(), run.name);
      }
    }
    if (chain.empty()) return;
    link(chain);
    for (PlannedRun& run : chain) {
      complete(run);
      run.chain = chains_;
      plan_.runs.push_back(std::move(run));
    }
    ++chains_;
  }

  PlannedRun make_run(const Cell& cell, double budget, std::int64_t seed, double multiplier,
                      double share) const {
    PlannedRun run;
    run.arch = cell.arch->name;
    run.size = cell.size->name;
    run.seed = seed;
    run.budget = budget;
    run.lr_multiplier = multiplier;
    run.branch = share;
    run.name = concat(run.arch, "-", run.size, "-", short_number(budget),
                      m_.plan.mode == "ladder"    ? "tpp"
                      : m_.plan.mode == "isoflop" ? "flops"
                      : m_.plan.mode == "grid"    ? "tokens"
                                                  : "steps",
                      "-seed", seed);
    if (multiplier != 1) run.name += concat("-lr", multiplier);
    if (!m_.rules.branch_at.empty()) run.name += concat("-", share, "x");
    run.config = cell.config;
    run.ranks = static_cast<int>(m_.launch.ranks_of(run.size));
    run.n = cell.n;
    run.warnings = cell.warnings;
    return run;
  }

  bool is_excluded(const PlannedRun& run) {
    const auto& mode = m_.plan.mode;
    const RunTraits traits{{{"arch", run.arch}, {"size", run.size}},
                           {{"seed", static_cast<double>(run.seed)},
                            {"tokens_per_param", mode == "ladder" ? run.budget : NAN},
                            {"tokens", mode == "grid" ? run.budget : NAN},
                            {"flops", mode == "isoflop" ? run.budget : NAN},
                            {"steps", mode == "steps" ? run.budget : NAN},
                            {"lr_multiplier", run.lr_multiplier},
                            {"branch", run.branch}}};
    bool excluded = false;
    for (const auto& exclusion : m_.plan.exclude) {
      if (!meets(traits, exclusion)) continue;
      excluded = true;
      used_exclusions_.insert(exclusion.text);
    }
    return excluded;
  }

  std::int64_t steps_for(double tokens, const RunConfig& config) const {
    return std::llround(tokens / static_cast<double>(config.train.batch_tokens));
  }

  void set_length(PlannedRun& run, const Cell& cell, const ReferenceRun& reference) {
    const double planned = matched_tokens(reference, run.config, run.arch, m_);
    run.steps = steps_for(run.branch * planned, run.config);
    const auto batch = static_cast<double>(run.config.train.batch_tokens);
    const double step_flops = cell.flops_per_token * batch;
    if (run.steps < 1) {
      throw Error(concat("the run has no whole step: ", run.branch * planned,
                         " tokens are less than half a batch of ", batch,
                         "; use a smaller train.batch_tokens or a larger budget"));
    }
    run.tokens = static_cast<double>(run.steps) * batch;
    run.flops = cell.flops_per_token * run.tokens;
    apply_rules(m_.rules, static_cast<double>(steps_for(planned, run.config)) * batch, run);
    const bool is_reference = run.arch == m_.compare.reference;
    if (is_reference || m_.plan.match == "flops") run.target_flops = run.branch * reference.flops;
    check_match(run, step_flops);
  }

  // Within the tolerance, or one step.
  void check_match(const PlannedRun& run, double step_flops) {
    const double tolerance = m_.plan.flops_tolerance;
    const double difference = std::abs(run.flops - run.target_flops);
    if (run.target_flops > 0 && difference > std::max(tolerance * run.target_flops, step_flops)) {
      throw Error(concat("C is ", run.flops, ", ", 100 * difference / run.target_flops,
                         " % off the target ", run.target_flops, ", more than ", 100 * tolerance,
                         " %; use match_by = \"tokens\" or raise plan.flops_tolerance"));
    }
    if (m_.plan.match != "params") return;
    const double wanted = cell(m_.compare.reference, run.size).n;
    if (std::abs(run.n - wanted) <= tolerance * wanted) return;
    throw Error(concat("N is ", run.n, " and the reference's ", wanted, ", more than ",
                       100 * tolerance, " % apart; no ", m_.plan.match_by,
                       " comes closer: use another plan.match_by or raise plan.flops_tolerance"));
  }

  void finish_run(PlannedRun& run, const Cell& cell) {
    RunConfig& config = run.config;
    config.train.seed = run.seed;
    const auto& changed = config.keys_changed;
    if (std::find(changed.begin(), changed.end(), "data.seed") == changed.end()) {
      config.data.seed = run.seed;
    }
    run.hours = cell.step_seconds * static_cast<double>(run.steps) / 3600;
    check_data(run);
    warn(run);
  }

  void check_data(PlannedRun& run) {
    const auto& config = run.config;
    auto distinct = distinct_tokens(config.data.train, config.model.seq_len);
    if (!distinct && m_.plan.unique_tokens > 0) distinct = m_.plan.unique_tokens;
    if (!distinct) {
      run.warnings.emplace_back("the data are not there yet, so epochs are unknown");
      return;
    }
    run.unique_tokens = std::min(run.tokens, *distinct);
    run.epochs = run.tokens / *distinct;
    if (run.epochs > m_.plan.epochs) {
      throw Error(concat("the run needs ", run.tokens, " tokens, ", run.epochs, " epochs of the ",
                         *distinct, " there are; allow them by plan.epochs (now ", m_.plan.epochs,
                         "), prepare more text, or plan fewer tokens"));
    }
    if (run.epochs > 1) run.warnings.emplace_back("more than one epoch of the data");
  }

  void warn(PlannedRun& run) const {
    const double lr = run.config.optimizer.lr;
    if (lr > kHighLearningRate) {
      run.warnings.push_back(concat("LR ", lr,
                                    " is high: at d_model 128 and 4,096 tokens a step "
                                    "4e-3 was already unstable"));
    }
  }

  // Branches start from the longest run's checkpoints, which must be there and stay.
  static void link(std::vector<PlannedRun>& chain) {
    PlannedRun& trunk = chain.front();
    for (std::size_t i = 1; i < chain.size(); ++i) {
      chain[i].branch_step = last_stable_step(chain[i].config);
      if (chain[i].branch_step < 1) continue;
      chain[i].parent = "trunk";  // its id is not known before its configuration is complete
      trunk.config.checkpoint.at.push_back(chain[i].branch_step);
      chain[i].hours *=
          1 - static_cast<double>(chain[i].branch_step) / static_cast<double>(chain[i].steps);
    }
    std::sort(trunk.config.checkpoint.at.begin(), trunk.config.checkpoint.at.end());
    const std::string id = run_id(trunk.config);
    for (PlannedRun& run : chain) {
      if (!run.parent.empty()) run.parent = id;
    }
  }

  void complete(PlannedRun& run) {
    RunConfig& config = run.config;
    if (config.checkpoint.every == 0) {  // so that little is lost by a kill
      constexpr std::int64_t kCheckpoints = 10;
      config.checkpoint.every = std::max<std::int64_t>(run.steps / kCheckpoints, 1);
    }
    RunConfig checked = parse_config(to_toml(config), run.name, {});
    // Whether a device has a precision is found out by the run, on that device.
    if (m_.launch.device != "cpu") checked.train.precision = "f32";
    for (const auto& text : problems_of(checked, run.ranks)) problem(text, run.name);
    run.id = run_id(config);
  }

  void require_distinct() {
    std::map<std::string, std::string> names;
    for (const auto& run : plan_.runs) {
      const auto [place, is_new] = names.emplace(run.id, run.name);
      if (!is_new) problem("is the same run as " + place->second, run.name);
    }
  }

  void warn_of_the_whole() {
    if (m_.fit.law == "chinchilla" && m_.plan.mode == "ladder" &&
        m_.plan.tokens_per_param.size() == 1 && m_.rules.branch_at.size() < 2) {
      plan_.warnings.emplace_back(
          "D/N takes one value only, which law = \"chinchilla\" cannot be "
          "fitted to; use fit.law = \"power\"");
    }
    const auto [low, high] = std::minmax_element(
        plan_.runs.begin(), plan_.runs.end(),
        [](const PlannedRun& a, const PlannedRun& b) { return a.flops < b.flops; });
    if (low == plan_.runs.end() || m_.sizes.size() * budgets().size() < 2) return;
    const double decades = std::log10(high->flops / low->flops);
    if (decades < 1.5) {
      plan_.warnings.push_back(concat("C spans ", decades, " decades; a law needs 1.5 or more"));
    }
  }

  void report() const {
    if (problems_.empty()) return;
    std::string text = concat(m_.origin.string(), " cannot be planned:");
    for (const auto& [what, places] : problems_) {
      text += "\n  - " + (places.front().empty() ? "" : places.front() + ": ") + what;
      if (places.size() > 1) text += concat(" (and ", places.size() - 1, " more)");
    }
    throw Error(text);
  }

  const SweepManifest& m_;
  SweepPlan plan_;
  std::map<std::pair<std::string, std::string>, Cell> cells_;  // by arch and size
  std::map<std::string, std::vector<std::string>> problems_;
  std::set<std::string> used_exclusions_;
  std::size_t chains_ = 0;
};

}  // namespace

SweepPlan expand(const SweepManifest& manifest) { return Expander(manifest).run(); }

const PlannedRun* SweepPlan::find(const std::string& id_or_name) const {
  for (const auto& run : runs) {
    if (run.id == id_or_name || run.name == id_or_name) return &run;
  }
  return nullptr;
}

}  // namespace convoy
