#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "experiments/fit/fit.h"
#include "experiments/fit/fit_checks.h"
#include "experiments/fit/variable_projection.h"
#include "tests/experiments/planted_runs.h"

namespace convoy {
namespace {

using testing::planted_grid;
using testing::planted_run;

class LawFit : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_minimizer()) GTEST_SKIP() << "built without Ceres";
  }
};

FitOptions options_for(LawKind law, Loss loss = Loss::huber) {
  return {.law = law, .loss = loss, .resamples = 200};
}

std::string refusal_of(const std::vector<RunRow>& runs, LawKind law) {
  try {
    fit(runs, options_for(law));
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool has_warning(const FitResult& result, const std::string& part) {
  return std::any_of(result.warnings.begin(), result.warnings.end(),
                     [&](const std::string& text) { return text.find(part) != std::string::npos; });
}

std::vector<RunRow> power_ladder(double floor, double k, double gamma, int sizes,
                                 double decades = 3) {
  std::vector<RunRow> runs;
  for (int i = 0; i < sizes; ++i) {
    const double c = 1e15 * std::pow(10, decades * i / (sizes - 1));
    const double n = std::sqrt(c / 120);
    runs.push_back(planted_run("", n, 20 * n, 0, floor + k * std::pow(c, -gamma)));
    runs.back().C = c;
  }
  return runs;
}

TEST_F(LawFit, ThePlantedChinchillaLawIsFoundToOneInAMillion) {
  for (const Loss loss : {Loss::huber, Loss::mse}) {
    const FitResult result = fit(planted_grid(), options_for(LawKind::chinchilla, loss));
    const std::pair<const char*, double> truth[] = {
        {"E", 1.69}, {"A", 406.4}, {"B", 410.7}, {"alpha", 0.34}, {"beta", 0.28}};
    for (const auto& [name, value] : truth)
      EXPECT_NEAR(result.parameter(name), value, 1e-6 * value) << name;
    EXPECT_TRUE(result.converged);
    EXPECT_EQ(result.starts_agreeing, result.starts);
    EXPECT_TRUE(result.warnings.empty()) << result.warnings.front();
    ASSERT_TRUE(result.held_out.has_value()) << result.no_holdout;
    EXPECT_NEAR(result.held_out->predicted, result.held_out->observed, 1e-6);
  }
}

TEST_F(LawFit, ThePlantedPowerLawIsFoundToOneInAMillion) {
  for (const Loss loss : {Loss::huber, Loss::mse}) {
    const FitResult result = fit(power_ladder(1.7, 60, 0.09, 8), options_for(LawKind::power, loss));
    EXPECT_NEAR(result.parameter("E"), 1.7, 1.7e-6);
    EXPECT_NEAR(result.parameter("K"), 60, 60e-6);
    EXPECT_NEAR(result.parameter("gamma"), 0.09, 0.09e-6);
    EXPECT_TRUE(result.warnings.empty()) << result.warnings.front();
    const double at_ten = 1.7 + 60 * std::pow(10 * result.points.back().C, -0.09);
    EXPECT_NEAR(result.beyond.predicted, at_ten, 1e-5);
  }
}

// Two seeds each with errors +-s: the residual sd of the units is 0, the seed noise is s sqrt(2).
TEST_F(LawFit, SeedsAreAveragedBeforeTheFit) {
  std::vector<RunRow> runs;
  for (RunRow run : planted_grid()) {
    const double loss = run.loss;
    for (const long long seed : {0, 1}) {
      run.seed = seed;
      run.run_id = concat(run.run_id, "/", seed);
      run.loss = loss * std::exp(seed == 0 ? 0.01 : -0.01);
      runs.push_back(run);
    }
  }
  const FitResult result = fit(runs, options_for(LawKind::chinchilla));
  EXPECT_NEAR(result.parameter("E"), 1.69, 1e-5);
  EXPECT_EQ(2 * result.points.size(), runs.size());
  ASSERT_TRUE(result.noise.has_value());
  EXPECT_NEAR(result.noise->sd, 0.01 * std::sqrt(2), 1e-9);
}

TEST_F(LawFit, ChinchillaIsRefusedWhereTokensFollowTheSize) {
  EXPECT_NE(refusal_of(power_ladder(1.7, 60, 0.09, 8), LawKind::chinchilla).find("--law power"),
            std::string::npos);
  std::vector<RunRow> squared;
  for (double n = 1e6; n < 1e9; n *= 3)
    squared.push_back(planted_run("", n, n * n / 1e5, 0, testing::chinchilla_loss(n, n * n / 1e5)));
  EXPECT_NE(refusal_of(squared, LawKind::chinchilla).find("D follows N as N^2"), std::string::npos)
      << refusal_of(squared, LawKind::chinchilla);
  RunRow run = planted_run("", 1e6, 2e7, 0, 4);
  run.N = run.D = std::numeric_limits<double>::quiet_NaN();
  EXPECT_NE(refusal_of({run}, LawKind::chinchilla).find("needs N and D"), std::string::npos);
}

TEST_F(LawFit, TooFewPointsAreRefusedWithTheNumber) {
  const auto three = power_ladder(1.7, 60, 0.09, 3);
  EXPECT_NE(refusal_of(three, LawKind::power).find("there are 3 usable points"), std::string::npos);
  auto grid = planted_grid();
  grid.resize(5);
  EXPECT_NE(refusal_of(grid, LawKind::chinchilla).find("5 parameters"), std::string::npos);
}

TEST_F(LawFit, LittleComputeRangeIsAWarning) {
  EXPECT_TRUE(has_warning(fit(power_ladder(1.7, 60, 0.09, 6, 1.2), options_for(LawKind::power)),
                          "1.2 decades of C"));
  EXPECT_FALSE(has_warning(fit(power_ladder(1.7, 60, 0.09, 6, 1.6), options_for(LawKind::power)),
                           "decades of C"));
}

TEST_F(LawFit, AFloorAtZeroOrAtTheDataIsAWarning) {
  const FitResult no_floor =
      fit(power_ladder(0, 60, 0.09, 8), options_for(LawKind::power, Loss::mse));
  EXPECT_TRUE(has_warning(no_floor, "E is at its bound 0")) << no_floor.parameter("E");
  // ln L curves downwards: the data would rather have E below 0, which the projection can show.
  const FitResult below =
      fit(power_ladder(-0.5, 60, 0.09, 8), options_for(LawKind::power, Loss::mse));
  EXPECT_TRUE(has_warning(below, "below 0"));
  const FitResult flat = fit(power_ladder(3, 1e9, 0.6, 8), options_for(LawKind::power, Loss::mse));
  EXPECT_TRUE(has_warning(flat, "within 1 % of the least loss"));
}

TEST(FitChecks, AFitThatEqualsItsStartIsNoFit) {
  const auto units = seed_means(planted_grid());
  const auto law = make_law(LawKind::chinchilla, units);
  const Problem problem = law->problem(units, Loss::huber);
  for (const Start& start : law->starts(units)) EXPECT_GT(stationarity(problem, start), 1e-3);
  MultiStart search{.best = {.theta = law->starts(units)[0]}, .starts = 1};
  EXPECT_THROW(require_convergence(search, "chinchilla"), Error);
}

TEST(FitChecks, StartsThatDisagreeAndABetterSecondOpinionAreWarnings) {
  const auto units = seed_means(planted_grid());
  const auto law = make_law(LawKind::chinchilla, units);
  MultiStart search{.best = {.theta = law->starts(units)[0], .objective = 1.01, .converged = true},
                    .starts = 108,
                    .agreeing = 1};
  const auto doubts = doubts_about(*law, units, search, Projection{.objective = 1.0});
  ASSERT_GE(doubts.size(), 2U);
  EXPECT_NE(doubts[0].find("the best two of 108 starts disagree"), std::string::npos);
  EXPECT_NE(doubts[1].find("variable projection finds a lower objective"), std::string::npos);
}

// The analytic gradient against central differences: error h^2/6 f''' + u/h, with f''' of order
// x^3 <= 10^3 here.
TEST(SumOfPowers, TheGradientIsThatOfTheDifferences) {
  const auto units = seed_means(planted_grid());
  const auto law = make_law(LawKind::chinchilla, units);
  const std::vector<double> theta = {0.3, -0.5, 0.2, 0.31, 0.27};
  constexpr double kStep = 1e-5;
  for (const Unit& unit : units) {
    const Observation point = law->terms_of(unit);
    const auto gradient = log_gradient(point, theta);
    for (std::size_t i = 0; i < theta.size(); ++i) {
      auto up = theta, down = theta;
      up[i] += kStep;
      down[i] -= kStep;
      const double difference =
          (log_prediction(point, up.data()) - log_prediction(point, down.data())) / (2 * kStep);
      EXPECT_NEAR(gradient[i], difference, 1e3 * kStep * kStep + 1e-15 / kStep);
    }
  }
}

TEST_F(LawFit, ABootstrapAndTheDeltaMethodAgreeOnManySizes) {
  const RandomStream random(5, "noise");
  std::vector<RunRow> runs = power_ladder(1.7, 60, 0.09, 120);
  for (std::size_t i = 0; i < runs.size(); ++i) runs[i].loss *= std::exp(0.003 * random.normal(i));
  const auto units = seed_means(runs);
  const auto law = make_law(LawKind::power, units);
  const Problem problem = law->problem(units, Loss::mse);
  const auto theta = minimize_from(problem, law->starts(units)).best.theta;
  const auto by_delta = delta_method(problem, theta);
  const auto by_bootstrap = uncertainty_of(problem, theta, 120, 1000);
  EXPECT_EQ(by_bootstrap.method, "bootstrap");
  for (const Quantity& quantity : law->quantities()) {
    const auto a = by_delta.of(quantity.weights, theta).value();
    const auto b = by_bootstrap.of(quantity.weights, theta).value();
    // The percentiles of 1,000 draws are uncertain by about 5 % of the width, the estimate of the
    // noise from 120 points by 6 %, both methods' approximations by as much again.
    EXPECT_NEAR(b.high - b.low, a.high - a.low, 0.25 * (a.high - a.low)) << quantity.name;
  }
}

// A nominal 95 % interval of gamma, from six seed means whose sizes carry an error of their own.
TEST_F(LawFit, IntervalsOfParametersCoverThePlantedTruth) {
  int covered = 0;
  constexpr int kDraws = 200;
  for (int draw = 0; draw < kDraws; ++draw) {
    const RandomStream random(static_cast<std::uint64_t>(draw), "size error");
    std::vector<RunRow> runs = power_ladder(1.7, 60, 0.09, 8);
    for (std::size_t i = 0; i < runs.size(); ++i)
      runs[i].loss *= std::exp(0.002 * random.normal(i));
    FitOptions options = options_for(LawKind::power, Loss::mse);
    options.holdout = false;
    const auto interval = fit(runs, options).parameters.at(2).interval.value();
    covered += interval.low <= 0.09 && 0.09 <= interval.high ? 1 : 0;
  }
  EXPECT_GE(covered, 0.90 * kDraws);
  EXPECT_LE(covered, 0.99 * kDraws);
}

TEST_F(LawFit, TwoTokenCountsOfASizeCountAsOnePoint) {
  const RandomStream random(6, "noise");
  std::vector<RunRow> once = power_ladder(1.7, 60, 0.09, 8);
  for (std::size_t i = 0; i < once.size(); ++i) once[i].loss *= std::exp(0.003 * random.normal(i));
  std::vector<RunRow> twice = once;
  for (RunRow run : once) {
    run.D *= 1 + 1e-9;  // the same point again under another token count
    run.run_id += "'";
    twice.push_back(run);
  }
  const auto a = fit(once, options_for(LawKind::power, Loss::mse));
  const auto b = fit(twice, options_for(LawKind::power, Loss::mse));
  EXPECT_EQ(a.freedom, 5);
  EXPECT_EQ(b.freedom, 5);
  const auto width = [](const FitResult& result) {
    const Interval interval = result.parameters.at(2).interval.value();
    return interval.high - interval.low;
  };
  // s^2 from 16 - 3 instead of 8 - 3: sqrt(2 x 5 / 13) of the width, and no less.
  EXPECT_NEAR(width(b), width(a) * std::sqrt(10.0 / 13), 1e-3 * width(a));
}

// The published runs, where a file of them is named.
class PublishedRuns : public LawFit {
 protected:
  void SetUp() override {
    LawFit::SetUp();
    const char* path = std::getenv("CONVOY_REFERENCE_DATA");
    if (path == nullptr)
      GTEST_SKIP() << "CONVOY_REFERENCE_DATA names no table of the published Chinchilla runs";
    else
      screened_ = screen(read_runs(path).rows);
  }

  // Fits, and expects the published minimum; relative tolerance of the table's seven digits.
  void expect(double objective, const std::vector<double>& parameters) const {
    FitOptions options = options_for(LawKind::chinchilla);
    options.resamples = 2;
    options.holdout = false;
    const auto start = std::chrono::steady_clock::now();
    const FitResult result = fit(screened_.runs, options);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    EXPECT_LE(result.objective, objective * (1 + 1e-8));
    EXPECT_NEAR(result.cross_check, result.objective, 1e-4 * result.objective);
    EXPECT_EQ(result.starts_agreeing, result.starts);
    EXPECT_TRUE(result.warnings.empty()) << result.warnings.front();
    for (std::size_t i = 0; i < parameters.size(); ++i)
      EXPECT_NEAR(result.parameters[i].value, parameters[i], 2e-6 * parameters[i])
          << result.parameters[i].name;
    EXPECT_LT(seconds.count(), 1);
  }

  Screened screened_;
};

TEST_F(PublishedRuns, TheFitOf240ReachesTheGlobalMinimum) {
  ASSERT_EQ(screened_.runs.size(), 245U);
  drop_largest_losses(screened_, 5);
  expect(1.018274018e-3, {1.817218, 477.826, 2143.417, 0.347310, 0.367172});
}

TEST_F(PublishedRuns, TheFitOf245ReachesTheGlobalMinimum) {
  expect(1.826010523e-3, {1.891339, 495.726, 12845.6, 0.349313, 0.453049});
}

// A percentile of 4,000 draws has a standard error of about 5 % of half the interval; six of those.
TEST_F(PublishedRuns, FourThousandResamplesGiveThePublishedIntervals) {
  drop_largest_losses(screened_, 5);
  FitOptions options{.law = LawKind::chinchilla, .resamples = 4000, .holdout = false};
  const auto start = std::chrono::steady_clock::now();
  const FitResult result = fit(screened_.runs, options);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_LT(seconds.count(), 10);
  EXPECT_EQ(result.interval_method, "bootstrap");
  const Interval published[] = {
      {1.771, 1.872}, {282, 737}, {1075, 5974}, {0.316, 0.373}, {0.333, 0.417}};
  for (std::size_t i = 0; i < 5; ++i) {
    const Interval found = result.parameters[i].interval.value();
    const bool logarithmic = i < 3;
    const auto scale = [&](double value) { return logarithmic ? std::log(value) : value; };
    const double width = scale(published[i].high) - scale(published[i].low);
    EXPECT_NEAR(scale(found.low), scale(published[i].low), 0.15 * width) << i;
    EXPECT_NEAR(scale(found.high), scale(published[i].high), 0.15 * width) << i;
  }
}

}  // namespace
}  // namespace convoy
