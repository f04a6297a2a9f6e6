// Runs a schedule in which every send and every receive blocks its rank until the other side is at
// the matching action: the strictest way in which messages can pass.
#pragma once

#include "parallel/schedule/schedule.h"

namespace convoy {

// Throws Error with every rank that is stuck, at which action, and for whom it waits.
void check_no_deadlock(const Schedule& schedule);

}  // namespace convoy
