#include "launch/planner.h"

#include "core/error.h"
#include "launch/memory_planner.h"
#include "launch/run_labels.h"
#include "parallel/schedule/simulate.h"

namespace convoy {
namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

// The mesh of a plan; throws where the layout cannot be, whatever the batch.
MeshShape planned_mesh(const RunConfig& config, int ranks) {
  const MeshShape mesh = mesh_shape(config, ranks);
  const auto sequence =
      config.parallel.sequence_parallel ? SequenceParallel::yes : SequenceParallel::no;
  std::vector<std::string> problems = mesh_problems(mesh, ranks);
  if (problems.empty()) problems = sharding_problems(config.model, mesh, sequence);
  std::string text;
  for (const auto& problem : problems) text += (text.empty() ? "" : "\n") + problem;
  if (!text.empty()) throw Error(text);
  return mesh;
}

}  // namespace

DeviceSpec device_spec(const std::string& name) {
  if (name == "cpu") return {name, 0, 70e9};
  if (name == "h100") return {name, 80 * kGiB, 0.45 * 989e12};
  if (name == "h200") return {name, 141e9, 0.47 * 989e12};
  throw Error("device '" + name + "' is not known; use cpu, h100 or h200");
}

Plan make_plan(const RunConfig& config, int ranks, const DeviceSpec& device) {
  require_sound_model(config);
  Plan plan;
  plan.parameters = count_parameters(config.model);
  plan.flops_per_token = training_flops_per_token(config);
  const bool on_gpu = device.name != "cpu";
  const MeshShape mesh = planned_mesh(config, ranks);
  plan.memory = plan_largest_memory(config, mesh, on_gpu);
  plan.bubble = simulate(make_schedule(pipeline_shape(config, mesh))).step_bubble();
  const double batch_flops =
      plan.flops_per_token.total() * static_cast<double>(config.train.batch_tokens);
  plan.step_seconds = batch_flops * (1 + plan.bubble) / (device.sustained_flops * ranks);
  const auto& t = config.train;
  if (t.steps > 0 || t.tokens > 0 || t.flops > 0) {
    plan.steps = total_steps(config);
    plan.total_flops = batch_flops * static_cast<double>(plan.steps);
  }
  if (device.memory_bytes > 0 && plan.memory.total() > device.memory_bytes) {
    throw Error(concat("the run needs ", plan.memory.total() / kGiB,
                       " GiB on each rank, more than the ", device.memory_bytes / kGiB,
                       " GiB of one ", device.name, "; use a smaller train.micro_batch (now ",
                       t.micro_batch,
                       "), parallel.recompute = \"block\", a higher parallel.zero, or more ranks "
                       "with parallel.pp or parallel.tp"));
  }
  return plan;
}

}  // namespace convoy
