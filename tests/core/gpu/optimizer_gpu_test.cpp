// The optimizer's operations on a GPU.
#include <array>

#include "tests/core/gpu/device_bench.h"

namespace convoy::test {
namespace {

using OptimizerOnGpu = GpuTest;

TEST_F(OptimizerOnGpu, SumsOfSquaresAddUpInAFixedOrder) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::int64_t count : {1, 255, 40001}) {
      DeviceBench bench(dtype);
      const Tensor x = bench.random({count}), gx = bench.upload(x);
      Tensor sum = bench.host().zeros({1});
      bench.host().backend().add_sum_of_squares(sum, x);
      Tensor twice[2];
      for (Tensor& t : twice) {
        t = bench.output_as(DType::f64, sum.shape());
        bench.backend().fill(t, 0.5);
        bench.backend().add_sum_of_squares(t, gx);
      }
      const double expected = at(sum, 0, 0) + 0.5;
      EXPECT_NEAR(bench.download(twice[0])[0], expected,
                  2 * sum_bound(DType::f64, count, expected));
      EXPECT_EQ(bench.download(twice[0]), bench.download(twice[1]));
    }
  }
}

using Control = std::array<double, StepControl::kCount>;

Tensor control_tensor(DeviceBench& bench, Control& host) {
  Tensor control = bench.output_as(DType::f64, std::array<std::int64_t, 1>{StepControl::kCount});
  bench.backend().copy(control, {host.data(), DType::f64, DeviceKind::cpu, {StepControl::kCount}});
  return control;
}

TEST_F(OptimizerOnGpu, DecidesAsTheReferenceDoes) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double norms[][2] = {{4, 1}, {0.25, 2}, {1e6, 1}, {nan, 1}, {1, nan}, {9, 3}};
  DeviceBench bench(DType::f32);
  Control cpu{}, gpu{};
  for (const auto& [squares, loss] : norms) {
    Tensor control = control_tensor(bench, gpu);
    Tensor pair = bench.host().output({2});
    pair.data<double>()[0] = squares, pair.data<double>()[1] = loss;
    const Tensor g = bench.upload_as(DType::f64, pair).reshape({2, 1});
    const UpdateRules rules{1.0, 8.0};
    bench.backend().decide_update(control, g.row_range(0, 1), g.row_range(1, 1), rules);
    const Tensor p = pair.reshape({2, 1});
    bench.host().backend().decide_update(
        {cpu.data(), DType::f64, DeviceKind::cpu, {StepControl::kCount}}, p.row_range(0, 1),
        p.row_range(1, 1), rules);
    const auto found = bench.download(control);
    for (std::size_t i = 0; i < cpu.size(); ++i) {
      if (std::isnan(cpu[i])) {
        EXPECT_TRUE(std::isnan(found[i])) << i;
      } else {
        EXPECT_NEAR(found[i], cpu[i], 8 * unit_roundoff(DType::f64) * std::abs(cpu[i])) << i;
      }
      gpu[i] = found[i];
    }
  }
}

