// How much memory a rank needs to run its list, and who gets which piece. Three kinds of things
// live at a stage for a while: what the forward pass saved (a *slot*: from F to B or W), the
// activation that came in (from its arrival to B or W, since what was saved may point into it) and
// the gradient that came in (likewise). Each kind is numbered per stage from 0, the lowest free
// number first.
#pragma once

#include <vector>

#include "parallel/schedule/schedule.h"

namespace convoy {

class MemoryPlan {
 public:
  // Wants a complete schedule (with transfers).
  explicit MemoryPlan(const Schedule& schedule);

  // How many the executor must allocate for a stage; the first stage receives no activation, the
  // last no gradient.
  int slots_of(int stage) const { return slots_.counts[stage]; }
  int activations_of(int stage) const { return activations_.counts[stage]; }
  int gradients_of(int stage) const { return gradients_.counts[stage]; }

  // Which one a micro-batch uses.
  int slot(int stage, int micro_batch) const { return number(slots_, stage, micro_batch); }
  int activation(int stage, int micro_batch) const {
    return number(activations_, stage, micro_batch);
  }
  int gradient(int stage, int micro_batch) const { return number(gradients_, stage, micro_batch); }

  // The most slots of a rank alive at one time, all its stages together: its peak of activation
  // memory, in stages. Less than the sum of slots_of where its stages peak at different times.
  int peak_slots(int rank) const { return peaks_[rank]; }

 private:
  struct Assignment {
    std::vector<int> counts;   // [stage]
    std::vector<int> numbers;  // [stage * micro_batches + micro_batch]
  };

  int number(const Assignment& assignment, int stage, int micro_batch) const;
  template <class Begins>
  void assign(Assignment& assignment, const Schedule& schedule, Begins&& begins);
  void count_peaks(const Schedule& schedule);

  int micro_batches_;
  Assignment slots_, activations_, gradients_;
  std::vector<int> peaks_;  // [rank]
};

}  // namespace convoy
