// Draws random models on random layouts and compares each with one rank: alone with ranks that are
// threads, or under mpirun with ranks that are processes. launch/fuzz_layouts builds and starts it.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>

#include "parallel/mpi.h"
#include "parallel/thread_communicator.h"
#include "tests/fuzz/fuzz_run.h"

namespace convoy::test {
namespace {

struct Options {
  std::uint64_t seeds = 20, first = 0;
  int most_ranks = 16;
  bool verbose = false;
};

std::optional<std::string> judge_on_threads(const FuzzCase& fuzz) {
  FuzzOutcome many;
  run_on_threads(fuzz.ranks, [&](Communicator& world) {
    const FuzzOutcome found = run_case(fuzz.config, world);
    if (world.rank() == 0) many = found;
  });
  const auto alone = make_self_communicator();
  return difference(fuzz, many, run_case(on_one_rank(fuzz.config), *alone));
}

// On the first ranks of the world; the others wait. Every rank judges.
std::optional<std::string> judge_on_processes(const FuzzCase& fuzz, Communicator& world) {
  const bool takes_part = world.rank() < fuzz.ranks;
  const auto group = world.split(takes_part ? 0 : 1);
  if (!takes_part) return {};
  const FuzzOutcome many = run_case(fuzz.config, *group);
  const auto alone = make_self_communicator();
  return difference(fuzz, many, run_case(on_one_rank(fuzz.config), *alone));
}

int run(const Options& options, const MpiEnvironment& mpi) {
  const auto world = mpi.world();
  const bool speaks = world->rank() == 0;
  const auto folder =
      std::filesystem::temp_directory_path() / concat("convoy_fuzz_", getpid(), "_", world->rank());
  std::filesystem::create_directories(folder);
  const FuzzData data(folder);
  const int most_ranks = mpi.launched() ? world->size() : options.most_ranks;
  std::uint64_t passed = 0, failed = 0;
  for (std::uint64_t seed = options.first; seed < options.first + options.seeds; ++seed) {
    const FuzzCase fuzz = draw_case(seed, most_ranks, data);
    if (options.verbose && speaks) std::printf("seed %ju: %s\n", seed, fuzz.describe().c_str());
    std::optional<std::string> problem;
    try {
      problem = mpi.launched() ? judge_on_processes(fuzz, *world) : judge_on_threads(fuzz);
    } catch (const std::exception& error) {
      if (mpi.launched()) throw;  // the other ranks cannot go on
      problem = error.what();
    }
    problem ? ++failed : ++passed;
    if (problem) {
      std::printf("seed %ju failed: %s\n  %s\n", seed, fuzz.describe().c_str(), problem->c_str());
    }
    std::fflush(stdout);
  }
  std::filesystem::remove_all(folder);
  if (speaks) std::printf("%ju passed, %ju failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace convoy::test

int main(int argc, char** argv) {
  convoy::MpiEnvironment mpi;
  convoy::test::Options options;
  CLI::App app("Compares random models on random layouts with one rank");
  app.add_option("--seeds", options.seeds, "how many cases");
  app.add_option("--first", options.first, "seed of the first case");
  app.add_option("--most-ranks", options.most_ranks, "of a case, where ranks are threads");
  app.add_flag("--verbose", options.verbose, "print every case before it runs");
  CLI11_PARSE(app, argc, argv);
  try {
    return convoy::test::run(options, mpi);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "fuzz_layouts: %s\n", error.what());
    if (mpi.launched()) mpi.abort(1);
    return 1;
  }
}
