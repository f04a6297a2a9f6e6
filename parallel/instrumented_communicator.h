// A communicator that counts (CommunicationLog) and can be watched (RankActivity), around any
// other. What is split from it under a name counts under that name, so that wrapping the world
// before a Mesh is made from it covers every group.
#pragma once

#include <memory>
#include <string_view>

#include "parallel/communication_log.h"
#include "parallel/communicator.h"
#include "parallel/rank_activity.h"

namespace convoy {

// `log` and `activity` (which may be null) belong to this rank and outlive the communicator. With
// an activity this is collective: the ranks tell each other their numbers in the world. A
// communicator of one rank comes back as it is.
std::unique_ptr<Communicator> instrument(std::unique_ptr<Communicator> inner,
                                         std::string_view label, CommunicationLog& log,
                                         RankActivity* activity = nullptr);
// The same around a communicator that somebody else owns and keeps longer.
std::unique_ptr<Communicator> instrument(Communicator& inner, std::string_view label,
                                         CommunicationLog& log, RankActivity* activity = nullptr);

}  // namespace convoy
