// L(N, D) = E + A/N^alpha + B/D^beta (Hoffmann et al. 2022, arXiv 2203.15556, the third approach).
// theta = ln E, ln A', ln B', alpha, beta, where A' and B' are the terms at the mean ln N and ln D:
// centred, the five are nearly uncorrelated at the start, and every start finds the minimum.
#pragma once

#include "experiments/fit/law.h"

namespace convoy {

class ChinchillaLaw : public Law {
 public:
  explicit ChinchillaLaw(const std::vector<Unit>& units);

  std::string name() const override { return "chinchilla"; }
  std::string formula() const override { return "L(N, D) = E + A/N^alpha + B/D^beta"; }
  std::vector<Quantity> quantities() const override;
  Observation terms_of(const Unit& unit) const override;
  std::vector<Start> starts(const std::vector<Unit>& units) const override;

 private:
  double mean_log_n_ = 0;
  double mean_log_d_ = 0;
};

}  // namespace convoy
