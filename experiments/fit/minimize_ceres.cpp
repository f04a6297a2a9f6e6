// The one file that includes Ceres: its templates take a minute to compile.
#include <ceres/autodiff_first_order_function.h>
#include <ceres/gradient_problem.h>
#include <ceres/gradient_problem_solver.h>
#include <ceres/tiny_solver.h>
#include <ceres/tiny_solver_autodiff_function.h>
#include <glog/logging.h>

#include <cmath>

#undef CHECK  // glog's; the one below is ours
#include "core/error.h"
#include "experiments/fit/minimize.h"

namespace convoy {
namespace {

constexpr double kStationary = 1e-5;

double total_weight(const Problem& problem) {
  double sum = 0;
  for (const Observation& observation : problem.observations) sum += observation.weight;
  return sum;
}

// The Huber sum, scaled to gradients of order 1.
struct HuberCost {
  const Problem& problem;
  double scale;

  template <class T>
  bool operator()(const T* theta, T* cost) const {
    *cost = T(0.0);
    for (const Observation& observation : problem.observations) {
      if (observation.weight == 0) continue;
      const T misfit = observation.log_loss - log_prediction(observation, theta);
      *cost += observation.weight * huber(misfit);
    }
    *cost *= scale;
    return true;
  }
};

// Ceres tells glog, on stderr, where a line search has no digits left to go on with: at the
// minimum, mostly. We judge the end of a search by its gradient, and what else is wrong comes as a
// summary.
void silence_the_log() {
  [[maybe_unused]] static const int once = FLAGS_minloglevel = google::GLOG_FATAL;
}

template <int kParameters>
void minimize_huber(const Problem& problem, double* theta) {
  using Function = ceres::AutoDiffFirstOrderFunction<HuberCost, kParameters>;
  const double scale = 1 / (kHuberDelta * total_weight(problem));
  const ceres::GradientProblem gradient_problem(new Function(new HuberCost{problem, scale}));
  ceres::GradientProblemSolver::Options options;
  options.line_search_direction_type = ceres::BFGS;
  options.max_num_iterations = 2000;
  options.function_tolerance = 1e-15;
  options.gradient_tolerance = 1e-13;
  options.parameter_tolerance = 1e-13;
  options.logging_type = ceres::SILENT;
  silence_the_log();
  ceres::GradientProblemSolver::Summary summary;
  ceres::Solve(options, gradient_problem, theta, &summary);
}

struct Residuals {
  const Problem& problem;

  template <class T>
  bool operator()(const T* theta, T* residuals) const {
    for (const Observation& observation : problem.observations)
      *residuals++ = std::sqrt(observation.weight) *
                     (observation.log_loss - log_prediction(observation, theta));
    return true;
  }
  int NumResiduals() const { return static_cast<int>(problem.observations.size()); }
};

template <int kParameters>
void minimize_squares(const Problem& problem, double* theta) {
  using Function = ceres::TinySolverAutoDiffFunction<Residuals, Eigen::Dynamic, kParameters>;
  const Residuals residuals{problem};
  const Function function(residuals);
  ceres::TinySolver<Function> solver;
  solver.options.max_num_iterations = 500;
  solver.options.gradient_tolerance = 1e-15;
  solver.options.parameter_tolerance = 1e-13;
  solver.options.function_tolerance = 1e-28;
  solver.options.cost_threshold = 1e-30;
  Eigen::Matrix<double, kParameters, 1> x = Eigen::Map<decltype(x)>(theta);
  solver.Solve(function, &x);
  Eigen::Map<decltype(x)>{theta} = x;
}

template <int kParameters>
void minimize_misfit(const Problem& problem, double* theta) {
  if (problem.loss == Loss::huber)
    minimize_huber<kParameters>(problem, theta);
  else
    minimize_squares<kParameters>(problem, theta);
}

}  // namespace

bool has_minimizer() { return true; }

Minimum minimize(const Problem& problem, std::span<const double> start) {
  CHECK(std::ssize(start) == problem.parameters, "start has ", start.size(), " values for ",
        problem.parameters, " parameters");
  Minimum minimum{.theta = {start.begin(), start.end()}};
  double* theta = minimum.theta.data();
  switch (problem.parameters) {
    case 3: minimize_misfit<3>(problem, theta); break;
    case 4: minimize_misfit<4>(problem, theta); break;
    case 5: minimize_misfit<5>(problem, theta); break;
    default: CHECK(false, "no law has ", problem.parameters, " parameters");
  }
  minimum.objective = objective(problem, minimum.theta);
  minimum.converged = stationarity(problem, minimum.theta) < kStationary;
  return minimum;
}

}  // namespace convoy
