// Draws random models on random layouts and compares each with one rank: alone with ranks that are
// threads, or under mpirun with ranks that are processes. launch/fuzz_layouts builds and starts it.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>

#include "launch/stopwatch.h"
#include "parallel/mpi.h"
#include "tests/fuzz/coverage.h"
#include "tests/fuzz/judge.h"

namespace convoy::test {
namespace {

struct Options {
  std::uint64_t seeds = 20, first = 0;
  int most_ranks = 16;
  bool verbose = false, fail_fast = false;
};

// A new folder, removed in the end.
class OwnFolder {
 public:
  explicit OwnFolder(int rank)
      : path_(std::filesystem::temp_directory_path() /
              concat("convoy_fuzz_", getpid(), "_", rank)) {
    std::filesystem::create_directories(path_);
  }
  ~OwnFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  OwnFolder(const OwnFolder&) = delete;
  OwnFolder& operator=(const OwnFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

class Fuzzer {
 public:
  Fuzzer(const Options& options, const MpiEnvironment& mpi)
      : options_(options),
        mpi_(mpi),
        world_(mpi.world()),
        folder_(world_->rank()),
        data_(folder_.path()) {}

  int run() {
    if (options_.fail_fast && mpi_.launched()) {
      throw Error("--fail-fast is for ranks that are threads: leave it out under mpirun");
    }
    for (std::uint64_t i = 0; i < options_.seeds; ++i) {
      judge(options_.first + i);
      if (failed_ > 0 && options_.fail_fast) break;
    }
    if (!speaks()) return 0;
    std::printf("%sslowest: seed %ju, %.1f s\n", covered_.text().c_str(), slowest_seed_, slowest_);
    std::printf("%ju passed, %ju failed\n", passed_, failed_);
    return failed_ == 0 ? 0 : 1;
  }

 private:
  bool speaks() const { return world_->rank() == 0; }

  void judge(std::uint64_t seed) {
    const int most_ranks = mpi_.launched() ? world_->size() : options_.most_ranks;
    const FuzzCase fuzz = draw_case(seed, most_ranks, data_);
    covered_.add(fuzz);
    if (options_.verbose && speaks()) say(seed, fuzz, "");
    const Stopwatch watch;
    std::optional<std::string> problem;
    try {
      problem = problem_of(fuzz);
    } catch (const std::exception& error) {
      problem = error.what();
      if (mpi_.launched()) {  // the other ranks cannot go on
        say(seed, fuzz, *problem);
        throw;
      }
    }
    if (watch.seconds() > slowest_) {
      slowest_ = watch.seconds();
      slowest_seed_ = seed;
    }
    problem ? ++failed_ : ++passed_;
    if (problem) say(seed, fuzz, *problem);
  }

  // Rank 0 compares for all: traces are the same on every rank.
  std::optional<std::string> problem_of(const FuzzCase& fuzz) const {
    TrainingTrace many;
    if (mpi_.launched()) {
      const bool takes_part = world_->rank() < fuzz.ranks;
      const auto group = world_->split(takes_part ? 0 : 1);
      if (takes_part) many = run_case(fuzz.config, *group);
      if (!speaks()) return {};
    } else {
      many = trace_on_threads(fuzz.config, fuzz.ranks, {.gradient_steps = fuzz.config.train.steps});
    }
    const auto alone = make_self_communicator();
    return difference(fuzz, many, run_case(on_one_rank(fuzz.config), *alone));
  }

  static void say(std::uint64_t seed, const FuzzCase& fuzz, const std::string& problem) {
    const char* failed = problem.empty() ? "" : " failed";
    std::printf("seed %ju%s: %s\n", seed, failed, fuzz.describe().c_str());
    if (!problem.empty()) std::printf("  %s\n", problem.c_str());
    std::fflush(stdout);
  }

  Options options_;
  const MpiEnvironment& mpi_;
  std::unique_ptr<Communicator> world_;
  OwnFolder folder_;
  FuzzData data_;
  Coverage covered_;
  std::uint64_t passed_ = 0, failed_ = 0, slowest_seed_ = 0;
  double slowest_ = 0;  // seconds
};

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
  app.add_flag("--fail-fast", options.fail_fast, "stop after the first failure, not under mpirun");
  CLI11_PARSE(app, argc, argv);
  try {
    return convoy::test::Fuzzer(options, mpi).run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "fuzz_layouts: %s\n", error.what());
    if (mpi.launched()) mpi.abort(1);
    return 1;
  }
}
