// Recorded regions as CUDA graphs: the stream is captured while the region's body runs, and what it
// launched, with its parameters and the addresses they name, becomes one graph that the host
// launches at once. A kernel that may overlap the end of the one before it (core/cuda/launch.cuh)
// keeps that right as a programmatic edge.
#include <algorithm>
#include <exception>
#include <vector>

#include "core/cuda/cuda_backend.h"
#include "core/cuda/cuda_check.h"

namespace convoy {
namespace cuda {
namespace {

struct Graph {
  cudaGraph_t handle = nullptr;

  Graph() = default;
  ~Graph() {
    if (handle != nullptr) cudaGraphDestroy(handle);
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  std::size_t operations() const {
    std::size_t count = 0;
    CUDA_CHECK(cudaGraphGetNodes(handle, nullptr, &count));
    return count;
  }

  std::size_t overlapped() const {
    std::size_t count = 0;
    std::vector<cudaGraphNode_t> from, to;
    std::vector<cudaGraphEdgeData> kinds;
    const auto look = [&] {
#if CUDART_VERSION >= 13000
      CUDA_CHECK(cudaGraphGetEdges(handle, from.data(), to.data(), kinds.data(), &count));
#elif CUDART_VERSION >= 12030
      CUDA_CHECK(cudaGraphGetEdges_v2(handle, from.data(), to.data(), kinds.data(), &count));
#endif
    };
    look();
    from.resize(count), to.resize(count), kinds.resize(count);
    if (count > 0) look();
    return static_cast<std::size_t>(
        std::count_if(kinds.begin(), kinds.end(), [](const cudaGraphEdgeData& edge) {
          return edge.type == cudaGraphDependencyTypeProgrammatic;
        }));
  }
};

// Other threads may go on calling CUDA meanwhile. A body that throws leaves the stream as it was.
void capture(Graph& graph, cudaStream_t stream, const std::function<void()>& body) {
  CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  std::exception_ptr thrown;
  try {
    body();
  } catch (...) {
    thrown = std::current_exception();
  }
  const cudaError_t ended = cudaStreamEndCapture(stream, &graph.handle);
  if (thrown) {
    cudaGetLastError();  // what the abandoned capture has left
    std::rethrow_exception(thrown);
  }
  CUDA_CHECK(ended);
}

class GraphRecording final : public Recording {
 public:
  GraphRecording(const CudaBackend& backend, const Graph& graph)
      : backend_(backend),
        memory_version_(backend.own_memory_version()),
        operations_(graph.operations()),
        overlapped_(graph.overlapped()) {
    CUDA_CHECK(cudaGraphInstantiate(&executable_, graph.handle, 0));
    CUDA_CHECK(cudaGraphUpload(executable_, backend.stream()));
  }
  ~GraphRecording() override {
    cudaStreamSynchronize(backend_.stream());  // a replay may be under way
    cudaGraphExecDestroy(executable_);
  }
  GraphRecording(const GraphRecording&) = delete;
  GraphRecording& operator=(const GraphRecording&) = delete;

  void replay() override { CUDA_CHECK(cudaGraphLaunch(executable_, backend_.stream())); }
  bool is_current() const override { return memory_version_ == backend_.own_memory_version(); }
  std::string description() const override {
    return concat("a CUDA graph of ", operations_, " operations, ", overlapped_,
                  " of which may begin early");
  }

 private:
  const CudaBackend& backend_;
  std::uint64_t memory_version_;
  std::size_t operations_, overlapped_;
  cudaGraphExec_t executable_ = nullptr;
};

struct Flag {
  bool& value;
  explicit Flag(bool& flag) : value(flag) { value = true; }
  ~Flag() { value = false; }
  Flag(const Flag&) = delete;
  Flag& operator=(const Flag&) = delete;
};

}  // namespace
}  // namespace cuda

std::unique_ptr<Recording> CudaBackend::record(const std::function<void()>& body) {
  refuse_while_recording("another region begins");
  cuda::Graph graph;
  {
    const cuda::Flag flag(recording_);
    cuda::capture(graph, stream_, body);
  }
  return std::make_unique<cuda::GraphRecording>(*this, graph);
}

std::uint64_t CudaBackend::own_memory_version() const {
  return workspace_->moves() + squares_->fills() + updates_->fills();
}

void CudaBackend::refuse_while_recording(const char* what) const {
  if (recording_) throw Error(concat("a region cannot be recorded: ", what, " inside it"));
}

}  // namespace convoy
