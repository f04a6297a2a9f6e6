// log.trace: one file that tells what every rank did in the steps asked for.
#include <nlohmann/json.hpp>
#include <set>

#include "launch/files.h"
#include "tests/launch/layout_lab.h"

namespace convoy::test {
namespace {

constexpr const char* kModel = R"(
[model]
d_model = 16
n_layers = 2
n_heads = 2
d_ff = 24
seq_len = 16
[train]
steps = 5
batch_tokens = 128
micro_batch = 1
[numerics]
mode = "invariant"
[eval]
batches = 2
[checkpoint]
async = false
)";

const std::vector<std::string> kTrace = {"log.trace=trace.json", "log.trace_steps=[3, 4]"};

struct Event {
  int rank, lane;
  std::string name, category;
  double start, end;  // microseconds
};

std::vector<Event> events_of(const std::filesystem::path& file) {
  std::vector<Event> events;
  const auto json = nlohmann::json::parse(read_text(file));
  for (const auto& e : json.at("traceEvents")) {
    if (e.at("ph") != "X") continue;
    const double start = e.at("ts"), duration = e.at("dur");
    events.push_back(
        {e.at("pid"), e.at("tid"), e.at("name"), e.at("cat"), start, start + duration});
  }
  return events;
}

TEST(StepTrace, TellsWhatEveryRankDidInTheStepsAskedFor) {
  const LayoutLab lab(kModel);
  const LayoutCase layout{.dp = 2, .zero = 1, .pp = 2};
  lab.train(layout, "traced", kTrace);
  const auto events = events_of(lab.folder("traced") / "trace.json");
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    std::multiset<std::string> actions;
    std::set<std::string> kinds, names;
    double end_of_steps = 0;
    for (const auto& event : events) {
      if (event.rank != rank) continue;
      kinds.insert(event.category);
      names.insert(event.name);
      if (event.category == "action") actions.insert(event.name);
      if (event.name == "step 4") end_of_steps = event.end;
      EXPECT_EQ(event.lane == 0, event.category != "transfer") << event.name;
      EXPECT_GE(event.start, 0) << event.name;
      EXPECT_GE(event.end, event.start) << event.name;
    }
    for (const auto& event : events) {
      if (event.rank != rank) continue;
      EXPECT_LE(event.end, end_of_steps + 0.01) << event.name;
    }
    EXPECT_TRUE(kinds.contains("operation") && kinds.contains("transfer"));
    EXPECT_TRUE(names.contains("matmul") && names.contains("exchange pp"));
    // Four micro-batches in each of two steps, and the steps themselves.
    const std::string stage = std::to_string(rank / 2);
    for (const char* name : {"F0", "F3", "B0", "B3"}) EXPECT_EQ(actions.count(stage + name), 2U);
    EXPECT_EQ(actions.count("step 3"), 1U);
    EXPECT_EQ(actions.size(), 2U * (4 + 4 + 1));
  }
  for (const auto& entry : std::filesystem::directory_iterator(lab.folder("traced"))) {
    EXPECT_FALSE(entry.path().filename().string().starts_with("trace.json.")) << entry.path();
  }
}

TEST(StepTrace, ChangesNoBit) {
  const LayoutLab lab(kModel);
  const LayoutCase layout{.dp = 2, .zero = 2};
  expect_same_bits(lab.run(layout, "plain"), lab.run(layout, "traced", kTrace));
}

TEST(StepTrace, OverlapChangesNoBitOfARun) {
  const LayoutLab lab(kModel);
  for (const LayoutCase& layout :
       {LayoutCase{.dp = 2}, LayoutCase{.dp = 2, .zero = 2, .pp = 2, .schedule = "zb-h1"},
        LayoutCase{.tp = 2, .cp = 2, .sequence_parallel = true}}) {
    for (const char* mode : {"fast", "invariant"}) {
      SCOPED_TRACE(layout.describe() + " " + mode);
      const std::string name = layout.describe() + mode, numerics = concat("numerics.mode=", mode);
      expect_same_bits(lab.run(layout, name + " on", {numerics}),
                       lab.run(layout, name + " off", {numerics, "parallel.overlap=false"}));
    }
  }
}

TEST(StepTrace, RefusesWhatWouldWriteNothing) {
  const LayoutLab lab(kModel);
  const auto problem = [&](const std::vector<std::string>& settings) {
    try {
      require_trainable(lab.config({}, settings), 1);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(problem(kTrace), "");
  EXPECT_NE(problem({kTrace[0], "log.trace_steps=[4, 6]"}).find("end at step 6 of 5"),
            std::string::npos);
  EXPECT_NE(problem({kTrace[0], "log.trace_steps=[4, 3]"}).find("log.trace_steps"),
            std::string::npos);
  EXPECT_NE(problem({kTrace[1]}).find("no effect"), std::string::npos);
  EXPECT_NE(problem({"parallel.overlap=false"}).find("no effect"), std::string::npos);
}

}  // namespace
}  // namespace convoy::test