TEST_F(OptimizerOnGpu, AdamWUpdatesTheMasterAndRoundsTheValue) {
  for (const DType dtype : kAllDtypes) {
    for (const std::int64_t count : {1, 3, 4099}) {
      DeviceBench bench(dtype);
      const DType wide = wide_of(dtype);
      const Tensor x = bench.random_as(wide, {count}), g = bench.random_as(wide, {count});
      const Tensor m = bench.random_as(wide, {count}, 0.1);
      const Tensor v = bench.magnitude(bench.random_as(wide, {count}, 0.01));
      Control host{};
      host[StepControl::learning_rate] = 0.25;
      host[StepControl::adam_steps] = 3;
      host[StepControl::update_scale] = 0.5;
      Tensor control = control_tensor(bench, host);
      const Tensor gx = bench.upload_as(wide, x), gm = bench.upload_as(wide, m);
      const Tensor gv = bench.upload_as(wide, v), gg = bench.upload_as(wide, g);
      const bool mixed = dtype == DType::bf16;
      const Tensor value = mixed ? bench.output({count}) : gx;
      const AdamWSettings settings{0.9, 0.95, 1e-8, 0.1};
      bench.backend().adamw(value, mixed ? gx : Tensor{}, gm, gv, gg, control, settings);
      bench.host().backend().adamw(
          x, {}, m, v, g, {host.data(), DType::f64, DeviceKind::cpu, {StepControl::kCount}},
          settings);
      // About 16 roundings of the update, which is below 20 here, and of the value.
      const double bound = 16 * (unit_roundoff(wide) + unit_roundoff(DType::f64));
      bench.expect_near(
          gx, x,
          [&](std::int64_t i, std::int64_t j) { return bound * (20 + std::abs(at(x, i, j))); },
          "value");
      bench.expect_near(
          gm, m,
          [&](std::int64_t i, std::int64_t j) { return bound * (1 + std::abs(at(m, i, j))); },
          "moment1");
      bench.expect_near(
          gv, v, [&](std::int64_t i, std::int64_t j) { return bound * at(v, i, j); }, "moment2");
      if (mixed) {
        std::vector<double> expected = bench.download(gx);
        for (double& e : expected) e = rounded(e, DType::bf16);
        EXPECT_EQ(bench.download(value), expected);
      }
      const auto before = bench.download(gx);
      host[StepControl::skip] = 1;
      Tensor skipping = control_tensor(bench, host);
      bench.backend().adamw(value, mixed ? gx : Tensor{}, gm, gv, gg, skipping, settings);
      EXPECT_EQ(bench.download(gx), before) << "a skipped step changed something";
    }
  }
}

// Many parameters at once, some longer than a block's piece, one that does not begin at a pack.
TEST_F(OptimizerOnGpu, AdamWOfManyGivesTheBitsOfOneAfterAnother) {
  for (const DType dtype : kAllDtypes) {
    for (const bool aligned : {true, false}) {
      DeviceBench bench(dtype);
      const DType wide = wide_of(dtype);
      const bool mixed = dtype == DType::bf16;
      Control host{};
      host[StepControl::learning_rate] = 0.25;
      host[StepControl::adam_steps] = 3;
      host[StepControl::update_scale] = 0.5;
      const Tensor control = control_tensor(bench, host);
      std::vector<AdamWTensors> many, one;
      for (const std::int64_t count : {1, 4099, 70000, 64}) {
        const Tensor x = bench.random_as(wide, {count + 1}), g = bench.random_as(wide, {count + 1});
        const Tensor m = bench.random_as(wide, {count + 1}, 0.1);
        const Tensor v = bench.magnitude(bench.random_as(wide, {count + 1}, 0.01));
        const auto part = [&](const Tensor& t) {
          return t.reshape({count + 1, 1}).row_range(aligned ? 0 : 1, count).reshape({count});
        };
        for (auto* list : {&many, &one}) {
          const Tensor exact = part(bench.upload_as(wide, x));
          list->push_back({mixed ? part(bench.output({count + 1})) : exact,
                           mixed ? exact : Tensor(), part(bench.upload_as(wide, m)),
                           part(bench.upload_as(wide, v)), part(bench.upload_as(wide, g)),
                           count == 64 ? 0.0 : 0.1});
        }
      }
      AdamWSettings settings{0.9, 0.95, 1e-8, 0.1};
      bench.backend().adamw_all(many, control, settings);
      for (const AdamWTensors& t : one) {
        settings.weight_decay = t.weight_decay;
        bench.backend().adamw(t.value, t.master, t.moment1, t.moment2, t.gradient, control,
                              settings);
      }
      for (std::size_t i = 0; i < many.size(); ++i) {
        EXPECT_EQ(bench.download(many[i].value), bench.download(one[i].value));
        EXPECT_EQ(bench.download(many[i].moment1), bench.download(one[i].moment1));
        EXPECT_EQ(bench.download(many[i].moment2), bench.download(one[i].moment2));
        if (!mixed) continue;
        EXPECT_EQ(bench.download(many[i].master), bench.download(one[i].master));
      }
    }
  }
}

}  // namespace
}  // namespace convoy::test
