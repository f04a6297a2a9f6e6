// cuDNN's flash attention through its frontend: one graph for the forward pass and one for the
// backward pass (deterministic unless told otherwise) of each shape, built at first use.
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>

#include <array>
#include <cmath>
#include <map>

#include "core/cuda/cuda_backend.h"
#include "core/cuda/cuda_check.h"
#include "core/cuda/flash_attention.h"

namespace convoy::cuda {
namespace {

namespace fe = cudnn_frontend;
using Graph = fe::graph::Graph;
using Attributes = std::shared_ptr<fe::graph::Tensor_attributes>;

enum Uid : std::int64_t { kQ = 1, kK, kV, kOut, kStats, kDout, kDq, kDk, kDv };

void check_cudnn(cudnnStatus_t status) {
  CHECK(status == CUDNN_STATUS_SUCCESS, "cuDNN: ", cudnnGetErrorString(status));
}

// Where the rows of q, k, v and so on lie: strides in elements.
struct Layout {
  AttentionShape shape;
  std::int64_t q, k, v, out, dout, dq, dk, dv, stats;
};

using Key = std::array<std::int64_t, 14>;

Key key_of(const Layout& l) {
  const AttentionShape& s = l.shape;
  return {s.sequences, s.length, s.query_heads, s.kv_heads, s.head_width, l.q,  l.k,
          l.v,         l.out,    l.dout,        l.dq,       l.dk,         l.dv, l.stats};
}

// A tensor of B sequences, heads, T rows, K channels over rows `stride` apart.
Attributes heads(Graph& graph, const char* name, Uid uid, const AttentionShape& s,
                 std::int64_t count, std::int64_t stride) {
  return graph.tensor(fe::graph::Tensor_attributes()
                          .set_name(name)
                          .set_uid(uid)
                          .set_dim({s.sequences, count, s.length, s.head_width})
                          .set_stride({s.length * stride, s.head_width, stride, 1}));
}

void describe(const Attributes& t, Uid uid, const AttentionShape& s, std::int64_t count,
              std::int64_t stride) {
  t->set_output(true)
      .set_uid(uid)
      .set_dim({s.sequences, count, s.length, s.head_width})
      .set_stride({s.length * stride, s.head_width, stride, 1});
}

// log_sum_exp [B*T, Q]
std::vector<std::int64_t> stats_stride(const Layout& l) {
  return {l.shape.length * l.stats, 1, l.stats, 1};
}

float scale_of(const AttentionShape& s) {
  return 1.0f / std::sqrt(static_cast<float>(s.head_width));
}

// A graph that is built, or null where the library does not have it.
struct Plan {
  std::unique_ptr<Graph> graph;
  std::int64_t workspace = 0;
};

Plan built(std::unique_ptr<Graph> graph, cudnnHandle_t handle) {
  Plan plan;
  if (!graph->build(handle, {fe::HeurMode_t::A}).is_good()) return plan;
  if (!graph->get_workspace_size(plan.workspace).is_good()) return plan;
  plan.graph = std::move(graph);
  return plan;
}

std::unique_ptr<Graph> new_graph() {
  auto graph = std::make_unique<Graph>();
  graph->set_io_data_type(fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  return graph;
}

Plan forward_plan(const Layout& l, cudnnHandle_t handle) {
  const AttentionShape& s = l.shape;
  auto graph = new_graph();
  auto [out, stats] = graph->sdpa(heads(*graph, "q", kQ, s, s.query_heads, l.q),
                                  heads(*graph, "k", kK, s, s.kv_heads, l.k),
                                  heads(*graph, "v", kV, s, s.kv_heads, l.v),
                                  fe::graph::SDPA_attributes()
                                      .set_name("forward")
                                      .set_generate_stats(true)
                                      .set_causal_mask(true)
                                      .set_attn_scale(scale_of(s)));
  describe(out, kOut, s, s.query_heads, l.out);
  stats->set_output(true)
      .set_uid(kStats)
      .set_data_type(fe::DataType_t::FLOAT)
      .set_dim({s.sequences, s.query_heads, s.length, 1})
      .set_stride(stats_stride(l));
  return built(std::move(graph), handle);
}

Plan backward_plan(const Layout& l, cudnnHandle_t handle, Deterministic deterministic) {
  const AttentionShape& s = l.shape;
  auto graph = new_graph();
  auto stats = graph->tensor(fe::graph::Tensor_attributes()
                                 .set_name("stats")
                                 .set_uid(kStats)
                                 .set_data_type(fe::DataType_t::FLOAT)
                                 .set_dim({s.sequences, s.query_heads, s.length, 1})
                                 .set_stride({s.query_heads * s.length, s.length, 1, 1}));
  auto [dq, dk, dv] = graph->sdpa_backward(
      heads(*graph, "q", kQ, s, s.query_heads, l.q), heads(*graph, "k", kK, s, s.kv_heads, l.k),
      heads(*graph, "v", kV, s, s.kv_heads, l.v),
      heads(*graph, "out", kOut, s, s.query_heads, l.out),
      heads(*graph, "dout", kDout, s, s.query_heads, l.dout), stats,
      fe::graph::SDPA_backward_attributes()
          .set_name("backward")
          .set_causal_mask(true)
          .set_attn_scale(scale_of(s))
          .set_deterministic_algorithm(deterministic == Deterministic::yes));
  describe(dq, kDq, s, s.query_heads, l.dq);
  describe(dk, kDk, s, s.kv_heads, l.dk);
  describe(dv, kDv, s, s.kv_heads, l.dv);
  return built(std::move(graph), handle);
}

class CudnnAttention final : public FlashAttention {
 public:
  CudnnAttention(cudaStream_t stream, Workspace& workspace, Deterministic deterministic)
      : stream_(stream), workspace_(workspace), deterministic_(deterministic) {
    check_cudnn(cudnnCreate(&handle_));
    check_cudnn(cudnnSetStream(handle_, stream));
  }
  ~CudnnAttention() override {
    forward_.clear();
    backward_.clear();
    cudnnDestroy(handle_);
  }

  bool takes_forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v,
                     const AttentionShape& shape) override {
    return takes(q, shape) && forward_for(layout_of(out, lse, q, k, v, shape)).graph != nullptr;
  }

  void forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v,
               const AttentionShape& shape) override {
    const Plan& plan = forward_for(layout_of(out, lse, q, k, v, shape));
    begin(plan, 0);
    execute(
        plan,
        {{kQ, q.data()}, {kK, k.data()}, {kV, v.data()}, {kOut, out.data()}, {kStats, lse.data()}});
  }

