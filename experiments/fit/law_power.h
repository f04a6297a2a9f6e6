// L(C) = E + K C^-gamma, for ladders, where D/N takes one value. theta = ln E, ln K', gamma, with
// K' the term at the mean ln C.
#pragma once

#include "experiments/fit/law.h"

namespace convoy {

class PowerLaw : public Law {
 public:
  explicit PowerLaw(const std::vector<Unit>& units);

  std::string name() const override { return "power"; }
  std::string formula() const override { return "L(C) = E + K C^-gamma"; }
  std::vector<Quantity> quantities() const override;
  Observation terms_of(const Unit& unit) const override;
  std::vector<Start> starts(const std::vector<Unit>& units) const override;

 private:
  double mean_log_c_ = 0;
};

}  // namespace convoy
