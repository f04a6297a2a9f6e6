// A law: how units become a Problem, where to start, and what its parameters are called. The two
// laws are L(N, D) = E + A/N^alpha + B/D^beta and L(C) = E + K C^-gamma.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "experiments/fit/minimize.h"
#include "experiments/fit/units.h"

namespace convoy {

enum class LawKind { chinchilla, power };

// A parameter as a reader knows it: exp(weights . theta), or weights . theta. Being linear in
// theta it needs no further derivative for its interval.
struct Quantity {
  std::string name;
  bool logarithmic = false;  // E, A, B, K: its interval is symmetric in the logarithm
  std::vector<double> weights = {};

  double exponent(const std::vector<double>& theta) const;  // weights . theta
  double value(const std::vector<double>& theta) const;
};

class Law {
 public:
  virtual ~Law() = default;
  virtual std::string name() const = 0;
  virtual std::string formula() const = 0;
  virtual std::vector<Quantity> quantities() const = 0;
  // The terms of one unit, centred as at construction, without its loss.
  virtual Observation terms_of(const Unit& unit) const = 0;
  virtual std::vector<Start> starts(const std::vector<Unit>& units) const = 0;  // about 100

  int parameters() const { return static_cast<int>(quantities().size()); }
  Problem problem(const std::vector<Unit>& units, Loss loss) const;
};

// Centres ln N, ln D or ln C on these units. Throws Error where the law cannot be told from them:
// fewer units than parameters, no N and D, or D/N the same everywhere (then use `power`).
std::unique_ptr<Law> make_law(LawKind kind, const std::vector<Unit>& units);

// Throws Error on fewer than parameters + 1 units.
void require_units(const std::string& law, int parameters, const std::vector<Unit>& units);

// E as shares of the least loss, from which the starts are made.
inline constexpr std::array<double, 4> kFloorShares = {0.2, 0.5, 0.8, 0.95};

struct LossRange {
  double least = 0;
  double geometric_mean = 0;
};
LossRange loss_range(const std::vector<Unit>& units);

}  // namespace convoy
