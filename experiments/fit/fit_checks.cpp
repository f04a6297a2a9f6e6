#include "experiments/fit/fit_checks.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace convoy {
namespace {

void append(std::vector<std::string>& to, std::vector<std::string> more) {
  to.insert(to.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
}

std::vector<std::string> doubts_about_search(const MultiStart& search, const Projection& check) {
  std::vector<std::string> doubts;
  if (!search.best_two_agree)
    doubts.push_back(concat("the best two of ", search.starts,
                            " starts disagree: ", search.agreeing, " reached the least objective, ",
                            search.best.objective, ". Other parameters fit as well"));
  constexpr double kSameMinimum = 1e-4;
  constexpr double kExact = 1e-14;  // an objective as small is a perfect fit
  const double difference = search.best.objective - check.objective;
  if (difference > kSameMinimum * check.objective + kExact)
    doubts.push_back(concat("variable projection finds a lower objective, ", check.objective,
                            " against ", search.best.objective, ": this is not the minimum"));
  return doubts;
}

// A coefficient that adds nothing at any point has run to its bound 0.
std::vector<std::string> doubts_about_terms(const Law& law, const std::vector<Unit>& units,
                                            const std::vector<double>& theta) {
  constexpr double kNothing = 1e-6;  // of the loss
  const auto quantities = law.quantities();
  std::vector<double> largest(theta.size());
  for (const Unit& unit : units) {
    const auto shares = log_gradient(law.terms_of(unit), theta);
    for (std::size_t i = 0; i < theta.size(); ++i)
      largest[i] = std::max(largest[i], std::abs(shares[i]));
  }
  std::vector<std::string> doubts;
  for (std::size_t i = 0; i < theta.size(); ++i)
    if (quantities[i].logarithmic && largest[i] < kNothing)
      doubts.push_back(concat(quantities[i].name,
                              " is at its bound 0: its term is nowhere more "
                              "than ",
                              largest[i], " of the loss"));
  return doubts;
}

}  // namespace

void require_convergence(const MultiStart& search, const std::string& law) {
  if (!search.best.converged)
    throw Error(concat("the fit of the law ", law, " did not converge: the best of ", search.starts,
                       " starts, objective ", search.best.objective,
                       ", is no minimum. The data may not determine its parameters: add sizes, or "
                       "use a law with fewer"));
}

std::vector<std::string> doubts_about_range(const std::vector<Unit>& units) {
  const double decades = decades_of_compute(units);
  if (decades >= kEnoughDecades) return {};
  return {concat("the runs span ", decades, " decades of C, less than ", kEnoughDecades,
                 ": exponents and E are guesses")};
}

std::vector<std::string> doubts_about_floor(double floor, double least_loss) {
  if (floor <= 0) return {concat("E is ", floor, ", below 0: a loss has no such floor")};
  if (floor >= 0.99 * least_loss)
    return {concat("E is ", floor, ", within 1 % of the least loss, ", least_loss,
                   ": the curve has flattened out within the data")};
  return {};
}

std::vector<std::string> doubts_about_exponent(const std::string& name, double value) {
  constexpr double kLeast = 0.01;
  constexpr double kMost = 2;
  if (value > kLeast && value < kMost) return {};
  return {concat(name, " is ", value, ", outside ", kLeast, " .. ", kMost,
                 ", where a law of this kind means something")};
}

std::vector<std::string> doubts_about(const Law& law, const std::vector<Unit>& units,
                                      const MultiStart& search, const Projection& check) {
  const auto& theta = search.best.theta;
  const double least = loss_range(units).least;
  auto doubts = doubts_about_search(search, check);
  append(doubts, doubts_about_range(units));
  append(doubts, doubts_about_terms(law, units, theta));
  for (const Quantity& quantity : law.quantities()) {
    if (quantity.name == "E") append(doubts, doubts_about_floor(quantity.value(theta), least));
    if (!quantity.logarithmic)
      append(doubts, doubts_about_exponent(quantity.name, quantity.value(theta)));
  }
  // The main fit keeps E positive; the projection shows where the data would rather have it below.
  if (!check.coefficients.empty() && check.coefficients[0] <= 0)
    append(doubts, doubts_about_floor(check.coefficients[0], least));
  return doubts;
}

}  // namespace convoy