  bool takes_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor q, Tensor k, Tensor v,
                      Tensor out, Tensor lse, const AttentionShape& shape) override {
    if (!takes(q, shape)) return false;
    return backward_for(backward_layout(dq, dk, dv, dout, q, k, v, out, lse, shape)).graph !=
           nullptr;
  }

  // Its backward pass wants the statistics of a head side by side.
  void backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor q, Tensor k, Tensor v,
                Tensor out, Tensor lse, const AttentionShape& shape) override {
    const Plan& plan = backward_for(backward_layout(dq, dk, dv, dout, q, k, v, out, lse, shape));
    begin(plan, lse.bytes());
    auto* stats = workspace_.take<float>(lse.size());
    pack_statistics(stream_, stats, lse, shape);
    execute(plan, {{kQ, q.data()},
                   {kK, k.data()},
                   {kV, v.data()},
                   {kOut, out.data()},
                   {kStats, stats},
                   {kDout, dout.data()},
                   {kDq, dq.data()},
                   {kDk, dk.data()},
                   {kDv, dv.data()}});
  }

 private:
  static bool takes(const Tensor& q, const AttentionShape& shape) {
    return q.dtype() == DType::bf16 && shape.head_width % 8 == 0 && shape.head_width <= 128;
  }
  static Layout layout_of(const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& k,
                          const Tensor& v, const AttentionShape& shape) {
    return {shape, q.row_stride(),  k.row_stride(), v.row_stride(), out.row_stride(), 0, 0, 0,
            0,     lse.row_stride()};
  }
  static Layout backward_layout(const Tensor& dq, const Tensor& dk, const Tensor& dv,
                                const Tensor& dout, const Tensor& q, const Tensor& k,
                                const Tensor& v, const Tensor& out, const Tensor& lse,
                                const AttentionShape& shape) {
    Layout l = layout_of(out, lse, q, k, v, shape);
    l.dout = dout.row_stride(), l.dq = dq.row_stride();
    l.dk = dk.row_stride(), l.dv = dv.row_stride();
    return l;
  }

  const Plan& forward_for(const Layout& l) {
    const auto place = forward_.find(key_of(l));
    if (place != forward_.end()) return place->second;
    return forward_[key_of(l)] = forward_plan(l, handle_);
  }
  const Plan& backward_for(const Layout& l) {
    const auto place = backward_.find(key_of(l));
    if (place != backward_.end()) return place->second;
    return backward_[key_of(l)] = backward_plan(l, handle_, deterministic_);
  }

  void begin(const Plan& plan, std::size_t more_bytes) {
    workspace_.begin(static_cast<std::size_t>(plan.workspace) + more_bytes + 512);
  }
  void execute(const Plan& plan, std::unordered_map<std::int64_t, void*> tensors) {
    void* memory = workspace_.take(static_cast<std::size_t>(plan.workspace));
    auto status = plan.graph->execute(handle_, tensors, memory);
    CHECK(status.is_good(), "cuDNN attention: ", status.get_message());
  }

  cudaStream_t stream_;
  Workspace& workspace_;
  Deterministic deterministic_;
  cudnnHandle_t handle_ = nullptr;
  std::map<Key, Plan> forward_, backward_;
};

}  // namespace

std::unique_ptr<FlashAttention> make_flash_attention(cudaStream_t stream, Workspace& workspace,
                                                     Deterministic deterministic) {
  return std::make_unique<CudnnAttention>(stream, workspace, deterministic);
}

std::string flash_attention_library() {
  const auto version = cudnnGetVersion();
  return concat("cuDNN ", version / 10000, '.', version % 10000 / 100, '.', version % 100);
}

}  // namespace convoy::cuda
