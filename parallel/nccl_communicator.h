// NcclCommunicator: tensors in device memory travel through NCCL, tensors in host memory through
// the communicator it stands on (MPI), whose ranks it has. One GPU a rank.
//
// Operations of one communicator run in order on a stream of its own. They start after what the
// backend was asked for before them, and wait() lets the backend's stream, not the host, wait: what
// is asked of the backend after wait() finds the result. Nothing blocks the host but set-up,
// which has a deadline.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "core/backend.h"
#include "parallel/communicator.h"

namespace convoy {

struct NcclOptions {
  // The longest that setting up a communicator or a connection may take.
  std::chrono::seconds deadline{120};
};

// Collective over the ranks of `host`. `backend` (CUDA) outlives the communicator and everything
// split from it. Without NCCL at build time a lone rank gets `host` back and several an error.
std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> host,
                                                     Backend& backend,
                                                     const NcclOptions& options = {});

std::string nccl_version();  // "2.28.3", or "none"

}  // namespace convoy
