// Stands in for minimize_ceres.cpp in a build without Ceres.
#include "core/error.h"
#include "experiments/fit/minimize.h"

namespace convoy {

bool has_minimizer() { return false; }

Minimum minimize(const Problem&, std::span<const double>) {
  throw Error("built without Ceres; install libceres-dev, configure and build again");
}

}  // namespace convoy
