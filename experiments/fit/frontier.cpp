#include "experiments/fit/frontier.h"

#include <fmt/format.h>

#include <cmath>
#include <map>

namespace convoy {
namespace {

constexpr int kPoints = 48;
constexpr double kBeyond = 3;  // times the largest C

std::vector<Unit> points_along_compute(const std::vector<Unit>& units) {
  const double first = std::log(units.front().C);
  const double last = std::log(kBeyond * units.back().C);
  std::vector<Unit> points(kPoints);
  for (int i = 0; i < kPoints; ++i) {
    points[i].C = std::exp(first + (last - first) * i / (kPoints - 1));
    points[i].log_loss = std::numeric_limits<double>::quiet_NaN();
  }
  return points;
}

double flops_per_parameter_and_token(const std::vector<Unit>& units) {
  double sum = 0;
  for (const Unit& unit : units) sum += std::log(unit.C / (unit.N * unit.D));
  return std::exp(sum / static_cast<double>(units.size()));
}

}  // namespace

Frontier frontier_of(const Law& law, const std::vector<double>& theta,
                     const std::vector<Unit>& units) {
  std::map<std::string, double> p;
  for (const Quantity& quantity : law.quantities()) p[quantity.name] = quantity.value(theta);
  Frontier frontier{.points = points_along_compute(units)};
  if (!p.contains("alpha")) return frontier;
  const double alpha = p["alpha"], beta = p["beta"];
  if (!(alpha > 0 && beta > 0 && p["A"] > 0 && p["B"] > 0))
    return {.note = "no frontier: more parameters, or more tokens, do not lower the fitted loss"};
  const double k = flops_per_parameter_and_token(units);
  const double scale = std::pow(alpha * p["A"] / (beta * p["B"]), 1 / (alpha + beta));
  for (Unit& point : frontier.points) {
    point.N = scale * std::pow(point.C / k, beta / (alpha + beta));
    point.D = point.C / (k * point.N);
  }
  frontier.note = fmt::format(
      "The curve is the compute-optimal frontier, with C = {:.3g} N D (mean of the points): the "
      "best N grows as C^{:.3f}, the best D as C^{:.3f}.",
      k, beta / (alpha + beta), alpha / (alpha + beta));
  return frontier;
}

}  // namespace convoy
