// SIGTERM, SIGINT and SIGUSR1 ask a run to stop: the handler only sets a flag, the ranks agree on
// it at a step boundary. A second SIGINT ends the process at once.
#pragma once

namespace convoy {

void install_stop_signals();
bool stop_requested();

// What a run that was asked to stop leaves with, so that nobody takes it for done.
constexpr int kInterruptedExitCode = 75;
// What a run that a watchdog ended leaves with.
constexpr int kHangExitCode = 70;

}  // namespace convoy
