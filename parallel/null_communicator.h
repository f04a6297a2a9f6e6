// A communicator whose operations touch nothing: it has a rank and a size and no peers. For
// measuring what a rank would take, on a device that does nothing.
#pragma once

#include <memory>

#include "parallel/communicator.h"

namespace convoy {

// At the same place in a group of the same size.
std::unique_ptr<Communicator> make_null_communicator(const Communicator& like);
std::unique_ptr<Communicator> make_null_communicator(int rank, int size);

}  // namespace convoy
