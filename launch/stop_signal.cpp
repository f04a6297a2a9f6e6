#include "launch/stop_signal.h"

#include <csignal>
#include <cstdlib>
#include <initializer_list>

namespace convoy {
namespace {

volatile std::sig_atomic_t requested = 0;

void request_stop(int signal) {
  if (signal == SIGINT && requested != 0) std::_Exit(130);
  requested = 1;
}

}  // namespace

void install_stop_signals() {
  struct sigaction action = {};
  action.sa_handler = request_stop;
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaction(signal, &action, nullptr);
}

bool stop_requested() { return requested != 0; }

}  // namespace convoy
