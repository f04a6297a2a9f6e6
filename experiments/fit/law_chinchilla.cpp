#include "experiments/fit/law_chinchilla.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace convoy {
namespace {

void require_sizes_and_tokens(const std::vector<Unit>& units) {
  for (const Unit& unit : units)
    if (std::isnan(unit.N) || std::isnan(unit.D))
      throw Error(
          "the law chinchilla needs N and D of every run, and the table has C alone: use "
          "--law power");
}

// The spread of ln D about its best line in ln N, and that line's slope.
struct Line {
  double slope = 0;
  double rest = 0;  // standard deviation of what the line leaves
};

Line line_of(const std::vector<Unit>& units, double mean_log_n, double mean_log_d) {
  double nn = 0, nd = 0, dd = 0;
  for (const Unit& unit : units) {
    const double n = std::log(unit.N) - mean_log_n;
    const double d = std::log(unit.D) - mean_log_d;
    nn += n * n;
    nd += n * d;
    dd += d * d;
  }
  const double slope = nn > 0 ? nd / nn : 0;
  const double rest = std::max(0.0, dd - slope * nd);
  return {slope, std::sqrt(rest / static_cast<double>(units.size()))};
}

// Where D follows N, A/N^alpha and B/D^beta are two powers of one quantity, and no data can tell
// them apart: on D = 20 N the condition number is 4e6.
void require_independent_sizes(const std::vector<Unit>& units, const Line& line) {
  constexpr double kOneValue = 0.1;  // in ln(D/N): whole steps move it by a percent or two
  constexpr double kOnALine = 0.05;
  double least = INFINITY, most = -INFINITY;
  for (const Unit& unit : units) {
    const double ratio = unit.D / unit.N;
    least = std::min(least, ratio);
    most = std::max(most, ratio);
  }
  if (std::log(most / least) < kOneValue)
    throw Error(concat("D/N is ", least, " to ", most,
                       " in every run: A/N^alpha and B/D^beta "
                       "cannot be told apart. Use --law power, or add runs with another D/N"));
  if (line.slope > 0 && line.rest < kOnALine)
    throw Error(concat("D follows N as N^", line.slope,
                       " in every run: A/N^alpha and B/D^beta "
                       "cannot be told apart. Use --law power, or vary D at equal N"));
}

}  // namespace

ChinchillaLaw::ChinchillaLaw(const std::vector<Unit>& units) {
  require_sizes_and_tokens(units);
  require_units(name(), 5, units);
  for (const Unit& unit : units) {
    mean_log_n_ += std::log(unit.N) / static_cast<double>(units.size());
    mean_log_d_ += std::log(unit.D) / static_cast<double>(units.size());
  }
  require_independent_sizes(units, line_of(units, mean_log_n_, mean_log_d_));
}

std::vector<Quantity> ChinchillaLaw::quantities() const {
  return {{"E", true, {1, 0, 0, 0, 0}},
          {"A", true, {0, 1, 0, mean_log_n_, 0}},
          {"B", true, {0, 0, 1, 0, mean_log_d_}},
          {"alpha", false, {0, 0, 0, 1, 0}},
          {"beta", false, {0, 0, 0, 0, 1}}};
}

Observation ChinchillaLaw::terms_of(const Unit& unit) const {
  return {.terms = {Term{.coefficient = 0},
                    Term{.coefficient = 1, .exponent = 3, .x = std::log(unit.N) - mean_log_n_},
                    Term{.coefficient = 2, .exponent = 4, .x = std::log(unit.D) - mean_log_d_}},
          .term_count = 3};
}

std::vector<Start> ChinchillaLaw::starts(const std::vector<Unit>& units) const {
  const LossRange losses = loss_range(units);
  std::vector<Start> starts;
  for (const double alpha : {0.1, 0.3, 0.6})
    for (const double beta : {0.1, 0.3, 0.6})
      for (const double share : kFloorShares)
        for (const double split : {0.25, 0.5, 0.75}) {
          const double floor = share * losses.least;
          const double rest = losses.geometric_mean - floor;
          starts.push_back(
              {std::log(floor), std::log(split * rest), std::log((1 - split) * rest), alpha, beta});
        }
  return starts;
}

}  // namespace convoy
