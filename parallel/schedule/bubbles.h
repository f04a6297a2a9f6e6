// The bubbles of the schedules beside what theory says.
#pragma once

#include <string>
#include <vector>

#include "parallel/schedule/simulate.h"

namespace convoy {

// At equal costs of F, I and W and free transfers, for at least as many micro-batches as fill the
// pipeline (zb-v: three times the ranks, on up to 8 ranks often less): (p-1)/m for gpipe and 1f1b
// (Narayanan et al., arXiv 2104.04473, section 2.2), (p-1)/(v m) interleaved, (p-1)/(3 m) zb-h1,
// (p-1)/(6 m) zb-v (from Qi et al., arXiv 2401.10241).
double theoretical_step_bubble(const PipelineShape& shape);
double theoretical_span_bubble(const PipelineShape& shape);  // the same, but 0 for zb-v

struct BubbleRow {
  PipelineShape shape;
  double step, step_theory, span, span_theory;
  int peak_slots;     // of the rank that needs most, in virtual stages
  double peak_share;  // the same in 1/ranks of the model: comparable between schedules
};

BubbleRow bubbles_of(const PipelineShape& shape, const Costs& costs = {});
// A row for each schedule (interleaved with 2 virtual stages a rank).
std::vector<BubbleRow> bubble_table(int ranks, int micro_batches, const Costs& costs = {});
// As rows of a Markdown table with its heading.
std::string to_markdown(const std::vector<BubbleRow>& rows);

}  // namespace convoy
