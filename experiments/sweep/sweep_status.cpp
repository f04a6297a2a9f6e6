#include "experiments/sweep/sweep_status.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "experiments/run_record.h"
#include "launch/json_number.h"

namespace convoy {

std::vector<RunStanding> standings(const SweepPlan& plan, const RunStore& store) {
  std::vector<RunStanding> result;
  for (const auto& run : plan.runs) {
    RunStanding standing{&run, store.state(run), 0, kUnknown, store.message(run)};
    if (std::filesystem::exists(store.folder(run) / "run.json")) {
      const RunRecord record = read_run(store.folder(run));
      standing.steps = record.steps;
      if (!record.eval.empty()) {
        standing.val_loss = record.eval.back().val_loss;
        standing.val_accuracy = record.eval.back().val_accuracy;
      }
    }
    result.push_back(standing);
  }
  return result;
}

std::vector<std::string> edge_warnings(const std::vector<RunStanding>& standings) {
  using Key = std::tuple<std::string, std::string, double, double, std::int64_t>;
  std::map<Key, std::map<double, double>> losses;  // by multiplier
  for (const auto& s : standings) {
    if (s.state != RunState::done && s.state != RunState::diverged) continue;
    const double loss = s.state == RunState::done ? s.val_loss : INFINITY;
    if (std::isnan(loss)) continue;
    losses[{s.run->arch, s.run->size, s.run->budget, s.run->branch, s.run->seed}]
          [s.run->lr_multiplier] = loss;
  }
  std::vector<std::string> warnings;
  for (const auto& [key, by_multiplier] : losses) {
    if (by_multiplier.size() < 2) continue;
    const auto best =
        std::min_element(by_multiplier.begin(), by_multiplier.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    const bool lowest = best == by_multiplier.begin();
    if (!lowest && std::next(best) != by_multiplier.end()) continue;
    warnings.push_back(fmt::format(
        "{}, size {}, budget {}, {}x, seed {}: the best LR multiplier, {}, is the {} tried; try {} "
        "ones too",
        std::get<0>(key), std::get<1>(key), std::get<2>(key), std::get<3>(key), std::get<4>(key),
        best->first, lowest ? "lowest" : "highest", lowest ? "lower" : "higher"));
  }
  return warnings;
}

std::string to_table(const std::vector<RunStanding>& standings) {
  std::size_t width = 4;
  for (const auto& s : standings) width = std::max(width, s.run->name.size());
  std::string text = fmt::format("{:<{}}  {:<11} {:>8}/{:<8} {:>8} {:>8}\n", "run", width, "state",
                                 "done", "steps", "loss", "accuracy");
  std::map<std::string, std::size_t> counts;
  for (const auto& s : standings) {
    ++counts[name_of(s.state)];
    const auto four_digits = [](double x) {
      return std::isnan(x) ? std::string("-") : fmt::format("{:.4f}", x);
    };
    text += fmt::format("{:<{}}  {:<11} {:>8}/{:<8} {:>8} {:>8}  {}\n", s.run->name, width,
                        name_of(s.state), s.steps, s.run->steps, four_digits(s.val_loss),
                        four_digits(s.val_accuracy), s.message);
  }
  text += fmt::format("{} runs:", standings.size());
  for (const auto& [state, count] : counts) text += fmt::format(" {} {}", count, state);
  text += '\n';
  for (const auto& warning : edge_warnings(standings)) text += "warning: " + warning + "\n";
  return text;
}

std::string to_json(const std::vector<RunStanding>& standings) {
  nlohmann::ordered_json json = {{"runs", nlohmann::ordered_json::array()},
                                 {"warnings", edge_warnings(standings)}};
  for (const auto& s : standings) {
    json["runs"].push_back({{"id", s.run->id},
                            {"name", s.run->name},
                            {"status", name_of(s.state)},
                            {"steps_done", s.steps},
                            {"steps", s.run->steps},
                            {"val_loss", json_number(s.val_loss)},
                            {"message", s.message}});
  }
  return json.dump(2) + "\n";
}

}  // namespace convoy
