#include "experiments/fit/variable_projection.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "core/error.h"
#include "experiments/fit/small_matrix.h"

namespace convoy {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double misfit(Loss loss, double r) { return loss == Loss::huber ? huber(r) : r * r; }
double pull(Loss loss, double r) {
  return loss == Loss::huber ? std::clamp(r, -kHuberDelta, kHuberDelta) : r;
}

// The best coefficients for given exponents. The loss is linear in them, the misfit is not: each
// round solves a weighted linear problem whose weights make its fixed point the true minimum,
//   sum_i pull(r_i) x_i / L_i = sum_i w_i (observed_i - L_i) x_i.
class InnerProblem {
 public:
  InnerProblem(const Problem& problem, std::vector<int> coefficients, std::vector<int> exponents)
      : problem_(problem),
        coefficients_(std::move(coefficients)),
        exponents_(std::move(exponents)) {}

  std::size_t search_dimensions() const { return exponents_.size(); }

  double operator()(const std::vector<double>& exponents, int rounds) {
    set_basis(exponents);
    if (!solve_linear(Weights::relative)) return kInfinity;
    double best = value();
    for (int round = 1; round < rounds && std::isfinite(best); ++round) {
      const auto before = solution_;
      if (!solve_linear(Weights::exact)) break;
      double now = value();
      for (int halving = 0; halving < 20 && !(now <= best); ++halving) {
        for (std::size_t j = 0; j < before.size(); ++j)
          solution_[j] = (solution_[j] + before[j]) / 2;
        now = value();
      }
      if (!(now <= best)) solution_ = before;
      if (!(now < best * (1 - 1e-9))) break;
      best = now;
    }
    return std::isfinite(best) ? value() : kInfinity;
  }

  Projection projection(const std::vector<double>& exponents, int rounds) {
    Projection result;
    result.objective = (*this)(exponents, rounds);
    result.coefficients.resize(static_cast<std::size_t>(problem_.parameters));
    result.exponents.resize(static_cast<std::size_t>(problem_.parameters));
    for (std::size_t j = 0; j < coefficients_.size(); ++j)
      result.coefficients[coefficients_[j]] = solution_[j];
    for (std::size_t j = 0; j < exponents_.size(); ++j)
      result.exponents[exponents_[j]] = exponents[j];
    return result;
  }

 private:
  // relative: of the squared relative error, to begin with; exact: of the misfit itself.
  enum class Weights { relative, exact };

  void set_basis(const std::vector<double>& exponents) {
    basis_.assign(problem_.observations.size(), std::vector<double>(coefficients_.size()));
    for (std::size_t i = 0; i < basis_.size(); ++i) {
      const Observation& observation = problem_.observations[i];
      for (int j = 0; j < observation.term_count; ++j) {
        const Term& term = observation.terms[j];
        const auto column = position(coefficients_, term.coefficient);
        const double power =
            term.exponent == kNoExponent
                ? 1
                : std::exp(-exponents[position(exponents_, term.exponent)] * term.x);
        basis_[i][column] = power;
      }
    }
  }

  static std::size_t position(const std::vector<int>& list, int value) {
    return static_cast<std::size_t>(std::find(list.begin(), list.end(), value) - list.begin());
  }

  double predicted(std::size_t i) const {
    double sum = 0;
    for (std::size_t j = 0; j < solution_.size(); ++j) sum += solution_[j] * basis_[i][j];
    return sum;
  }

