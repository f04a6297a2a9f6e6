#include "parallel/schedule/schedule.h"

#include <array>
#include <string>
#include <utility>

#include "core/error.h"
#include "parallel/schedule/generate.h"

namespace convoy {
namespace {

constexpr std::array<std::pair<std::string_view, ScheduleKind>, 5> kKinds = {{
    {"gpipe", ScheduleKind::gpipe},
    {"1f1b", ScheduleKind::one_f_one_b},
    {"interleaved", ScheduleKind::interleaved},
    {"zb-h1", ScheduleKind::zb_h1},
    {"zb-v", ScheduleKind::zb_v},
}};

void check_virtual_stages(const PipelineShape& shape) {
  const int v = shape.virtual_stages;
  if (shape.kind == ScheduleKind::interleaved) {
    if (v < 2) {
      throw Error(concat("schedule interleaved with ", v,
                         " virtual stage(s) a rank is 1f1b: set virtual_stages to 2 or more, or "
                         "schedule to \"1f1b\""));
    }
  } else if (const int wanted = shape.kind == ScheduleKind::zb_v ? 2 : 1; v != wanted) {
    throw Error(concat("schedule ", name_of(shape.kind), " has ", wanted,
                       " virtual stage(s) a rank, not ", v, ": set virtual_stages to ", wanted,
                       wanted == 1 ? ", or schedule to \"interleaved\"" : ""));
  }
}

}  // namespace

std::string_view name_of(ScheduleKind kind) {
  return kKinds.at(static_cast<std::size_t>(kind)).first;
}

ScheduleKind parse_schedule_kind(std::string_view name) {
  std::string known;
  for (const auto& [text, kind] : kKinds) {
    if (text == name) return kind;
    known += concat(known.empty() ? "" : ", ", text);
  }
  throw Error(concat("no pipeline schedule is called \"", name, "\"; known are ", known));
}

Action counterpart(const Action& transfer) {
  const auto [op, stage, micro_batch] = transfer;
  switch (op) {
    case Op::send_activation: return {Op::receive_activation, stage + 1, micro_batch};
    case Op::receive_activation: return {Op::send_activation, stage - 1, micro_batch};
    case Op::send_gradient: return {Op::receive_gradient, stage - 1, micro_batch};
    case Op::receive_gradient: return {Op::send_gradient, stage + 1, micro_batch};
    default: break;
  }
  CHECK(is_transfer(op), "operation ", static_cast<int>(op), " of stage ", stage,
        " is no transfer");
  return transfer;
}

int PipelineShape::rank_of(int stage) const {
  CHECK(stage >= 0 && stage < stages(), "stage ", stage, " of ", stages());
  const bool on_the_way_up = kind == ScheduleKind::zb_v && stage >= ranks;
  return on_the_way_up ? 2 * ranks - 1 - stage : stage % ranks;
}

std::vector<int> PipelineShape::stages_of(int rank) const {
  std::vector<int> own;
  for (int stage = 0; stage < stages(); ++stage) {
    if (rank_of(stage) == rank) own.push_back(stage);
  }
  return own;
}

void check_shape(const PipelineShape& shape) {
  if (shape.ranks < 1) {
    throw Error(concat("a pipeline of ", shape.ranks, " ranks: set pp to 1 or more"));
  }
  if (shape.micro_batches < 1) {
    throw Error(concat("a pipeline step of ", shape.micro_batches,
                       " micro-batches: lower dp or micro_batch, or raise batch_tokens, until each "
                       "pipeline has at least one"));
  }
  check_virtual_stages(shape);
}

Schedule make_schedule(const PipelineShape& shape) {
  check_shape(shape);
  const auto generate = [&] {
    switch (shape.kind) {
      case ScheduleKind::gpipe: return generate_gpipe(shape);
      case ScheduleKind::one_f_one_b: return generate_1f1b(shape);
      case ScheduleKind::interleaved: return generate_interleaved(shape);
      case ScheduleKind::zb_h1: return generate_zb_h1(shape);
      case ScheduleKind::zb_v: return generate_zb_v(shape);
    }
    throw Error("unknown schedule");
  };
  return {shape, generate()};
}

}  // namespace convoy
