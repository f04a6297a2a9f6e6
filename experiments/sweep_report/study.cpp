#include "experiments/sweep_report/study.h"

#include <set>

#include "core/error.h"
#include "experiments/json_fields.h"
#include "experiments/sweep/launcher.h"
#include "launch/files.h"

namespace convoy {
namespace {

using nlohmann::ordered_json;

// One word of a shell command.
std::string quoted(const std::string& word) {
  constexpr const char* kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

// As the scheduler starts it, but with the program by its name.
std::string command_of(const PlannedRun& run, const LaunchSection& launch, const RunStore& store) {
  std::string text;
  const std::string program = own_program().string();
  for (const std::string& word : train_command(run, launch, store))
    text += (text.empty() ? "" : " ") + (word == program ? "convoy" : quoted(word));
  return text;
}

StudyRun study_run(const PlannedRun& run, const SweepManifest& manifest, const RunStore& store) {
  return {.id = run.id,
          .name = run.name,
          .arch = run.arch,
          .size = run.size,
          .state = name_of(store.state(run)),
          .message = store.message(run),
          .command = command_of(run, manifest.launch, store),
          .seed = run.seed,
          .n = run.n,
          .tokens = run.tokens,
          .flops = run.flops,
          .target_flops = run.target_flops,
          .epochs = run.epochs,
          .lr = run.config.optimizer.lr,
          .lr_multiplier = run.lr_multiplier,
          .steps = run.steps};
}

// "2e-3*(800e3/N)^0.25", or "conv: 1e-3; others: 2e-3".
std::string lr_rules(const RulesSection& rules) {
  if (rules.lr.size() == 1 && rules.lr.begin()->first.empty()) return rules.lr.begin()->second;
  std::string text;
  for (const auto& [arch, rule] : rules.lr)
    text += concat(text.empty() ? "" : "; ", arch.empty() ? "others" : arch, ": ", rule);
  return text;
}

ordered_json json_of(const StudyRun& run) {
  return {{"id", run.id},
          {"name", run.name},
          {"arch", run.arch},
          {"size", run.size},
          {"seed", run.seed},
          {"state", run.state},
          {"message", run.message},
          {"N", run.n},
          {"D", run.tokens},
          {"C", run.flops},
          {"C_target", run.target_flops},
          {"epochs", run.epochs},
          {"steps", run.steps},
          {"lr", run.lr},
          {"lr_multiplier", run.lr_multiplier},
          {"command", run.command}};
}

StudyRun read_run(const nlohmann::json& object, const std::string& place) {
  const Fields fields(object, place);
  StudyRun run;
  run.id = fields.required<std::string>("id");
  run.name = fields.required<std::string>("name");
  run.arch = fields.required<std::string>("arch");
  run.size = fields.required<std::string>("size");
  run.state = fields.required<std::string>("state");
  run.message = fields.value_or<std::string>("message", "");
  run.command = fields.value_or<std::string>("command", "");
  run.seed = fields.required<std::int64_t>("seed");
  run.n = fields.number("N");
  run.tokens = fields.number("D");
  run.flops = fields.number("C");
  run.target_flops = fields.value_or("C_target", 0.0);
  run.epochs = fields.value_or("epochs", 0.0);
  run.steps = fields.value_or<std::int64_t>("steps", 0);
  run.lr = fields.number("lr");
  run.lr_multiplier = fields.value_or("lr_multiplier", 1.0);
  return run;
}

}  // namespace

Study study_of(const SweepPlan& plan, const RunStore& store) {
  const SweepManifest& manifest = plan.manifest;
  Study study{.name = manifest.name,
              .mode = manifest.plan.mode,
              .match = manifest.plan.match,
              .match_by = manifest.plan.match_by,
              .flops_tolerance = manifest.plan.flops_tolerance,
              .flop_convention = manifest.plan.flop_convention,
              .param_convention = manifest.plan.param_convention,
              .lr_rule = lr_rules(manifest.rules),
              .warmup_rule = manifest.rules.warmup_tokens,
              .schedule = manifest.rules.schedule,
              .law = manifest.fit.law,
              .loss = manifest.fit.loss,
              .holdout = manifest.fit.holdout,
              .reference = manifest.compare.reference};
  if (study.reference.empty() && !manifest.archs.empty())
    study.reference = manifest.archs.front().name;
  for (const Exclusion& exclusion : manifest.plan.exclude) study.exclude.push_back(exclusion.text);
  std::set<std::string> warnings(plan.warnings.begin(), plan.warnings.end());
  for (const PlannedRun& run : plan.runs) {
    study.runs.push_back(study_run(run, manifest, store));
    warnings.insert(run.warnings.begin(), run.warnings.end());
  }
  study.warnings.assign(warnings.begin(), warnings.end());
  return study;
}

std::string to_json(const Study& study) {
  ordered_json json{{"schema", 1},
                    {"name", study.name},
                    {"mode", study.mode},
                    {"match", study.match},
                    {"match_by", study.match_by},
                    {"flops_tolerance", study.flops_tolerance},
                    {"flop_convention", study.flop_convention},
                    {"param_convention", study.param_convention},
                    {"lr_rule", study.lr_rule},
                    {"warmup_rule", study.warmup_rule},
                    {"schedule", study.schedule},
                    {"law", study.law},
                    {"loss", study.loss},
                    {"holdout", study.holdout},
                    {"reference", study.reference},
                    {"exclude", study.exclude},
                    {"warnings", study.warnings},
                    {"runs", ordered_json::array()}};
  for (const StudyRun& run : study.runs) json["runs"].push_back(json_of(run));
  return json.dump(1) + "\n";
}

Study read_study(const std::filesystem::path& path) {
  const auto json = nlohmann::json::parse(read_text(path), nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded())
    throw Error(concat(path.string(), " is not JSON: write it again by `convoy sweep export`"));
  const Fields fields(json, path.string());
  if (const int schema = fields.value_or("schema", 0); schema != 1)
    throw Error(concat(path.string(), " has schema ", schema, ", and this program reads 1"));
  const auto text = [&](const char* key) { return fields.value_or<std::string>(key, ""); };
  Study study{.name = fields.required<std::string>("name"),
              .mode = text("mode"),
              .match = text("match"),
              .match_by = text("match_by"),
              .flops_tolerance = fields.value_or("flops_tolerance", 0.0),
              .flop_convention = text("flop_convention"),
              .param_convention = text("param_convention"),
              .lr_rule = text("lr_rule"),
              .warmup_rule = text("warmup_rule"),
              .schedule = text("schedule"),
              .law = text("law"),
              .loss = text("loss"),
              .holdout = text("holdout"),
              .reference = text("reference"),
              .exclude = fields.value_or<std::vector<std::string>>("exclude", {}),
              .warnings = fields.value_or<std::vector<std::string>>("warnings", {})};
  const auto runs = fields.required<std::vector<nlohmann::json>>("runs");
  for (std::size_t i = 0; i < runs.size(); ++i)
    study.runs.push_back(read_run(runs[i], concat("run ", i, " of ", path.string())));
  return study;
}

}  // namespace convoy
