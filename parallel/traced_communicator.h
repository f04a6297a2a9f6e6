// A communicator that records in a Trace what is in flight and how long the rank is blocked.
#pragma once

#include <memory>
#include <string_view>

#include "core/trace.h"
#include "parallel/communicator.h"

namespace convoy {

// Spans are named after the operation and the group ("all_reduce gradient"); what is split off
// under a name is traced under that name. A transfer spans its travel where the inner communicator
// knows it; otherwise from its posting to when it was first seen to be complete, which is an upper
// bound. `inner` and `trace` outlive what is returned.
std::unique_ptr<Communicator> trace_communicator(Communicator& inner, std::string_view label,
                                                 Trace& trace);

}  // namespace convoy
