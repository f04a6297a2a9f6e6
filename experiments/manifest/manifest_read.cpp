// Reads a manifest, section by section, and reports all problems together.
#include <algorithm>
#include <fstream>
#include <sstream>

#include "experiments/manifest/exclusion.h"
#include "experiments/manifest/expression.h"
#include "experiments/manifest/sweep_manifest.h"
#include "experiments/manifest/table_reader.h"

namespace convoy {
namespace {

const std::set<std::string> kRuleVariables = {"N", "D", "d_model", "batch"};

std::string text_of(const toml::table& table) {
  std::ostringstream text;
  text << table;
  return text.str();
}

// "0.5x": a share of the planned tokens.
double parse_share(const std::string& text) {
  std::size_t used = 0;
  double share = 0;
  try {
    share = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used == 0 || text.substr(used) != "x" || !(share > 0)) {
    throw Error(concat("\"", text, "\" is not a positive multiple such as \"0.5x\""));
  }
  return share;
}

class ManifestReader {
 public:
  ManifestReader(const toml::table& root, const std::filesystem::path& origin) : root_(root) {
    m_.origin = origin;
  }

  SweepManifest run() {
    TableReader top(&root_, "", problems_);
    read_top(top);
    read_base(top);
    read_archs(top);
    read_sizes(top);
    read_plan(section(top, "plan"));
    read_rules(section(top, "rules"));
    read_launch(section(top, "launch"));
    read_fit(section(top, "fit"));
    read_compare(section(top, "compare"));
    top.finish();
    report();
    return std::move(m_);
  }

 private:
  void problem(const std::string& text) { problems_.push_back(text); }
  void require(bool condition, const std::string& text) {
    if (!condition) problem(text);
  }

  TableReader section(TableReader& top, const std::string& name) {
    const auto* node = top.find(name);
    require(node == nullptr || node->is_table(), "[" + name + "] is not a table");
    return {node == nullptr ? nullptr : node->as_table(), name, problems_};
  }

  void read_top(TableReader& top) {
    std::int64_t schema = 0;
    top.read("schema", schema);
    require(schema == 1, concat("schema is ", schema, "; this program reads schema = 1"));
    top.read("name", m_.name);
    require(!m_.name.empty(), "name is missing; give the study a name");
    std::string output = "runs/" + m_.name, store = m_.store.string();
    top.read("output", output);
    top.read("store", store);
    m_.output = output;
    m_.store = store;
  }

  // The file of base.config, relative to the manifest, with the other keys of [base] over it.
  void read_base(TableReader& top) {
    const auto* node = top.find("base");
    if (node == nullptr) return;
    require(node->is_table(), "[base] is not a table");
    if (!node->is_table()) return;
    toml::table keys = *node->as_table();
    std::string file;
    if (const auto name = keys["config"].value_exact<std::string>()) {
      const auto path = m_.origin.parent_path() / *name;
      std::ifstream in(path);
      require(static_cast<bool>(in), concat("base.config: cannot read ", path.string()));
      std::ostringstream text;
      text << in.rdbuf();
      file = text.str();
    } else {
      require(!keys.contains("config"), "base.config must be a string, the path of a TOML file");
    }
    keys.erase("config");
    refuse_reserved("base", keys);
    try {
      m_.base = merge_toml({file, text_of(keys)});
    } catch (const Error& error) {
      problem(concat("base.config: ", error.what()));
    }
  }

  // The sweep itself sets these for every run.
  void refuse_reserved(const std::string& where, const toml::table& layer) {
    for (const char* key : {"train.steps", "train.tokens", "train.flops", "train.seed",
                            "checkpoint.dir", "checkpoint.at"}) {
      require(!layer.at_path(key),
              concat(where, " sets ", key, ", which [plan] decides for each run; remove it"));
    }
  }

