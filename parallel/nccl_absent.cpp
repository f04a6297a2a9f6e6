// In place of nccl_communicator.cpp where the program is built without CUDA or NCCL.
#include "parallel/nccl_communicator.h"

namespace convoy {

std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> host, Backend&,
                                                     const NcclOptions&) {
  if (host->size() == 1) return host;
  throw Error(concat(host->size(),
                     " ranks on GPUs need NCCL, and this program was built without it; install "
                     "NCCL (libnccl-dev) and configure again, or use one rank"));
}

std::string nccl_version() { return "none"; }

}  // namespace convoy
