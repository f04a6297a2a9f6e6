// Tables of runs whose law is known, because it was planted.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "experiments/fit/table.h"

namespace convoy::testing {

inline double chinchilla_loss(double n, double d) {
  return 1.69 + 406.4 / std::pow(n, 0.34) + 410.7 / std::pow(d, 0.28);
}

inline RunRow planted_run(const std::string& arch, double n, double d, long long seed,
                          double loss) {
  RunRow run{.run_id = concat(arch, "-", n, "-", d, "-s", seed), .arch = arch, .size = concat(n)};
  run.status = "done";
  run.seed = seed;
  run.N = n;
  run.D = d;
  run.C = 6 * n * d;
  run.loss = loss;
  return run;
}

// Every size with every token count, one seed, no noise.
inline std::vector<RunRow> planted_grid() {
  std::vector<RunRow> runs;
  for (double n = 1e6; n < 2e9; n *= 4)
    for (double d = 2e7; d < 1e11; d *= 5)
      runs.push_back(planted_run("", n, d, 0, chinchilla_loss(n, d)));
  return runs;
}

struct Ladder {
  int budgets = 5;  // of C, evenly spaced in ln C from 1e14 to 2e16
  int seeds = 3;
  double seed_sd = 0;  // of ln loss
  double size_sd = 0;  // of ln loss, an error that the seeds of one size share
  double slope = 0;    // d ln M / d ln C
};

// A reference and an arm with L_arm(C) = L_reference(M C), on D = 20 N and C = 6 N D. M is that of
// the geometric mean budget where it changes with scale.
inline std::vector<RunRow> planted_ladder(double advantage, const Ladder& ladder,
                                          std::uint64_t draw) {
  const RandomStream random(draw, "planted ladder");
  std::uint64_t index = 0;
  std::vector<RunRow> runs;
  for (const std::string arch : {"plain", "conv"})
    for (int i = 0; i < ladder.budgets; ++i) {
      const double position = i / (ladder.budgets - 1.0);
      const double log_c = std::log(1e14) + position * std::log(200.0);
      const double log_m = std::log(advantage) + ladder.slope * (position - 0.5) * std::log(200.0);
      const double n = std::sqrt(std::exp(log_c) / 120);
      const double as_if = std::sqrt(std::exp(log_c + (arch == "conv" ? log_m : 0)) / 120);
      const double clean = std::log(chinchilla_loss(as_if, 20 * as_if));
      const double shared = ladder.size_sd * random.normal(index++);
      for (int seed = 0; seed < ladder.seeds; ++seed) {
        const double noise = shared + ladder.seed_sd * random.normal(index++);
        runs.push_back(planted_run(arch, n, 20 * n, seed, std::exp(clean + noise)));
      }
    }
  return runs;
}

inline std::vector<RunRow> of_arm(const std::vector<RunRow>& runs, const std::string& arch) {
  std::vector<RunRow> chosen;
  for (const RunRow& run : runs)
    if (run.arch == arch) chosen.push_back(run);
  return chosen;
}

}  // namespace convoy::testing
