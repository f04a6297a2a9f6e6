#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "experiments/fit/screening.h"
#include "experiments/fit/table.h"
#include "tests/experiments/run_directory.h"

namespace convoy {
namespace {

Runs csv(const std::string& text, const ColumnChoice& columns = {}) {
  return parse_runs(text, "runs.csv", TableFormat::csv, columns);
}

// The message of the refusal; "" where there is none.
std::string refusal_of(const std::string& text, TableFormat format = TableFormat::csv,
                       const ColumnChoice& columns = {}) {
  try {
    parse_runs(text, "runs.csv", format, columns);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(RunTable, TheProjectsOwnTableIsReadWhole) {
  const Runs runs =
      csv("run_id,parent_run,arch,size,seed,status,N,N_active,D,C,flop_convention,val_loss,wall_s,"
          "ranks,device,device_hours\n"
          "plain-20M-s1,,plain,20M,1,done,2e7,2e7,4e8,4.8e16,parts,3.25,120.5,4,H100,0.13\n");
  ASSERT_EQ(runs.rows.size(), 1U);
  const RunRow& run = runs.rows[0];
  EXPECT_EQ(run.run_id, "plain-20M-s1");
  EXPECT_EQ(run.arch, "plain");
  EXPECT_EQ(run.size, "20M");
  EXPECT_EQ(run.seed, 1);
  EXPECT_EQ(run.status, "done");
  EXPECT_EQ(run.N, 2e7);
  EXPECT_EQ(run.D, 4e8);
  EXPECT_EQ(run.C, 4.8e16);
  EXPECT_EQ(run.loss, 3.25);
  EXPECT_EQ(run.wall_s, 120.5);
  EXPECT_EQ(run.ranks, 4);
  EXPECT_EQ(run.device_hours, 0.13);
  EXPECT_EQ(run.device, "H100");
  EXPECT_EQ(run.flop_convention, "parts");
  EXPECT_TRUE(runs.has_flops);
}

TEST(RunTable, HeadingsThatPeopleUseAreUnderstood) {
  for (const char* headings :
       {"params,tokens,flops,loss", "Model Size,Training Tokens,Training FLOP,val_loss",
        "n_params,train tokens,Training FLOPs,Validation Loss", "parameters,D,compute,Loss"}) {
    const Runs runs = csv(std::string(headings) + "\n1e6,2E+07,+1.2e14,4.5\n");
    EXPECT_EQ(runs.rows.at(0).N, 1e6) << headings;
    EXPECT_EQ(runs.rows.at(0).D, 2e7) << headings;
    EXPECT_EQ(runs.rows.at(0).C, 1.2e14) << headings;
    EXPECT_EQ(runs.rows.at(0).loss, 4.5) << headings;
  }
}

TEST(RunTable, TheThirdOfSizeTokensAndFlopsIsDerived) {
  EXPECT_EQ(csv("N,D,loss\n1e6,2e7,4\n").rows[0].C, 1.2e14);
  EXPECT_FALSE(csv("N,D,loss\n1e6,2e7,4\n").has_flops);
  EXPECT_DOUBLE_EQ(csv("N,C,loss\n1e6,1.2e14,4\n").rows[0].D, 2e7);
  EXPECT_DOUBLE_EQ(csv("D,C,loss\n2e7,1.2e14,4\n").rows[0].N, 1e6);
  EXPECT_TRUE(std::isnan(csv("C,loss\n1.2e14,4\n").rows[0].N));
}

TEST(RunTable, QuotedCellsMayHoldSeparatorsQuotesAndLineBreaks) {
  const Runs runs =
      csv("\xEF\xBB\xBFrun_id,N,D,loss\r\n\"a, \"\"b\"\"\nc\",1e6,2e7,4\r\n\r\nd,\"2e6\",2e7,3.9");
  ASSERT_EQ(runs.rows.size(), 2U);
  EXPECT_EQ(runs.rows[0].run_id, "a, \"b\"\nc");
  EXPECT_EQ(runs.rows[1].N, 2e6);
  EXPECT_EQ(runs.rows[1].line, 5);
  EXPECT_EQ(csv("N;D;loss\n1e6;2e7;4\n").rows[0].D, 2e7);
  EXPECT_EQ(csv("N\tD\tloss\n1e6\t2e7\t4\n").rows[0].D, 2e7);
}

TEST(RunTable, BadCellsAreNamedByLineAndColumn) {
  const auto names = [](const std::string& text, const std::vector<std::string>& parts) {
    const std::string message = refusal_of(text);
    for (const std::string& part : parts)
      EXPECT_NE(message.find(part), std::string::npos) << part << " in: " << message;
  };
  names("params,D,loss\n1e6,2e7,4\n1e6,2e7,4x\n",
        {"line 3", "column \"loss\"", "\"4x\" is not a number"});
  names("params,D,loss\n-1e6,2e7,4\n", {"line 2", "column \"params\"", "must be positive"});
  names("N,D,loss\n0,2e7,4\n", {"line 2", "must be positive"});
  names("N,D,loss,seed\n1e6,2e7,4,1.5\n", {"line 2", "column \"seed\"", "whole number"});
  names("N,D,loss\n1e6,2e7\n", {"line 2", "2 cells", "3 headings"});
  names("N,D,loss\n1e6,2e7,\"4\n", {"line 2", "never closed"});
  names("N,D,loss\n1e6,2e7,\"4\"5\n", {"line 2", "written twice"});
  names("", {"empty"});
  names("N,D,loss\n", {"no runs"});
}

TEST(RunTable, MissingColumnsAreNamedWithTheRemedy) {
  const std::string no_loss = refusal_of("N,D,perplexity\n1e6,2e7,90\n");
  EXPECT_NE(no_loss.find("no column for loss"), std::string::npos) << no_loss;
  EXPECT_NE(no_loss.find("N, D, perplexity"), std::string::npos) << no_loss;
  EXPECT_NE(no_loss.find("--column loss=HEADING"), std::string::npos) << no_loss;
  EXPECT_NE(refusal_of("N,loss\n1e6,4\n").find("no column for D"), std::string::npos);
}

TEST(RunTable, TwoColumnsForOneFieldAreRefusedUnlessOneIsChosen) {
  const std::string text = "params,model size,D,loss\n1e6,2e6,2e7,4\n";
  EXPECT_NE(refusal_of(text).find("both mean N"), std::string::npos) << refusal_of(text);
  EXPECT_EQ(csv(text, {{"N", "model size"}}).rows[0].N, 2e6);
  EXPECT_EQ(csv("N,params,D,loss\n1e6,2e6,2e7,4\n").rows[0].N, 1e6);
  EXPECT_EQ(csv("N,N_active,D,loss\n1e6,2e5,2e7,4\n", {{"N", "N_active"}}).rows[0].N, 2e5);
  EXPECT_NE(refusal_of(text, TableFormat::csv, {{"N", "size"}}).find("no column \"size\""),
            std::string::npos);
  EXPECT_NE(refusal_of(text, TableFormat::csv, {{"M", "params"}}).find("the fields are"),
            std::string::npos);
}

// A run that one table shows unfinished and the other done counts once, as done.
TEST(RunTable, SeveralTablesCountAsOne) {
  const testing::TemporaryDirectory place;
  const auto write = [&](const char* name, const std::string& text) {
    testing::write_text(place.path() / name, text);
    return (place.path() / name).string();
  };
  const std::string first = write("first.csv",
                                  "run_id,N,D,C,status,loss\n"
                                  "a,1e6,2e7,1e14,done,4\nb,4e6,8e7,2e15,interrupted,\n");
  const std::string second = write("second.csv",
                                   "run_id,status,params,tokens,flops,val_loss,extra\n"
                                   "b,done,4e6,8e7,2e15,3.5,x\na,done,1e6,2e7,1e14,4,x\n");
  const Runs runs = read_runs({first, second}, {});
  ASSERT_EQ(runs.rows.size(), 4U);
  const Screened screened = screen(runs.rows);
  ASSERT_EQ(screened.runs.size(), 2U);
  EXPECT_EQ(screened.runs[0].run_id, "a");
  EXPECT_EQ(screened.runs[1].loss, 3.5);
  ASSERT_EQ(screened.exclusions.size(), 2U);
  EXPECT_EQ(screened.exclusions[1].reason,
            concat("duplicate: line 3 of ", second, " repeats the run_id of line 2 of ", first));
  const std::string bare = write("bare.csv", "N,D,loss\n1e6,2e7,4\n");
  EXPECT_THROW(read_runs({first, bare}, {}), Error);
}

TEST(RunTable, JsonLinesGiveTheSameRuns) {
  const testing::TemporaryDirectory place;
  testing::write_text(place.path() / "runs.jsonl",
                      R"({"params": 1000000, "tokens": 2e7, "loss": null, "status": "running"})"
                      "\n\n"
                      R"({"params": 4e6, "tokens": 2e7, "seed": 3, "loss": 3.5})"
                      "\n");
  const Runs runs = read_runs(place.path() / "runs.jsonl");
  ASSERT_EQ(runs.rows.size(), 2U);
  EXPECT_TRUE(std::isnan(runs.rows[0].loss));
  EXPECT_EQ(runs.rows[0].status, "running");
  EXPECT_EQ(runs.rows[1].N, 4e6);
  EXPECT_EQ(runs.rows[1].seed, 3);
  EXPECT_EQ(runs.rows[1].line, 3);
  EXPECT_NE(refusal_of("{\"N\": 1\n", TableFormat::jsonl).find("line 1 is not a JSON object"),
            std::string::npos);
}

}  // namespace
}  // namespace convoy
