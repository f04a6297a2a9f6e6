// The communicator of MPI ranks for tensors in host memory. Only parallel/mpi*.cpp include this.
#pragma once

#include <mpi.h>

#include <memory>

#include "parallel/communicator.h"

#define MPI_CHECK(call) ::convoy::check_mpi(call, #call)

namespace convoy {

void check_mpi(int code, const char* call);

// `largest`: elements in one MPI call, whose counts are ints; longer tensors travel in pieces.
std::unique_ptr<Communicator> make_mpi_communicator(MPI_Comm comm, std::int64_t largest);

}  // namespace convoy
