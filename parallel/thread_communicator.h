// Ranks as threads of one process: for tests, which then run every layout without a launcher, and
// for a CPU run of several ranks in one process. Sums are taken in the order of the ranks, so the
// same program gives the same bits each time.
#pragma once

#include <functional>

#include "parallel/communicator.h"
#include "parallel/thread_group.h"

namespace convoy {

// Calls `body` once on each of `ranks` threads and returns when all have ended. What the first
// failing rank throws is thrown again here; the others, where they wait for it, get an Error that
// names it. Operations on tensors of host memory only.
void run_on_threads(int ranks, const std::function<void(Communicator&)>& body,
                    const ThreadOptions& options = {});

}  // namespace convoy
