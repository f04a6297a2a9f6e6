// The text form, the pictures and the documentation's table.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "parallel/schedule/bubbles.h"
#include "parallel/schedule/picture.h"
#include "parallel/schedule/text.h"
#include "tests/experiments/xml_check.h"
#include "tests/parallel/golden.h"
#include "tests/parallel/schedule_shapes.h"

namespace convoy {
namespace {

using test::describe;
using test::error_of;

TEST(ScheduleText, OfEveryActionReadsBack) {
  EXPECT_EQ(to_text(Action{Op::forward, 2, 0}), "2F0");
  EXPECT_EQ(to_text(Action{Op::receive_gradient, 12, 34}), "12RG34");
  EXPECT_EQ(to_text(Action{Op::gather_weights, 3}), "3GATHER");
  for (int op = 0; op <= static_cast<int>(Op::reduce_gradients); ++op) {
    Action action{static_cast<Op>(op), 17, 5};
    if (!is_compute(action.op) && !is_transfer(action.op)) {
      action.micro_batch = Action::kNoMicroBatch;
    }
    EXPECT_EQ(parse_action(to_text(action)), action);
  }
}

TEST(ScheduleText, OfEveryScheduleReadsBack) {
  for (const PipelineShape& shape : test::shapes_of(4, 6)) {
    const Schedule schedule = test::complete_schedule(shape);
    const Schedule back = parse_schedule(to_text(schedule));
    EXPECT_EQ(back.shape, shape) << describe(shape);
    EXPECT_EQ(back.actions, schedule.actions) << describe(shape);
  }
}

TEST(ScheduleText, ThatIsNoActionIsRefused) {
  for (const char* text : {"", "F0", "2F", "2X0", "2F0x", "2f0", "-1F0", "2F-1", "2GATHER1", "2"}) {
    EXPECT_NE(error_of([&] { parse_action(text); }).find("is no action"), std::string::npos)
        << text;
  }
}

TEST(ScheduleText, ThatIsNoScheduleIsRefusedWithTheLine) {
  const auto refusal = [](const std::string& text) {
    return error_of([&] { parse_schedule(text); });
  };
  const std::string shape = "schedule 1f1b ranks 1 virtual_stages 1 micro_batches 1\n";
  EXPECT_EQ(refusal(shape + "rank 0: 0F0 0B0\n"), "");
  EXPECT_NE(refusal("rank 0: 0F0\n").find("line 1"), std::string::npos);
  EXPECT_NE(refusal(shape + "rank 1: 0F0 0B0\n").find("line 2"), std::string::npos);
  EXPECT_NE(refusal(shape + "rank 0: 0F0 0B0\nrank 1:\n").find("line 3"), std::string::npos);
}

// One small schedule of each kind, complete, so that no generator or pass changes unseen.
TEST(Schedules, AreThoseOfTheGoldenFile) {
  std::string text;
  for (const PipelineShape& shape : test::shapes_of(2, 4)) {
    text += to_text(test::complete_schedule(shape)) + "\n";
  }
  text += to_text(make_schedule({ScheduleKind::zb_v, 4, 2, 8}));
  test::expect_golden("tests/parallel/golden/schedules.txt", text);
}

TEST(SchedulePictures, AreThoseOfTheDocumentation) {
  for (const auto& [name, shape] :
       {std::pair("1f1b", PipelineShape{ScheduleKind::one_f_one_b, 4, 1, 8}),
        std::pair("zb_v", PipelineShape{ScheduleKind::zb_v, 4, 2, 8})}) {
    const std::string svg = svg_grid(simulate(make_schedule(shape)));
    EXPECT_EQ(testing::xml_fault(svg), "");
    test::expect_golden(concat("docs/pictures/schedule_", name, "_p4_m8.svg"), svg);
  }
}

TEST(SchedulePictures, AreWellFormedForEverySchedule) {
  for (const PipelineShape& shape : test::shapes_of(8, 32)) {
    EXPECT_EQ(testing::xml_fault(svg_grid(simulate(make_schedule(shape)))), "") << describe(shape);
  }
}

TEST(ScheduleTrace, HoldsEveryActionWithItsTimes) {
  const Timeline timeline =
      simulate(make_schedule({ScheduleKind::zb_v, 4, 2, 8}), {.transfer = 0.25});
  const auto trace = nlohmann::json::parse(chrome_trace(timeline, 10));
  std::size_t compute = 0, sends = 0;
  double end = 0;
  for (const auto& event : trace.at("traceEvents")) {
    if (event.at("ph") != "X") continue;
    ++(event.at("cat") == "compute" ? compute : sends);
    if (event.at("name") == "0F0") {
      EXPECT_EQ(event.at("dur"), 10.0);
    }
    if (event.at("name") == "0SA0") {
      EXPECT_EQ(event.at("ts"), 10.0);
      EXPECT_EQ(event.at("dur"), 2.5);
    }
    end = std::max(end, event.at("ts").get<double>() + event.at("dur").get<double>());
  }
  EXPECT_EQ(compute, 4U * 8 * 6);
  EXPECT_EQ(sends, 8U * 2 * 6);  // 6 of the 7 boundaries lie between ranks
  EXPECT_EQ(end, 10 * timeline.makespan);
}

TEST(Documentation, HasTheBubblesAsSimulated) {
  const std::string begin = "<!-- bubbles -->\n", finish = "<!-- end of bubbles -->\n";
  const std::string table =
      to_markdown(bubble_table(4, 8)) + "\n" + to_markdown(bubble_table(8, 32));
  const auto path = test::project_file("docs/parallel.md");
  std::string text = test::read_text(path);
  const auto from = text.find(begin), to = text.find(finish);
  ASSERT_NE(from, std::string::npos);
  ASSERT_NE(to, std::string::npos);
  const auto start = from + begin.size();
  if (test::updating_golden()) test::write_text(path, text.replace(start, to - start, table));
  const std::string now = test::read_text(path);
  EXPECT_EQ(now.substr(start, now.find(finish) - start), table)
      << "docs/parallel.md: rerun with CONVOY_UPDATE_GOLDEN=1 if it is meant";
}

}  // namespace
}  // namespace convoy
