// The sections of the page, each a function of what was measured and what the fits say. A section
// whose data are missing says what is missing.
#pragma once

#include <string>

#include "experiments/sweep_report/analysis.h"

namespace convoy {

std::string summary_section(const SweepData& data, const SweepAnalysis& analysis);
std::string curves_section(const SweepData& data, const SweepAnalysis& analysis);
std::string isoflop_section(const SweepData& data, const SweepAnalysis& analysis);
std::string fit_section(const SweepAnalysis& analysis);  // and the frontier
std::string residual_section(const SweepAnalysis& analysis);
std::string advantage_section(const SweepAnalysis& analysis);  // and the orderings
std::string throughput_section(const SweepData& data, const SweepAnalysis& analysis);
std::string runs_section(const SweepData& data, const SweepAnalysis& analysis);
std::string exclusions_section(const SweepAnalysis& analysis);
std::string checklist_section(const SweepData& data, const SweepAnalysis& analysis);

// The colour of an arm, the same in every plot; arms without a usable run come last.
std::size_t colour_of(const SweepAnalysis& analysis, const std::string& arm);

// 12345678 -> "12.3M".
std::string compact(double value);

// The text of an unnamed arm.
std::string arm_name(const std::string& arm);

}  // namespace convoy
