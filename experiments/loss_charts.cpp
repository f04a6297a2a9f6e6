#include "experiments/loss_charts.h"

#include <algorithm>
#include <map>

#include "core/error.h"
#include "experiments/text_format.h"

namespace convoy {
namespace {

constexpr std::size_t kMostPoints = 400;  // a screen shows no more

// The values of all seeds at one step.
struct Seeds {
  double x = 0;
  std::vector<double> losses;

  double mean() const { return estimate(losses).mean; }
};

// Only steps that every seed of the arm has: a mean over changing sets would jump.
class StepTable {
 public:
  void add(long long step, double x, double loss) {
    Seeds& seeds = table_[step];
    seeds.x = x;
    if (drawable(loss, Scale::linear)) seeds.losses.push_back(loss);
  }

  std::vector<Seeds> complete(std::size_t seeds) const {
    std::vector<Seeds> rows;
    for (const auto& [step, row] : table_)
      if (row.losses.size() == seeds && row.x > 0) rows.push_back(row);
    return rows;
  }

 private:
  std::map<long long, Seeds> table_;
};

template <class Row>
double position(const Row& row, LossAgainst against) {
  return against == LossAgainst::flops ? row.flops : row.tokens;
}

std::vector<Seeds> validation_rows(const Comparison& all, const Arm& arm, LossAgainst against) {
  StepTable table;
  for (const std::size_t index : arm.runs)
    for (const EvalRecord& row : all.runs[index].eval)
      table.add(row.step, position(row, against), row.val_loss);
  return table.complete(arm.runs.size());
}

std::vector<Seeds> training_rows(const Comparison& all, const Arm& arm, LossAgainst against) {
  StepTable table;
  for (const std::size_t index : arm.runs)
    for (const StepRecord& row : all.runs[index].train)
      table.add(row.step, position(row, against), row.train_loss);
  return table.complete(arm.runs.size());
}

// A centred running mean over 2 % of the rows, thinned out to what a screen shows.
std::vector<Point> smoothed(const std::vector<Seeds>& rows) {
  const std::size_t reach = rows.size() / 100;  // to either side
  const std::size_t stride = 1 + rows.size() / kMostPoints;
  std::vector<double> sums = {0};
  for (const Seeds& row : rows) sums.push_back(sums.back() + row.mean());
  std::vector<Point> points;
  for (std::size_t i = 0; i < rows.size(); i += stride) {
    const std::size_t side = std::min({reach, i, rows.size() - 1 - i});
    const double sum = sums[i + side + 1] - sums[i - side];
    points.push_back({rows[i].x, sum / static_cast<double>(2 * side + 1)});
  }
  return points;
}

Series validation_series(const std::vector<Seeds>& rows, const Arm& arm) {
  Series series{.label = arm.label, .colour = {}, .points = {}};
  for (const Seeds& row : rows) {
    series.points.push_back({row.x, row.mean()});
    const auto [low, high] = std::minmax_element(row.losses.begin(), row.losses.end());
    if (row.losses.size() > 1) series.band.push_back({row.x, *low, *high});
  }
  series.end_label = fixed(arm.loss.mean, 3);
  return series;
}

// Where the training curve begins: with the validation curve where there is one, else late enough
// that the first steps' steep fall does not flatten the rest.
double training_begin(const std::vector<Seeds>& validation) {
  constexpr std::size_t kCurve = 3;
  constexpr double kSteepShare = 0.05;
  return validation.size() >= kCurve ? validation.front().x : kSteepShare * validation.back().x;
}

std::string note_of(const Comparison& all) {
  std::size_t most = 0;
  for (const Arm& arm : all.arms) most = std::max(most, arm.runs.size());
  return most > 1 ? "mean and range over seeds; faint: training loss"
                  : "faint: training loss, smoothed";
}

}  // namespace

Chart loss_chart(const Comparison& comparison, LossAgainst against) {
  const bool flops = against == LossAgainst::flops;
  Chart chart{.title = flops ? "Validation loss against training FLOPs"
                             : "Validation loss against training tokens",
              .note = note_of(comparison),
              .x = {flops ? "training FLOPs" : "training tokens", Scale::logarithmic},
              .y = {"loss (nats per token)", Scale::linear},
              .series = {}};
  for (std::size_t i = 0; i < comparison.arms.size(); ++i) {
    const Arm& arm = comparison.arms[i];
    const auto validation = validation_rows(comparison, arm, against);
    if (validation.empty()) continue;
    auto training = training_rows(comparison, arm, against);
    const double begin = training_begin(validation);
    std::erase_if(training, [&](const Seeds& row) { return row.x < begin; });
    chart.series.push_back({.label = {}, .colour = chart_colour(i), .points = smoothed(training)});
    chart.series.back().stroke = Stroke::faint;
    chart.series.push_back(validation_series(validation, arm));
    chart.series.back().colour = chart_colour(i);
  }
  return chart;
}

}  // namespace convoy
