// A manifest: what a study trains and how its arms are made comparable, as one TOML file says it.
// Reading reports every problem at once. [base], [arch.*] and [[size]] are layers of a run's
// configuration, kept as TOML text; expand.h turns the whole into runs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "experiments/manifest/exclusion.h"

namespace convoy {

// A named part of a configuration: an architecture (an arm of the comparison) or a size.
struct ConfigLayer {
  std::string name;
  std::string toml;
};

struct PlanSection {
  std::string mode = "ladder";                     // ladder | isoflop | grid | steps
  std::vector<double> tokens_per_param;            // ladder
  std::vector<double> flops;                       // isoflop
  std::vector<double> tokens;                      // grid
  std::vector<double> steps;                       // steps, each of a size's own batch
  double flops_tolerance = 0.01;                   // share of C by which matched runs may differ
  std::string match = "flops";                     // flops | params | tokens | wallclock
  std::string match_by = "tokens";                 // tokens | depth | width | ffn
  std::map<std::string, double> tokens_per_s;      // wallclock: measured, by arch; the ratios count
  std::string flop_convention = "parts";           // parts | 6n | causal | full
  std::string param_convention = "non_embedding";  // non_embedding | active | total
  std::vector<std::int64_t> seeds = {0};
  std::vector<Exclusion> exclude;
  double epochs = 1;         // a run may pass over the data so often
  double unique_tokens = 0;  // of the training data; 0: as the token files say
};

// Rules are expressions over N, D, d_model and batch (tokens a step). An empty one leaves the
// configuration's own value.
struct RulesSection {
  std::map<std::string, std::string> lr;  // by arch; "" holds for every other one
  std::string warmup_tokens;
  std::string schedule;           // cosine | wsd
  double cooldown = -1;           // wsd: share of the steps; negative: the configuration's
  std::vector<double> branch_at;  // wsd: shares of the planned tokens, each a run
  std::vector<double> lr_multipliers = {1};

  const std::string& lr_of(const std::string& arch) const;
};

struct LaunchSection {
  std::string launcher = "local";             // local | mpirun | srun | sbatch
  std::map<std::string, std::int64_t> ranks;  // by size; "" holds for every other one
  std::int64_t retries = 0;
  std::int64_t array_max_parallel = 0;  // sbatch: tasks at once; 0: as many as Slurm likes
  std::int64_t side_by_side = 0;        // runs at once; 0: as many as cores allow
  std::string device = "cpu";           // cpu | h100 | h200: for the estimated hours
  std::vector<std::string> srun_options, sbatch_options;
  std::vector<std::string> train_options;  // more arguments of `convoy train`

  std::int64_t ranks_of(const std::string& size) const;
};

struct FitSection {
  std::string law = "chinchilla";   // chinchilla | power
  std::string loss = "huber";       // huber | mse
  std::string holdout = "largest";  // largest | none
};

struct CompareSection {
  std::string reference;  // an arch; empty in the file: the first
};

struct SweepManifest {
  std::filesystem::path origin;
  std::string name;
  std::filesystem::path output;  // links to the runs, tables
  std::filesystem::path store = "runs/store";
  std::string base;  // the configuration file with the keys of [base] over it, as TOML
  std::vector<ConfigLayer> archs, sizes;
  PlanSection plan;
  RulesSection rules;
  LaunchSection launch;
  FitSection fit;
  CompareSection compare;
};

// Throws one Error that lists every problem with its remedy.
SweepManifest read_sweep_manifest(const std::filesystem::path& path);
SweepManifest parse_sweep_manifest(const std::string& toml, const std::filesystem::path& origin);

// Layers of TOML laid over each other, tables merged key by key; what comes later wins.
std::string merge_toml(const std::vector<std::string>& layers);

}  // namespace convoy