  void read_archs(TableReader& top) {
    const auto* node = top.find("arch");
    const auto* table = node == nullptr ? nullptr : node->as_table();
    if (table == nullptr) return problem("there is no [arch.NAME]; name one arm or more");
    std::vector<std::pair<toml::source_position, std::string>> places;  // in the file's order
    for (const auto& [key, arm] : *table) {
      const std::string name(key.str());
      require(arm.is_table(), concat("arch.", name, " is not a table"));
      if (arm.is_table()) places.emplace_back(arm.source().begin, name);
    }
    std::sort(places.begin(), places.end());
    for (const auto& [place, name] : places) {
      const toml::table& layer = *table->get(name)->as_table();
      refuse_reserved("arch." + name, layer);
      m_.archs.push_back({name, text_of(layer)});
    }
  }

  void read_sizes(TableReader& top) {
    const auto* node = top.find("size");
    const auto* list = node == nullptr ? nullptr : node->as_array();
    if (list == nullptr || list->empty()) return problem("there is no [[size]]; give one or more");
    for (const auto& element : *list) {
      const std::string where = concat("[[size]] number ", m_.sizes.size() + 1);
      if (!element.is_table()) return problem(where + " is not a table");
      toml::table layer = *element.as_table();
      const auto id = layer["id"].value_exact<std::string>();
      require(id && !id->empty(), where + " lacks id, the name of the size");
      layer.erase("id");
      refuse_reserved(where, layer);
      const std::string name = id.value_or("");
      for (const auto& other : m_.sizes) {
        require(other.name != name, concat("two sizes have the id \"", name, "\""));
      }
      m_.sizes.push_back({name, text_of(layer)});
    }
  }

  void read_plan(TableReader plan) {
    auto& p = m_.plan;
    plan.read("mode", p.mode, {"ladder", "isoflop", "grid", "steps"});
    plan.read("tokens_per_param", p.tokens_per_param);
    plan.read("flops", p.flops);
    plan.read("tokens", p.tokens);
    plan.read("steps", p.steps);
    plan.read("flops_tolerance", p.flops_tolerance);
    plan.read("match", p.match, {"flops", "params", "tokens", "wallclock"});
    plan.read("match_by", p.match_by, {"tokens", "depth", "width", "ffn"});
    read_numbers(plan, "tokens_per_s", p.tokens_per_s, arch_names());
    plan.read("flop_convention", p.flop_convention, {"parts", "6n", "causal", "full"});
    plan.read("param_convention", p.param_convention, {"non_embedding", "active", "total"});
    plan.read("seeds", p.seeds);
    plan.read("epochs", p.epochs);
    plan.read("unique_tokens", p.unique_tokens);
    std::vector<std::string> exclude;
    plan.read("exclude", exclude);
    for (const auto& text : exclude) {
      attempt("plan.exclude: ", [&] { p.exclude.push_back(parse_exclusion(text)); });
    }
    plan.finish();
    check_plan();
  }

