#include "experiments/fit/ordering.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>

#include "core/error.h"

namespace convoy {
namespace {

struct Cell {
  double loss = 0;
  double C = 0;
};
using Key = std::tuple<std::string, double, long long>;  // size, tokens per parameter, seed
using Arm = std::map<Key, Cell>;

// Token counts differ between arms that are matched in FLOPs, so the rank of the token count within
// the arm and size stands for it (the branches of one size keep their order).
std::map<std::string, Arm> arms_of(const std::vector<RunRow>& runs) {
  std::map<std::pair<std::string, std::string>, std::map<double, double>> ranks;
  for (const RunRow& run : runs) ranks[{run.arch, run.size}][run.D] = 0;
  for (auto& [place, counts] : ranks) {
    double next = 0;
    for (auto& [tokens, rank] : counts) rank = next++;
  }
  std::map<std::string, Arm> arms;
  for (const RunRow& run : runs) {
    const double rank = ranks[{run.arch, run.size}][run.D];
    arms[run.arch][{run.size, rank, run.seed.value_or(0)}] = {run.loss, run.C};
  }
  return arms;
}

std::string verdict_of(const Estimate& difference) {
  if (!difference.interval) return "one seed: no spread";
  if (difference.interval->low > 0) return "ordered";
  if (difference.interval->high < 0) return "reversed";
  return "tied";
}

OrderedPair pair_of(const std::string& better, const std::string& worse, const std::string& size,
                    const std::vector<double>& differences, double flops_ratio) {
  OrderedPair pair{.better = better, .worse = worse, .size = size};
  pair.difference = estimate(differences);
  pair.verdict = verdict_of(pair.difference);
  pair.flops_ratio = flops_ratio;
  return pair;
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// One pair of arms at each size that they share, and over the sizes where those are several.
void add_pairs(std::vector<OrderedPair>& pairs, const std::map<std::string, Arm>& arms,
               const std::string& better, const std::string& worse) {
  // Of each size: one value per seed, the mean over its token counts.
  std::map<std::string, std::map<long long, std::vector<double>>> by_size;
  std::map<std::string, std::vector<double>> ratios;
  for (const auto& [key, cell] : arms.at(better)) {
    const auto other = arms.at(worse).find(key);
    if (other == arms.at(worse).end()) continue;
    by_size[std::get<0>(key)][std::get<2>(key)].push_back(other->second.loss - cell.loss);
    ratios[std::get<0>(key)].push_back(other->second.C / cell.C);
  }
  std::vector<double> size_means, all_ratios;
  for (const auto& [size, by_seed] : by_size) {
    std::vector<double> differences;
    for (const auto& [seed, values] : by_seed) differences.push_back(mean(values));
    pairs.push_back(pair_of(better, worse, size, differences, mean(ratios[size])));
    size_means.push_back(mean(differences));
    all_ratios.push_back(mean(ratios[size]));
  }
  if (size_means.size() > 1)
    pairs.push_back(pair_of(better, worse, "", size_means, mean(all_ratios)));
}

// By the mean loss at the (size, tokens, seed) that every arm has; by all runs where there is none.
std::vector<std::string> observed_order(const std::map<std::string, Arm>& arms) {
  const auto everywhere = [&](const Key& key) {
    return std::all_of(arms.begin(), arms.end(),
                       [&](const auto& arm) { return arm.second.contains(key); });
  };
  std::vector<std::pair<double, std::string>> order;
  for (const auto& [name, arm] : arms) {
    std::vector<double> common, all;
    for (const auto& [key, cell] : arm) {
      all.push_back(cell.loss);
      if (everywhere(key)) common.push_back(cell.loss);
    }
    order.emplace_back(mean(common.empty() ? all : common), name);
  }
  std::sort(order.begin(), order.end());
  std::vector<std::string> names;
  for (const auto& [loss, name] : order) names.push_back(name);
  return names;
}

}  // namespace

std::vector<OrderedPair> orderings(const std::vector<RunRow>& runs,
                                   std::vector<std::string> expected) {
  const auto arms = arms_of(runs);
  if (expected.empty()) expected = observed_order(arms);
  for (const std::string& name : expected)
    if (!arms.contains(name)) {
      std::string listed;
      for (const auto& [arm, cells] : arms) listed += (listed.empty() ? "" : ", ") + arm;
      throw Error(concat("no usable run of the arm ", name, ". There are: ", listed));
    }
  std::vector<OrderedPair> pairs;
  for (std::size_t i = 0; i < expected.size(); ++i)
    for (std::size_t j = i + 1; j < expected.size(); ++j)
      add_pairs(pairs, arms, expected[i], expected[j]);
  return pairs;
}

}  // namespace convoy
