// What a GPU's memory holds beside the tensors of a run.
#pragma once

#include "launch/config.h"
#include "parallel/mesh.h"

namespace convoy {

// Bytes that the driver and the libraries keep for themselves: the context, code of kernels. What
// an H200 held beside all tensors of the 305M model and their workspace.
inline constexpr double kGpuRuntime = 0.65e9;

// Bytes of the room that operations need while they run: the matmul library's, and the largest of
// what the others take one after the other.
double gpu_workspace(const RunConfig& config, const MeshShape& mesh);

}  // namespace convoy