  void check_plan() {
    const auto& p = m_.plan;
    const auto budget = [&](const char* mode, const char* key, const std::vector<double>& values) {
      const bool wanted = p.mode == mode;
      require(wanted || values.empty(), concat("plan.", key, " has no effect with mode = \"",
                                               p.mode, "\"; it belongs to \"", mode, "\""));
      require(!wanted || !values.empty(),
              concat("plan.", key, " is missing; mode = \"", mode, "\" needs one value or more"));
      for (const double value : values) {
        require(value > 0, concat("plan.", key, " has ", value, "; use positive numbers"));
      }
    };
    budget("ladder", "tokens_per_param", p.tokens_per_param);
    budget("isoflop", "flops", p.flops);
    budget("grid", "tokens", p.tokens);
    budget("steps", "steps", p.steps);
    require(p.flops_tolerance > 0 && p.flops_tolerance < 1,
            concat("plan.flops_tolerance is ", p.flops_tolerance, "; use a share such as 0.01"));
    require(!p.seeds.empty(), "plan.seeds is empty; give one or more");
    require(p.epochs > 0, concat("plan.epochs is ", p.epochs, "; use a positive number"));
    require(p.match != "params" || p.match_by != "tokens",
            "plan.match = \"params\" cannot be met by tokens; set match_by to depth, width or ffn");
    require(p.match_by == "tokens" || p.match == "params" || p.match == "flops",
            concat("plan.match_by = \"", p.match_by, "\" has no effect with match = \"", p.match,
                   "\"; use match = \"flops\" or \"params\""));
    for (const auto& arch : m_.archs) {
      require(p.match != "wallclock" || p.tokens_per_s.contains(arch.name),
              concat("plan.tokens_per_s lacks ", arch.name,
                     "; match = \"wallclock\" needs the "
                     "measured speed of every arm (convoy bench step)"));
    }
    require(p.match == "wallclock" || p.tokens_per_s.empty(),
            "plan.tokens_per_s has no effect without match = \"wallclock\"; remove it");
  }

  void read_rules(TableReader rules) {
    auto& r = m_.rules;
    read_lr(rules);
    rules.read("warmup_tokens", r.warmup_tokens);
    rules.read("schedule", r.schedule, {"", "cosine", "wsd"});
    rules.read("cooldown", r.cooldown);
    rules.read("lr_multipliers", r.lr_multipliers);
    std::vector<std::string> shares;
    rules.read("branch_at", shares);
    for (const auto& share : shares) {
      attempt("rules.branch_at: ", [&] { r.branch_at.push_back(parse_share(share)); });
    }
    rules.finish();
    check_expression("rules.warmup_tokens", r.warmup_tokens);
    for (const double m : r.lr_multipliers) {
      require(m > 0, concat("rules.lr_multipliers has ", m, "; use positive numbers"));
    }
    require(!r.lr_multipliers.empty(), "rules.lr_multipliers is empty; leave it out for [1]");
    require(r.branch_at.empty() || r.schedule == "wsd",
            "rules.branch_at needs schedule = \"wsd\": only a constant rate can be branched from");
    require(r.cooldown < 0 || (r.schedule == "wsd" && r.cooldown <= 1),
            concat("rules.cooldown is ", r.cooldown, " with schedule = \"", r.schedule,
                   "\"; it is a share in [0, 1] of a \"wsd\" schedule"));
  }

  // One expression for all arms, or a table of one for each.
  void read_lr(TableReader& rules) {
    const auto* node = rules.find("lr");
    if (node == nullptr) return;
    if (const auto* table = node->as_table()) {
      TableReader lr(table, "rules.lr", problems_);
      for (const auto& arch : m_.archs) {
        if (table->contains(arch.name)) lr.read(arch.name, m_.rules.lr[arch.name]);
      }
      lr.finish();
    } else {
      rules.read("lr", m_.rules.lr[""]);
    }
    for (const auto& [arch, text] : m_.rules.lr) {
      check_expression(arch.empty() ? "rules.lr" : "rules.lr." + arch, text);
    }
  }

  void read_launch(TableReader launch) {
    auto& l = m_.launch;
    launch.read("launcher", l.launcher, {"local", "mpirun", "srun", "sbatch"});
    if (const auto* ranks = launch.find("ranks"); ranks != nullptr && ranks->is_table()) {
      std::map<std::string, double> by_size;
      read_numbers(launch, "ranks", by_size, size_names());
      for (const auto& [size, n] : by_size) l.ranks[size] = static_cast<std::int64_t>(n);
    } else if (ranks != nullptr) {
      launch.read("ranks", l.ranks[""]);
    }
    launch.read("retries", l.retries);
    launch.read("array_max_parallel", l.array_max_parallel);
    launch.read("side_by_side", l.side_by_side);
    launch.read("device", l.device, {"cpu", "h100", "h200"});
    launch.read("srun_options", l.srun_options);
    launch.read("sbatch_options", l.sbatch_options);
    launch.read("train_options", l.train_options);
    launch.finish();
    for (const auto& [size, n] : l.ranks) {
      require(n >= 1, concat("launch.ranks has ", n, "; use 1 or more"));
      require(n == 1 || l.launcher != "local",
              concat("launch.ranks has ", n,
                     " with launcher = \"local\", which starts one "
                     "process; use launcher = \"mpirun\" or ranks = 1"));
    }
    require(l.retries >= 0 && l.array_max_parallel >= 0 && l.side_by_side >= 0,
            "launch.retries, array_max_parallel and side_by_side cannot be negative");
  }