  bool solve_linear(Weights weights) {
    SmallMatrix normal(coefficients_.size());
    std::vector<double> right(coefficients_.size());
    for (std::size_t i = 0; i < basis_.size(); ++i) {
      const Observation& observation = problem_.observations[i];
      const double observed = std::exp(observation.log_loss);
      double weight = observation.weight / (observed * observed);
      if (weights == Weights::exact) {
        const double now = predicted(i);
        const double r = observation.log_loss - std::log(now);
        const double difference = observed - now;
        weight = std::abs(difference) < 1e-12 * observed
                     ? observation.weight / (now * now)
                     : observation.weight * pull(problem_.loss, r) / (now * difference);
      }
      normal.add_outer(basis_[i], weight);
      for (std::size_t j = 0; j < right.size(); ++j) right[j] += weight * observed * basis_[i][j];
    }
    const auto x = solve(normal, right);
    if (x) solution_ = *x;
    return x.has_value();
  }

  double value() const {
    double sum = 0;
    double weights = 0;
    for (std::size_t i = 0; i < basis_.size(); ++i) {
      const Observation& observation = problem_.observations[i];
      const double now = predicted(i);
      if (!(now > 0)) return kInfinity;
      sum += observation.weight * misfit(problem_.loss, observation.log_loss - std::log(now));
      weights += observation.weight;
    }
    return problem_.loss == Loss::huber ? sum : sum / weights;
  }

  const Problem& problem_;
  std::vector<int> coefficients_;  // their indices in theta
  std::vector<int> exponents_;
  std::vector<std::vector<double>> basis_;  // [observation][coefficient]
  std::vector<double> solution_;
};

using Point = std::vector<double>;

// The best point of a grid over exponents from 0.02 to 1.5, evenly spaced in the logarithm.
Point best_of_grid(InnerProblem& inner, int rounds) {
  constexpr int kSteps = 16;
  const auto exponent = [](int i) { return 0.02 * std::pow(75.0, i / (kSteps - 1.0)); };
  const bool two = inner.search_dimensions() == 2;
  Point best;
  double least = kInfinity;
  for (int i = 0; i < kSteps; ++i)
    for (int j = 0; j < (two ? kSteps : 1); ++j) {
      const Point point = two ? Point{exponent(i), exponent(j)} : Point{exponent(i)};
      const double value = inner(point, rounds);
      if (value < least || best.empty()) best = point;
      least = std::min(least, value);
    }
  return best;
}

// A pattern search: tries a step along each axis and along the last improvement, and halves the
// step where none helps.
Point refine(InnerProblem& inner, Point at, int rounds) {
  double value = inner(at, rounds);
  Point direction(at.size());
  for (double step = 0.2; step > 1e-8;) {
    const Point before = at;
    const double value_before = value;
    const auto attempt = [&](const Point& point) {
      const double there = inner(point, rounds);
      if (there >= value) return;
      value = there;
      at = point;
    };
    for (std::size_t i = 0; i < at.size(); ++i)
      for (const double sign : {1.0, -1.0}) {
        Point point = at;
        point[i] += sign * step * std::max(0.05, std::abs(point[i]));
        attempt(point);
      }
    for (double stride = 1; stride < 100; stride *= 2) {
      Point point = at;
      for (std::size_t i = 0; i < at.size(); ++i) point[i] += stride * direction[i];
      const double held = value;
      attempt(point);
      if (value == held) break;
    }
    for (std::size_t i = 0; i < at.size(); ++i) direction[i] = at[i] - before[i];
    if (!(value < value_before * (1 - 1e-10))) step /= 2;
  }
  return at;
}

}  // namespace

Projection project(const Problem& problem) {
  std::set<int> coefficients, exponents;
  for (const Observation& observation : problem.observations)
    for (int j = 0; j < observation.term_count; ++j) {
      coefficients.insert(observation.terms[j].coefficient);
      if (observation.terms[j].exponent != kNoExponent)
        exponents.insert(observation.terms[j].exponent);
    }
  CHECK(exponents.size() == 1 || exponents.size() == 2, exponents.size(), " exponents to search");
  InnerProblem inner(problem, {coefficients.begin(), coefficients.end()},
                     {exponents.begin(), exponents.end()});
  const Point start = best_of_grid(inner, 12);
  return inner.projection(refine(inner, start, 60), 400);
}

}  // namespace convoy
