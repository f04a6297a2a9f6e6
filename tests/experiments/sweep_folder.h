// The output folder of a sweep, made by hand: tables with a planted advantage, and the plan.
#pragma once

#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "experiments/sweep_report/study.h"
#include "tests/experiments/planted_runs.h"
#include "tests/experiments/run_directory.h"

namespace convoy::testing {

inline std::string runs_csv(const std::vector<RunRow>& runs) {
  std::ostringstream out;
  out.precision(12);
  out << "run_id,arch,size,seed,status,N,D,C,flop_convention,val_loss,peak_lr,wall_s,ranks,device,"
         "steps\n";
  for (const RunRow& run : runs)
    out << run.run_id << ',' << run.arch << ',' << run.size << ',' << *run.seed << ',' << run.status
        << ',' << run.N << ',' << run.D << ',' << run.C << ",parts," << run.loss << ",0.001,"
        << run.C / 1e12 << ",1,planted,100\n";
  return out.str();
}

inline std::string curves_csv(const std::vector<RunRow>& runs) {
  std::ostringstream out;
  out << "run_id,attempt,step,tokens,flops,wall_s,train_loss,val_loss,tokens_per_s\n";
  for (const RunRow& run : runs)
    for (int step = 1; step <= 4; ++step)
      out << run.run_id << ",1," << step << ',' << run.D * step / 4 << ',' << run.C * step / 4
          << ',' << step << ',' << run.loss + 4 - step << ',' << (step == 4 ? run.loss : 3.5)
          << ",500\n";
  return out.str();
}

inline Study study_of_runs(const std::vector<RunRow>& runs) {
  Study study{.name = "planted <ladder>",
              .mode = "ladder",
              .match = "flops",
              .match_by = "tokens",
              .flop_convention = "parts",
              .param_convention = "non_embedding",
              .law = "power",
              .loss = "mse",
              .holdout = "largest",
              .reference = "plain"};
  for (const RunRow& run : runs)
    study.runs.push_back({.id = run.run_id,
                          .name = "name-of-" + run.run_id,
                          .arch = run.arch,
                          .size = run.size,
                          .state = run.status,
                          .command = "convoy train " + run.run_id + "/planned.toml",
                          .seed = *run.seed,
                          .n = run.N,
                          .tokens = run.D,
                          .flops = run.C,
                          .lr = 0.001});
  return study;
}

// Writes runs.csv, curves.csv and study.json of these runs.
inline std::filesystem::path write_sweep(const std::filesystem::path& folder,
                                         const std::vector<RunRow>& runs, const Study& study) {
  std::filesystem::create_directories(folder);
  write_text(folder / "runs.csv", runs_csv(runs));
  write_text(folder / "curves.csv", curves_csv(runs));
  write_text(folder / "study.json", to_json(study));
  return folder;
}

}  // namespace convoy::testing
