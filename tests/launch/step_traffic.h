// What one training step must send, by group and kind of operation, computed from the configuration
// and the tables of docs/parallel.md alone: sizes of tensors, who has which rows, which stage and
// which part of a bucket. It shares no code with what runs the step; of the schedule it knows the
// order of the compute actions.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "launch/config.h"
#include "parallel/communication_log.h"
#include "parallel/mesh.h"

namespace convoy::test {

struct Count {
  std::int64_t operations = 0, bytes = 0;
};
using Traffic = std::map<std::pair<std::string, Collective>, Count>;

std::string described(const Traffic& traffic);

// Of the rank at this place of the mesh.
Traffic expected_traffic(const RunConfig& config, const MeshShape& mesh, const MeshPosition& at);

}  // namespace convoy::test
