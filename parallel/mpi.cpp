#include "parallel/mpi.h"

#include <mpi.h>

#include <cstdlib>

#include "parallel/mpi_communicator.h"

namespace convoy {
namespace {

bool started_by_launcher() {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}) {
    if (std::getenv(variable) != nullptr) return true;
  }
  return false;
}

}  // namespace

MpiEnvironment::MpiEnvironment() : launched_(started_by_launcher()) {
  if (!launched_) return;
  int provided = 0;
  MPI_CHECK(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided));
  int rank = 0;
  MPI_CHECK(MPI_Comm_rank(MPI_COMM_WORLD, &rank));
  set_error_rank(rank);
}

MpiEnvironment::~MpiEnvironment() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (launched_ && finalized == 0) MPI_Finalize();
}

std::unique_ptr<Communicator> MpiEnvironment::world(std::int64_t largest_message) const {
  if (!launched_) return make_self_communicator();
  return make_mpi_communicator(MPI_COMM_WORLD, largest_message);
}

int MpiEnvironment::local_rank() const {
  if (!launched_) return 0;
  MPI_Comm host;
  MPI_CHECK(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host));
  int rank = 0;
  MPI_CHECK(MPI_Comm_rank(host, &rank));
  MPI_CHECK(MPI_Comm_free(&host));
  return rank;
}

void MpiEnvironment::abort(int code) const {
  if (launched_) MPI_Abort(MPI_COMM_WORLD, code);
  std::_Exit(code);
}

}  // namespace convoy
