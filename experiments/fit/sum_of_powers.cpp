#include "experiments/fit/sum_of_powers.h"

#include <algorithm>

namespace convoy {
namespace {

// The derivative of the loss by the residual.
double pull(Loss loss, double residual) {
  return loss == Loss::mse ? residual : std::clamp(residual, -kHuberDelta, kHuberDelta);
}

}  // namespace

double residual(const Observation& observation, std::span<const double> theta) {
  return observation.log_loss - log_prediction(observation, theta.data());
}

std::vector<double> log_gradient(const Observation& observation, std::span<const double> theta) {
  std::vector<double> gradient(theta.size());
  const double total = log_prediction(observation, theta.data());
  for (int j = 0; j < observation.term_count; ++j) {
    const Term& term = observation.terms[j];
    const bool power = term.exponent != kNoExponent;
    const double log_term = theta[term.coefficient] - (power ? theta[term.exponent] * term.x : 0);
    const double share = std::exp(log_term - total);
    gradient[term.coefficient] += share;
    if (power) gradient[term.exponent] -= share * term.x;
  }
  return gradient;
}

double objective(const Problem& problem, std::span<const double> theta) {
  double sum = 0;
  double weights = 0;
  for (const Observation& observation : problem.observations) {
    const double r = residual(observation, theta);
    sum += observation.weight * (problem.loss == Loss::huber ? huber(r) : r * r);
    weights += observation.weight;
  }
  return problem.loss == Loss::huber ? sum : sum / weights;
}

double stationarity(const Problem& problem, std::span<const double> theta) {
  std::vector<double> gradient(theta.size());
  std::vector<double> pulls(theta.size());
  double weights = 0;
  for (const Observation& observation : problem.observations) {
    const double force = observation.weight * pull(problem.loss, residual(observation, theta));
    const auto direction = log_gradient(observation, theta);
    for (std::size_t i = 0; i < theta.size(); ++i) {
      gradient[i] += force * direction[i];
      pulls[i] += std::abs(force * direction[i]);
    }
    weights += observation.weight;
  }
  const double no_pull = 1e-9 * kHuberDelta * weights;
  double worst = 0;
  for (std::size_t i = 0; i < theta.size(); ++i)
    if (pulls[i] > no_pull) worst = std::max(worst, std::abs(gradient[i]) / pulls[i]);
  return worst;
}

}  // namespace convoy
