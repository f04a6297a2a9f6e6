// The text form of actions and schedules: 2F0 is the forward pass of stage 2 on micro-batch 0. The
// letters: F, B, I, W; SA and RA send and receive an activation, SG and RG a gradient; 2GATHER,
// 2RELEASE and 2REDUCE concern a whole stage.
#pragma once

#include <string>
#include <string_view>

#include "parallel/schedule/schedule.h"

namespace convoy {

std::string to_text(const Action& action);
Action parse_action(std::string_view text);  // throws Error

// A line with the shape, then a line of actions for each rank.
std::string to_text(const Schedule& schedule);
Schedule parse_schedule(std::string_view text);  // throws Error that names the line

}  // namespace convoy
