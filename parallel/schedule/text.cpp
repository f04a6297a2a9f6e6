#include "parallel/schedule/text.h"

#include <array>
#include <charconv>
#include <sstream>
#include <utility>

#include "core/error.h"

namespace convoy {
namespace {

constexpr std::array<std::pair<Op, std::string_view>, 11> kLetters = {{
    {Op::forward, "F"},
    {Op::backward, "B"},
    {Op::backward_input, "I"},
    {Op::backward_weight, "W"},
    {Op::send_activation, "SA"},
    {Op::receive_activation, "RA"},
    {Op::send_gradient, "SG"},
    {Op::receive_gradient, "RG"},
    {Op::gather_weights, "GATHER"},
    {Op::release_weights, "RELEASE"},
    {Op::reduce_gradients, "REDUCE"},
}};

// Takes digits off the front of the text.
bool take_number(std::string_view& text, int& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || number < 0) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return true;
}

[[noreturn]] void refuse(std::string_view text) {
  throw Error(concat("\"", text,
                     "\" is no action; one looks like 2F0: stage, operation (F, B, I, W, "
                     "SA, RA, SG, RG), micro-batch; or 2GATHER, 2RELEASE, 2REDUCE"));
}

PipelineShape parse_shape(std::istream& line) {
  PipelineShape shape;
  std::string word, kind, ranks, virtual_stages, micro_batches;
  line >> word >> kind >> ranks >> shape.ranks >> virtual_stages >> shape.virtual_stages >>
      micro_batches >> shape.micro_batches;
  if (!line || word != "schedule" || ranks != "ranks" || virtual_stages != "virtual_stages" ||
      micro_batches != "micro_batches") {
    throw Error(
        "line 1 of a schedule reads: schedule KIND ranks N virtual_stages N micro_batches N");
  }
  shape.kind = parse_schedule_kind(kind);
  check_shape(shape);
  return shape;
}

}  // namespace

std::string to_text(const Action& action) {
  const std::string_view letters = kLetters.at(static_cast<std::size_t>(action.op)).second;
  std::string text = concat(action.stage, letters);
  if (action.micro_batch != Action::kNoMicroBatch) text += std::to_string(action.micro_batch);
  return text;
}

Action parse_action(std::string_view text) {
  std::string_view rest = text;
  Action action{};
  if (!take_number(rest, action.stage)) refuse(text);
  const std::string_view letters = rest.substr(0, rest.find_first_of("0123456789"));
  rest.remove_prefix(letters.size());
  for (const auto& [op, name] : kLetters) {
    if (letters != name) continue;
    action.op = op;
    const bool whole_stage = !is_compute(op) && !is_transfer(op);
    if (whole_stage ? rest.empty() : take_number(rest, action.micro_batch) && rest.empty()) {
      return action;
    }
  }
  refuse(text);
}

std::string to_text(const Schedule& schedule) {
  const PipelineShape& shape = schedule.shape;
  std::string text =
      concat("schedule ", name_of(shape.kind), " ranks ", shape.ranks, " virtual_stages ",
             shape.virtual_stages, " micro_batches ", shape.micro_batches, "\n");
  for (std::size_t rank = 0; rank < schedule.actions.size(); ++rank) {
    text += concat("rank ", rank, ":");
    for (const Action& action : schedule.actions[rank]) text += " " + to_text(action);
    text += "\n";
  }
  return text;
}

Schedule parse_schedule(std::string_view text) {
  std::istringstream lines{std::string(text)};
  std::string line;
  std::getline(lines, line);
  std::istringstream first(line);
  Schedule schedule{parse_shape(first), {}};
  for (int rank = 0; rank < schedule.shape.ranks; ++rank) {
    const std::string start = concat("rank ", rank, ":");
    if (!std::getline(lines, line) || line.rfind(start, 0) != 0) {
      throw Error(concat("line ", rank + 2, " of the schedule must start with \"", start, "\""));
    }
    std::istringstream words(line.substr(start.size()));
    auto& list = schedule.actions.emplace_back();
    for (std::string word; words >> word;) list.push_back(parse_action(word));
  }
  if (std::getline(lines, line)) {
    throw Error(concat("line ", schedule.shape.ranks + 2, " of the schedule: more lines than its ",
                       schedule.shape.ranks, " ranks"));
  }
  return schedule;
}

}  // namespace convoy
