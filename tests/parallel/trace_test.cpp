#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "parallel/chrome_trace.h"
#include "parallel/delayed_communicator.h"
#include "parallel/null_communicator.h"
#include "parallel/thread_communicator.h"
#include "parallel/trace_picture.h"
#include "parallel/traced_communicator.h"
#include "tests/experiments/xml_check.h"
#include "tests/parallel/communicator_suite.h"

namespace convoy::test {
namespace {

using Kind = Trace::Kind;

TEST(TracedCommunicator, DoesEverythingACommunicatorMust) {
  for (const int ranks : {1, 2, 3}) {
    run_on_threads(ranks, [](Communicator& world) {
      Trace trace;
      trace.begin();
      expect_everything(*trace_communicator(world, "world", trace));
    });
  }
}

std::vector<Trace::Span> spans_of(const Trace& trace, Kind kind) {
  std::vector<Trace::Span> spans;
  for (const auto& span : trace.spans()) {
    if (span.kind == kind) spans.push_back(span);
  }
  return spans;
}

// Two transfers of 20 ms, one behind the other; the rank computes for 30 ms: 10 ms are exposed.
Trace half_hidden() {
  Trace trace;
  const auto peer = make_null_communicator(0, 2);
  Link link;
  link.latency_s = 0.02;
  const auto delayed = delay(*peer, link);
  const auto c = trace_communicator(*delayed, "tp", trace);
  std::vector<double> values(4), four(8);
  trace.begin();
  Work first = c->all_reduce(view(values), Reduction::sum);
  Work second = c->all_gather(view(four), view(values));
  {
    const TraceSpan span(&trace, Kind::operation, "matmul");
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
  }
  first.wait();
  second.wait();
  trace.end();
  c->all_reduce(view(values), Reduction::sum).wait();
  return trace;
}

TEST(Trace, TellsWhatTravelledAndWhatWasWaitedFor) {
  const Trace trace = half_hidden();
  const auto transfers = spans_of(trace, Kind::transfer), waits = spans_of(trace, Kind::wait);
  ASSERT_EQ(transfers.size(), 2U) << "or one after end() was recorded";
  EXPECT_EQ(transfers[0].name, "all_reduce tp");
  EXPECT_EQ(transfers[1].name, "all_gather tp");
  EXPECT_NEAR(trace.total(Kind::transfer), 0.04, 1e-6);
  EXPECT_NEAR(transfers[0].end, transfers[1].start, 1e-6);
  ASSERT_EQ(waits.size(), 1U) << "the first was there";
  EXPECT_EQ(waits[0].name, "all_gather tp");
  EXPECT_LE(waits[0].seconds(), 0.0101 + waits[0].end - transfers[1].end);
}

TEST(Trace, NothingIsRecordedBeforeItBegins) {
  Trace trace;
  { const TraceSpan span(&trace, Kind::operation, "early"); }
  EXPECT_TRUE(trace.spans().empty());
  trace.begin();
  { const TraceSpan span(&trace, Kind::operation, "in time"); }
  { const TraceSpan span(nullptr, Kind::operation, "nowhere"); }
  EXPECT_EQ(trace.spans().size(), 1U);
}

// Transfers in flight at once need lanes of their own: a viewer nests what shares one.
TEST(ChromeTrace, SpansOfALaneDoNotOverlap) {
  Trace trace;
  trace.begin();
  const auto start = Trace::Clock::now();
  const auto at = [&](int milliseconds) { return start + std::chrono::milliseconds(milliseconds); };
  trace.add(Kind::operation, "matmul", at(0), at(9));
  trace.add(Kind::transfer, "first", at(1), at(5));
  trace.add(Kind::transfer, "second", at(2), at(4));
  trace.add(Kind::transfer, "third", at(6), at(8));
  ChromeTrace chrome;
  chrome.rank(3, trace);
  const auto json = nlohmann::json::parse(ChromeTrace::document(chrome.events()));
  std::map<std::string, int> lanes;
  std::map<int, std::string> lane_names;
  for (const auto& event : json.at("traceEvents")) {
    EXPECT_EQ(event.at("pid"), 3);
    if (event.at("ph") == "X") lanes[event.at("name")] = event.at("tid");
    if (event.at("name") == "thread_name") {
      lane_names[event.at("tid")] = event.at("args").at("name");
    }
  }
  EXPECT_EQ(lanes,
            (std::map<std::string, int>{{"matmul", 0}, {"first", 1}, {"second", 2}, {"third", 1}}));
  EXPECT_EQ(lane_names, (std::map<int, std::string>{
                            {0, "compute"}, {1, "communication"}, {2, "communication"}}));
}

TEST(TracePicture, IsAWellFormedPictureOfEveryLane) {
  const Trace trace = half_hidden();
  const std::string svg = svg_trace("Two ranks", {{"on", {trace, trace}}, {"off", {trace}}});
  EXPECT_EQ(testing::xml_fault(svg), "");
  for (const char* text : {"Two ranks", ">on<", ">off<", "rank 0: compute", "rank 1: compute",
                           "communication", "in flight", "blocked", "matmul"}) {
    EXPECT_NE(svg.find(text), std::string::npos) << text;
  }
  EXPECT_EQ(svg.find("convolution"), std::string::npos) << "a legend for what is not there";
}

}  // namespace
}  // namespace convoy::test
