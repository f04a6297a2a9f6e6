// Every law here is a sum of powers: L = E + A N^-alpha + B D^-beta, or L = E + K C^-gamma. In
// logs,
//   ln L = ln sum_j exp(theta[c_j] - theta[p_j] x_j),
// with x the mean-centred ln N, ln D or ln C: positive coefficients by construction, no overflow,
// and parameters of one scale. The formula is a template, so that automatic differentiation sees
// it.
#pragma once

#include <array>
#include <cmath>
#include <span>
#include <vector>

namespace convoy {

inline constexpr int kNoExponent = -1;

struct Term {
  int coefficient = 0;         // the index in theta of the logarithm of the coefficient
  int exponent = kNoExponent;  // the index in theta of the exponent; none for a constant
  double x = 0;
};

struct Observation {
  std::array<Term, 3> terms = {};
  int term_count = 0;
  double log_loss = 0;
  double weight = 1;
  int cluster = 0;  // which points share an error: equal for the units of one arm and size
};

enum class Loss { huber, mse };
inline constexpr double kHuberDelta = 1e-3;  // in ln loss, as in arXiv 2404.10102

struct Problem {
  int parameters = 0;
  Loss loss = Loss::huber;
  std::vector<Observation> observations = {};
};

template <class T>
T log_prediction(const Observation& observation, const T* theta) {
  using std::exp;
  using std::log;
  std::array<T, 3> logs = {};
  int largest = 0;
  for (int j = 0; j < observation.term_count; ++j) {
    const Term& term = observation.terms[j];
    logs[j] = theta[term.coefficient];
    if (term.exponent != kNoExponent) logs[j] -= theta[term.exponent] * term.x;
    if (logs[largest] < logs[j]) largest = j;
  }
  T sum(1.0);
  for (int j = 0; j < observation.term_count; ++j)
    if (j != largest) sum += exp(logs[j] - logs[largest]);
  return logs[largest] + log(sum);
}

// Quadratic within kHuberDelta, linear beyond.
template <class T>
T huber(const T& residual) {
  if (residual > kHuberDelta) return kHuberDelta * (residual - 0.5 * kHuberDelta);
  if (residual < -kHuberDelta) return -kHuberDelta * (residual + 0.5 * kHuberDelta);
  return 0.5 * residual * residual;
}

// Observed minus predicted ln loss.
double residual(const Observation& observation, std::span<const double> theta);

// d(predicted ln loss) / d theta.
std::vector<double> log_gradient(const Observation& observation, std::span<const double> theta);

// The weighted SUM of Huber(1e-3) of the residuals, or the weighted MEAN of their squares.
double objective(const Problem& problem, std::span<const double> theta);

// How far from a stationary point: the largest component of the objective's gradient over what it
// would be if the pulls of the observations did not cancel. 0 at a minimum, 1 far from one. Where
// there is no pull left (an exact fit, or a term that has vanished) it counts as 0.
double stationarity(const Problem& problem, std::span<const double> theta);

}  // namespace convoy