  void read_fit(TableReader fit) {
    fit.read("law", m_.fit.law, {"chinchilla", "power"});
    fit.read("loss", m_.fit.loss, {"huber", "mse"});
    fit.read("holdout", m_.fit.holdout, {"largest", "none"});
    fit.finish();
  }

  void read_compare(TableReader compare) {
    auto& reference = m_.compare.reference;
    compare.read("reference", reference);
    compare.finish();
    const auto names = arch_names();
    if (reference.empty()) {
      reference = m_.archs.empty() ? "" : m_.archs.front().name;
    } else {
      require(names.contains(reference),
              concat("compare.reference = \"", reference, "\" is no arch; did you mean ",
                     nearest_name(reference, names), "?"));
    }
  }

  // A table of numbers by the name of an arch or a size.
  void read_numbers(TableReader& outer, const std::string& key,
                    std::map<std::string, double>& field, const std::set<std::string>& names) {
    const auto* node = outer.find(key);
    if (node == nullptr) return;
    require(node->is_table(), outer.full(key) + " must be a table of numbers");
    TableReader table(node->as_table(), outer.full(key), problems_);
    for (const auto& name : names) {
      if (table.find(name) != nullptr) table.read(name, field[name]);
    }
    table.finish();
    for (const auto& [name, value] : field) {
      require(value > 0, concat(outer.full(key), ".", name, " is ", value, "; use a positive one"));
    }
  }

  void check_expression(const std::string& where, const std::string& text) {
    if (text.empty()) return;
    const std::string wrong = problem_of_expression(text, kRuleVariables);
    require(wrong.empty(), where + ": " + wrong);
  }

  template <class Function>
  void attempt(const std::string& where, Function function) {
    try {
      function();
    } catch (const Error& error) {
      problem(where + error.what());
    }
  }

  std::set<std::string> arch_names() const { return names_of(m_.archs); }
  std::set<std::string> size_names() const { return names_of(m_.sizes); }
  static std::set<std::string> names_of(const std::vector<ConfigLayer>& layers) {
    std::set<std::string> names;
    for (const auto& layer : layers) names.insert(layer.name);
    return names;
  }

  void report() const {
    if (problems_.empty()) return;
    std::string text = concat(m_.origin.string(), " has ", problems_.size(), " problem",
                              problems_.size() == 1 ? ":" : "s:");
    for (const auto& line : problems_) text += "\n  - " + line;
    throw Error(text);
  }

  const toml::table& root_;
  SweepManifest m_;
  std::vector<std::string> problems_;
};

}  // namespace

SweepManifest parse_sweep_manifest(const std::string& toml, const std::filesystem::path& origin) {
  try {
    const toml::table root = toml::parse(toml, origin.string());
    return ManifestReader(root, origin).run();
  } catch (const toml::parse_error& error) {
    throw Error(concat(origin.string(), ':', error.source().begin.line, ':',
                       error.source().begin.column, ": ", error.description()));
  }
}

SweepManifest read_sweep_manifest(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) throw Error(concat("cannot read the manifest ", path.string()));
  std::ostringstream text;
  text << file.rdbuf();
  return parse_sweep_manifest(text.str(), path);
}

}  // namespace convoy
