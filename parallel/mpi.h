// MPI: the environment of a process that mpirun or srun started, and its communicator for tensors
// in host memory.
#pragma once

#include <memory>

#include "parallel/communicator.h"

namespace convoy {

// Initialises MPI where a launcher started this process, otherwise stands for a lone rank. One per
// process, made and destroyed by main.
class MpiEnvironment {
 public:
  MpiEnvironment();
  ~MpiEnvironment();
  MpiEnvironment(const MpiEnvironment&) = delete;
  MpiEnvironment& operator=(const MpiEnvironment&) = delete;

  bool launched() const { return launched_; }
  // `largest_message`: elements of one MPI call, whose counts are ints; a longer tensor travels in
  // pieces.
  std::unique_ptr<Communicator> world(std::int64_t largest_message = std::int64_t{1} << 30) const;
  int local_rank() const;                   // among the ranks of this host
  [[noreturn]] void abort(int code) const;  // ends all ranks

 private:
  bool launched_;
};

}  // namespace convoy
