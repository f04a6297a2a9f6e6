// What a layout must satisfy: every combination that cannot run is refused before anything starts.
#include <algorithm>

#include "launch/layout.h"
#include "parallel/schedule/split_layers.h"

namespace convoy {
namespace {

class LayoutChecker {
 public:
  LayoutChecker(const RunConfig& config, int ranks)
      : c_(config), ranks_(ranks), mesh_(mesh_shape(config, ranks)) {}

  std::vector<std::string> run() {
    problems_ = mesh_problems(mesh_, ranks_);
    if (!problems_.empty()) return std::move(problems_);
    check_sharding();
    check_micro_batches();
    check_pipeline();
    check_zero();
    return std::move(problems_);
  }

 private:
  template <class... Parts>
  void require(bool condition, const Parts&... parts) {
    if (!condition) problems_.push_back(concat(parts...));
  }

  void check_sharding() {
    const auto& p = c_.parallel;
    require(p.ep == 1, "parallel.ep = ", p.ep,
            " divides experts, and this model has none: set parallel.ep = 1");
    const auto sequence = p.sequence_parallel ? SequenceParallel::yes : SequenceParallel::no;
    if (c_.model.n_heads < 1 || c_.model.d_ff < 0) return;
    for (auto& problem : sharding_problems(c_.model, mesh_, sequence)) {
      problems_.push_back(std::move(problem));
    }
  }

  void check_micro_batches() {
    const auto& t = c_.train;
    if (t.micro_batch < 1 || c_.model.seq_len < 1) return;
    const std::int64_t unit = c_.model.seq_len * t.micro_batch * mesh_.dp;
    if (t.batch_tokens >= unit && t.batch_tokens % unit == 0) return;
    const std::int64_t below = t.batch_tokens / unit * unit;
    const std::string nearest =
        below > 0 ? concat(below, " or ", below + unit) : concat(below + unit);
    require(false, "train.batch_tokens ", t.batch_tokens, " is not a multiple of ", unit,
            " = seq_len ", c_.model.seq_len, " x micro_batch ", t.micro_batch, " x ", mesh_.dp,
            " data parallel ranks; use ", nearest, ", or a smaller micro_batch or parallel.dp");
  }

  void check_pipeline() {
    const auto& p = c_.parallel;
    require(p.virtual_stages >= 0, "parallel.virtual_stages is ", p.virtual_stages,
            "; use 0 (what the schedule wants) or more");
    if (p.virtual_stages < 0 || c_.train.micro_batch < 1 || c_.model.seq_len < 1) return;
    try {
      const PipelineShape shape = pipeline_shape(c_, mesh_);
      check_shape(shape);
      split_layers(static_cast<int>(c_.model.n_layers), shape.stages());
    } catch (const Error& error) {
      problems_.push_back(concat("parallel.schedule = \"", p.schedule, "\": ", error.what()));
    }
  }

  void check_zero() {
    const auto& p = c_.parallel;
    require(p.zero >= 0 && p.zero <= 3, "parallel.zero is ", p.zero,
            "; use 0 (nothing is divided), 1 (moments), 2 (and gradients) or 3 (and weights)");
  }

  const RunConfig& c_;
  int ranks_;
  MeshShape mesh_;
  std::vector<std::string> problems_;
};

}  // namespace

std::vector<std::string> layout_problems(const RunConfig& config, int ranks) {
  return LayoutChecker(config, ranks).run();
}

}  // namespace convoy
