// A run of many small all-reduces under a watchdog, in which one rank may stop or kill itself, for
// tests/parallel/watchdog_ends_a_hang.sh.
// usage: convoy_watchdog_program DIRECTORY DEADLINE_S stop|kill|none
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>

#include "parallel/instrumented_communicator.h"
#include "parallel/mpi.h"
#include "parallel/watchdog.h"

namespace convoy {
namespace {

constexpr int kVictim = 1, kFatalStep = 50, kSteps = 100, kHangCode = 70;

void run(const MpiEnvironment& mpi, const WatchdogOptions& options, const char* fate) {
  auto plain = mpi.world();
  const int rank = plain->rank();
  Watchdog watchdog(options, plain->size(), print_to_stderr, [&] { mpi.abort(kHangCode); });
  CommunicationLog log;
  const auto world = instrument(std::move(plain), "world", log, &watchdog.watch(rank));
  for (int step = 0; step < kSteps; ++step) {
    const Doing doing(concat("step ", step));
    if (rank == kVictim && step == kFatalStep) {
      if (std::strcmp(fate, "stop") == 0) std::raise(SIGSTOP);
      if (std::strcmp(fate, "kill") == 0) std::raise(SIGKILL);
    }
    double value = 1;
    const Tensor tensor(&value, DType::f64, DeviceKind::cpu, {1});
    world->all_reduce(tensor, Reduction::sum).wait();
    CHECK(value == world->size(), value);
  }
}

}  // namespace
}  // namespace convoy

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const convoy::MpiEnvironment mpi;
  convoy::run(mpi, {.directory = argv[1], .deadline_s = std::stod(argv[2])}, argv[3]);
  return 0;
}
