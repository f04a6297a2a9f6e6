// The data that a configuration trains on.
#pragma once

#include "data/training_data.h"
#include "launch/config.h"

namespace convoy {

TrainingDataOptions training_data_of(const RunConfig& config);

}  // namespace convoy
