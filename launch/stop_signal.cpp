#include "launch/stop_signal.h"

#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <initializer_list>

#include "core/error.h"

namespace convoy {
namespace {

volatile std::sig_atomic_t requested = 0;

void request_stop(int signal) {
  if (signal == SIGINT && requested != 0) std::_Exit(130);
  requested = 1;
}

}  // namespace

// The AVX-512 sgemm of oneDNN 2.6 uses the stack pointer as one more register: it points into the
// heap then, and a handler on "the stack" would overwrite what lies there. So the handler has a
// stack of its own, on the thread that calls this, which is the one that computes.
void install_stop_signals() {
  constexpr std::size_t kStackBytes = 64 << 10;
  alignas(16) static std::byte stack[kStackBytes];
  const stack_t own = {stack, 0, kStackBytes};
  CHECK(sigaltstack(&own, nullptr) == 0, "no stack for signal handlers");
  struct sigaction action = {};
  action.sa_handler = request_stop;
  action.sa_flags = SA_RESTART | SA_ONSTACK;
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaction(signal, &action, nullptr);
}

bool stop_requested() { return requested != 0; }

}  // namespace convoy
