#include "parallel/schedule/bubbles.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "parallel/schedule/memory_plan.h"
#include "parallel/schedule/passes.h"

namespace convoy {

double theoretical_step_bubble(const PipelineShape& shape) {
  const double p = shape.ranks, m = shape.micro_batches;
  switch (shape.kind) {
    case ScheduleKind::gpipe:
    case ScheduleKind::one_f_one_b: return (p - 1) / m;
    case ScheduleKind::interleaved: return (p - 1) / (shape.virtual_stages * m);
    case ScheduleKind::zb_h1: return (p - 1) / (3 * m);
    case ScheduleKind::zb_v: return (p - 1) / (6 * m);
  }
  throw Error("unknown schedule");
}

double theoretical_span_bubble(const PipelineShape& shape) {
  return shape.kind == ScheduleKind::zb_v ? 0 : theoretical_step_bubble(shape);
}

BubbleRow bubbles_of(const PipelineShape& shape, const Costs& costs) {
  const Schedule schedule = add_transfers(make_schedule(shape), costs);
  const Timeline timeline = simulate(schedule, costs);
  const MemoryPlan memory(schedule);
  int peak = 0;
  for (int rank = 0; rank < shape.ranks; ++rank) peak = std::max(peak, memory.peak_slots(rank));
  return {.shape = shape,
          .step = timeline.step_bubble(),
          .step_theory = theoretical_step_bubble(shape),
          .span = timeline.span_bubble(),
          .span_theory = theoretical_span_bubble(shape),
          .peak_slots = peak,
          .peak_share = static_cast<double>(peak) / shape.virtual_stages};
}

std::vector<BubbleRow> bubble_table(int ranks, int micro_batches, const Costs& costs) {
  std::vector<BubbleRow> rows;
  for (const auto& [kind, virtual_stages] :
       {std::pair(ScheduleKind::gpipe, 1), std::pair(ScheduleKind::one_f_one_b, 1),
        std::pair(ScheduleKind::interleaved, 2), std::pair(ScheduleKind::zb_h1, 1),
        std::pair(ScheduleKind::zb_v, 2)}) {
    rows.push_back(bubbles_of({kind, ranks, virtual_stages, micro_batches}, costs));
  }
  return rows;
}

std::string to_markdown(const std::vector<BubbleRow>& rows) {
  std::string text =
      "| schedule | ranks | virtual stages | micro-batches | step bubble | theory | span bubble | "
      "theory | peak slots | in 1/ranks of the model |\n"
      "|---|---|---|---|---|---|---|---|---|---|\n";
  for (const BubbleRow& row : rows) {
    text +=
        fmt::format("| {} | {} | {} | {} | {:.2f} % | {:.2f} % | {:.2f} % | {:.2f} % | {} | {} |\n",
                    name_of(row.shape.kind), row.shape.ranks, row.shape.virtual_stages,
                    row.shape.micro_batches, 100 * row.step, 100 * row.step_theory, 100 * row.span,
                    100 * row.span_theory, row.peak_slots, row.peak_share);
  }
  return text;
}

}  // namespace convoy
