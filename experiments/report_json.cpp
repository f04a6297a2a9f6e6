#include "experiments/report_json.h"

#include <nlohmann/json.hpp>

#include "launch/json_number.h"

namespace convoy {
namespace {

using nlohmann::ordered_json;

ordered_json json_of(const Estimate& value) {
  ordered_json json{{"n", value.n},
                    {"mean", json_number(value.mean)},
                    {"sd", nullptr},
                    {"low", nullptr},
                    {"high", nullptr}};
  if (value.sd) json["sd"] = json_number(*value.sd);
  if (value.interval) {
    json["low"] = json_number(value.interval->low);
    json["high"] = json_number(value.interval->high);
  }
  return json;
}

ordered_json json_of(const RunRecord& run) {
  return {{"run", run.name},
          {"directory", run.directory.string()},
          {"arch", run.arch},
          {"seed", run.seed},
          {"ranks", run.ranks},
          {"device", run.device},
          {"git", run.git},
          {"parameters", run.parameters},
          {"steps", run.steps},
          {"tokens", json_number(run.tokens)},
          {"flops", json_number(run.flops)},
          {"wall_s", json_number(run.wall_s)},
          {"val_loss", json_number(run.val_loss)},
          {"val_bits_per_byte", json_number(run.val_bits_per_byte)},
          {"val_accuracy", json_number(run.eval.empty() ? kUnknown : run.eval.back().val_accuracy)},
          {"tokens_per_s", json_number(steady_tokens_per_s(run))},
          {"status", run.status},
          {"message", run.message}};
}

ordered_json json_of(const Arm& arm) {
  return {{"arm", arm.label},
          {"val_loss", json_of(arm.loss)},
          {"val_bits_per_byte", json_of(arm.bits_per_byte)},
          {"tokens_per_s", json_of(arm.tokens_per_s)},
          {"flops", json_of(arm.flops)}};
}

ordered_json json_of(const PairedDifference& difference) {
  return {{"arm", difference.arm},
          {"reference", difference.reference},
          {"val_loss", json_of(difference.loss)},
          {"val_bits_per_byte", json_of(difference.bits_per_byte)},
          {"flops_ratio", json_number(difference.flops_ratio)},
          {"equal_flops", difference.equal_flops},
          {"verdict", verdict(difference.loss)}};
}

ordered_json json_of(const ExcludedRun& exclusion) {
  return {{"run", exclusion.run}, {"reason", exclusion.reason}};
}

template <class Items>
ordered_json list_of(const Items& items) {
  ordered_json list = ordered_json::array();
  for (const auto& item : items) list.push_back(json_of(item));
  return list;
}

}  // namespace

std::string report_json(const Comparison& comparison) {
  const ordered_json json{{"runs", list_of(comparison.runs)},
                          {"arms", list_of(comparison.arms)},
                          {"differences", list_of(comparison.differences)},
                          {"excluded", list_of(comparison.exclusions)}};
  return json.dump(2) + "\n";
}

}  // namespace convoy
