#include "launch/planner.h"

#include "core/error.h"
#include "launch/model_instance.h"

namespace convoy {
namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

MemoryPlan plan_memory(const RunConfig& config, const DeviceSpec& device,
                       const ParameterCounts& counts) {
  const bool gpu = device.name != "cpu";
  const DType dtype = gpu ? DType::bf16 : dtype_of_run(config);
  const double state_bytes = dtype == DType::f64 ? 8 : 4;  // gradients and moments
  const auto parameters = static_cast<double>(counts.total);
  const auto tied_table = config.model.tie_embeddings
                              ? static_cast<double>(config.model.vocab * config.model.d_model)
                              : 0.0;
  MemoryPlan memory;
  memory.weights = parameters * (gpu ? 2 + 4 : state_bytes);  // bf16 beside the f32 master copy
  memory.gradients = (parameters + tied_table) * state_bytes;
  memory.optimizer = 2 * parameters * state_bytes;
  memory.activations = static_cast<double>(
      measure_arena(config.model, dtype, config.train.micro_batch, recompute_blocks_of(config),
                    gpu ? DeviceKind::cuda : DeviceKind::cpu));
  return memory;
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
  plan.flops_per_token = training_flops_per_token(config.model);
  plan.memory = plan_memory(config, device, plan.parameters);
  const double batch_flops =
      plan.flops_per_token.total() * static_cast<double>(config.train.batch_tokens);
  plan.step_seconds = batch_flops / (device.sustained_flops * ranks);
  const auto& t = config.train;
  if (t.steps > 0 || t.tokens > 0 || t.flops > 0) {
    plan.steps = total_steps(config);
    plan.total_flops = batch_flops * static_cast<double>(plan.steps);
  }
  if (device.memory_bytes > 0 && plan.memory.total() > device.memory_bytes) {
    throw Error(concat("the run needs ", plan.memory.total() / kGiB,
                       " GiB on each rank, more than the ", device.memory_bytes / kGiB,
                       " GiB of one ", device.name, "; use a smaller train.micro_batch (now ",
                       t.micro_batch, ") or parallel.recompute = \"block\""));
  }
  return plan;
}

}  // namespace convoy
