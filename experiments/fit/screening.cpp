#include "experiments/fit/screening.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "core/error.h"

namespace convoy {
namespace {

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

bool is_done(const std::string& status) {
  static const std::set<std::string> kDone = {"", "done", "finished", "completed", "complete"};
  return kDone.contains(status);
}

std::optional<std::string> unusable(const RunRow& run) {
  const std::string status = lower(run.status);
  if (status == "diverged") return "diverged";
  if (!is_done(status)) return concat("unfinished: its status is ", run.status);
  if (std::isnan(run.loss)) return "no final loss: unfinished, or diverged";
  if (std::isinf(run.loss) || run.loss <= 0)
    return concat("diverged: its loss is ", run.loss, ", which has no logarithm");
  return std::nullopt;
}

// What makes two rows the same experiment. Without a seed only an equal loss says that they are.
std::string identity_of(const RunRow& run) {
  const std::string last = run.seed ? concat("seed ", *run.seed) : concat("loss ", run.loss);
  return concat(run.arch, '\x1f', run.size, '\x1f', run.N, '\x1f', run.D, '\x1f', run.C, '\x1f',
                last);
}

}  // namespace

Screened screen(const std::vector<RunRow>& runs) {
  Screened result;
  std::map<std::string, const RunRow*> by_id;
  std::map<std::string, const RunRow*> by_identity;
  for (const RunRow& run : runs) {
    const auto exclude = [&](const std::string& why) {
      result.exclusions.push_back({label_of(run), why});
    };
    if (const auto why = unusable(run)) {
      exclude(*why);
      continue;
    }
    if (!run.run_id.empty()) {
      const auto [at, is_new] = by_id.emplace(run.run_id, &run);
      if (!is_new) {
        exclude(
            concat("duplicate: ", place_of(run), " repeats the run_id of ", place_of(*at->second)));
        continue;
      }
    }
    const auto [at, is_new] = by_identity.emplace(identity_of(run), &run);
    if (is_new)
      result.runs.push_back(run);
    else
      exclude(concat("duplicate of ", label_of(*at->second), ": equal arm, size, tokens and ",
                     run.seed ? "seed" : "loss"));
  }
  return result;
}

std::vector<RunRow> runs_of_arm(const std::vector<RunRow>& runs, const std::string& arm) {
  std::set<std::string> arms;
  for (const RunRow& run : runs) arms.insert(run.arch);
  std::string listed;
  for (const std::string& name : arms) listed += (listed.empty() ? "" : ", ") + name;
  if (arm.empty() && arms.size() > 1)
    throw Error(
        concat("the table has several arms, and one curve through all of them would mean "
               "nothing: give --arch one of ",
               listed, ", or use `convoy compare`"));
  if (arm.empty()) return runs;
  std::vector<RunRow> chosen;
  for (const RunRow& run : runs)
    if (run.arch == arm) chosen.push_back(run);
  if (chosen.empty())
    throw Error(concat("no usable run of the arm ", arm, ". There are: ", listed));
  return chosen;
}

void drop_largest_losses(Screened& screened, int count) {
  for (; count > 0 && !screened.runs.empty(); --count) {
    const auto worst =
        std::max_element(screened.runs.begin(), screened.runs.end(),
                         [](const RunRow& a, const RunRow& b) { return a.loss < b.loss; });
    screened.exclusions.push_back(
        {label_of(*worst), concat("left out as asked: among the largest losses, ", worst->loss)});
    screened.runs.erase(worst);
  }
}

void check_conventions(const std::vector<RunRow>& runs) {
  const RunRow* first = nullptr;
  for (const RunRow& run : runs) {
    if (first == nullptr) first = &run;
    if (run.flop_convention != first->flop_convention)
      throw Error(concat(label_of(*first), " counts its FLOPs as \"", first->flop_convention,
                         "\", ", label_of(run), " as \"", run.flop_convention,
                         "\": the convention decides the result, so give one table for each"));
  }
}

}  // namespace convoy
