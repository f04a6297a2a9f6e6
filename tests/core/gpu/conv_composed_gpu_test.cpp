// Convolutions with what follows them in one pass on a GPU (SwiGLU, the residual of a block),
// against the operations one by one in f64 on the CPU.
#include <array>

#include "core/conv_shape.h"
#include "tests/core/conv_case.h"
#include "tests/core/gpu/device_bench.h"

namespace convoy::test {
namespace {

using ConvComposedOnGpu = GpuTest;

std::vector<ConvCase> composed_cases() {
  using enum FilterKind;
  std::vector<ConvCase> cases;
  for (const bool residual : {true, false}) {
    cases.push_back({{lowrank, 4, 16, 0, residual}, 2, 67, 72, {3, 1, 63}});
    cases.push_back({{lowrank, 3, 8, 0, residual}, 1, 300, 200, {100, 31, 1, 1, 167}});
  }
  cases.push_back({{lowrank, 4, 16, 0, true}, 1, 1, 8, {}});
  cases.push_back({{lowrank, 4, 16, 0, true}, 3, 130, 128, {}});
  cases.push_back({{lowrank, 1, 16, 0, true}, 1, 41, 136, {40, 1}});
  // What one pass does not take.
  cases.push_back({{lowrank, 5, 16, 0, true}, 1, 37, 24, {}});
  cases.push_back({{headwise, 4, 0, 8, true}, 1, 37, 24, {}});
  cases.push_back({{fixed, 4, 0, 0, true}, 2, 19, 9, {}});
  return cases;
}

// One convolution on both sides.
struct Convolved {
  ConvolvedInput cpu, gpu;
  Tensor size;  // the magnitudes of the terms of cpu.y

  Convolved(DeviceBench& bench, const ConvCase& c, const ConvRows& rows, Layout layout) {
    Workbench& host = bench.host();
    cpu = {host.output({c.rows(), c.channels}), bench.random({c.rows(), c.channels}), {}, c.shape};
    cpu.filters.s = bench.random({c.shape.width, c.channels}, 0.1);
    if (c.shape.kind == FilterKind::lowrank) {
      cpu.filters.u = bench.random({c.shape.filter_rank, c.shape.width, c.channels}, 0.1);
    }
    const std::int64_t generated = generated_columns(c.shape, c.channels);
    if (generated > 0) cpu.filters.generated = bench.random({c.rows(), generated}, 0.1);
    gpu = {bench.output({c.rows(), c.channels}, layout),
           bench.upload(cpu.x, layout),
           {bench.upload(cpu.filters.s), bench.upload(cpu.filters.u),
            bench.upload(cpu.filters.generated, layout)},
           c.shape};
    const auto magnitude = [&](const Tensor& t) { return t.empty() ? t : bench.magnitude(t); };
    size = host.output({c.rows(), c.channels});
    ops::conv_forward(
        bench.cpu(), size, magnitude(cpu.x),
        {magnitude(cpu.filters.s), magnitude(cpu.filters.u), magnitude(cpu.filters.generated)},
        c.shape, rows);
  }
};

struct Case {
  DeviceBench bench;
  ConvCase c;
  Layout layout;
  ConvRows rows, grows;
  std::int64_t terms;  // of an output

  Case(const ConvCase& conv, DType dtype, Layout lies)
      : bench(dtype), c(conv), layout(lies), terms(c.shape.width * (c.shape.filter_rank + 2) + 1) {
    rows = {c.segments, c.length, bench.host().indices(c.reach()), {}};
    grows = rows;
    grows.reach = bench.upload(rows.reach);
  }
  Tensor host() { return bench.host().output({c.rows(), c.channels}); }
  Tensor device() { return bench.output({c.rows(), c.channels}, layout); }
  // Outputs of convolutions may be rounded before they are used, or not.
  double inner() const { return bench.dtype() == DType::bf16 ? 1 : 0; }
};

void expect_swiglu(const ConvCase& shape, DType dtype, Layout layout) {
  Case k(shape, dtype, layout);
  DeviceBench& bench = k.bench;
  const Convolved gate(bench, shape, k.rows, layout), up(bench, shape, k.rows, layout);
  Tensor y = k.host(), dgate = k.host(), dup = k.host();
  const Tensor dy = bench.random({shape.rows(), shape.channels});
  ops::conv_swiglu_forward(bench.cpu(), y, gate.cpu, up.cpu, k.rows);
  ops::conv_swiglu_backward(bench.cpu(), dgate, dup, dy, gate.cpu, up.cpu, k.rows);
  Tensor gy = k.device(), gdgate = k.device(), gdup = k.device();
  const Tensor gdy = bench.upload(dy, layout);
  ops::conv_swiglu_forward(bench.gpu(), gy, gate.gpu, up.gpu, k.grows);
  ops::conv_swiglu_backward(bench.gpu(), gdgate, gdup, gdy, gate.gpu, up.gpu, k.grows);

  // |silu'| <= 1.1 and |silu''| <= 0.5; an exponential is wrong by a few roundings.
  const auto bound = [&](const Tensor& of, auto&& value) {
    Tensor size = k.host();
    Workbench::for_each(size, [&](std::int64_t i, std::int64_t j, double) {
      return value(at(gate.cpu.y, i, j), at(gate.size, i, j), at(up.cpu.y, i, j), at(up.size, i, j),
                   std::abs(at(dy, i, j))) +
             std::abs(at(of, i, j));
    });
    return size;
  };
  const auto silu_of = [](double g) { return std::abs(g) / (1 + std::exp(-g)); };
  const std::int64_t terms = k.terms + 16;
  bench.expect_sum(gy, y,
                   bound(y, [&](double g, double gs, double u, double us,
                                double) { return 1.1 * gs * std::abs(u) + silu_of(g) * us; }),
                   terms, k.inner(), "swiglu of " + shape.name());
  bench.expect_sum(gdgate, dgate,
                   bound(dgate, [&](double, double gs, double u, double us,
                                    double d) { return d * (0.5 * gs * std::abs(u) + 1.1 * us); }),
                   terms, k.inner(), "dgate of " + shape.name());
  bench.expect_sum(
      gdup, dup,
      bound(dup, [&](double, double gs, double, double, double d) { return d * 1.1 * gs; }), terms,
      k.inner(), "dup of " + shape.name());
}

// The same bits where gate and up have no memory, in cases that the GPU fuses.
void expect_the_same_without_gate_and_up(const ConvCase& shape) {
  Case k(shape, DType::bf16, Layout::contiguous);
  DeviceBench& bench = k.bench;
  const bool fuses = fuses_on_gpu(shape.shape, shape.channels, DType::bf16);
  EXPECT_NE(bench.backend().keeps_gate_and_up(shape.shape, shape.channels, DType::bf16), fuses);
  if (!fuses) return;
  const Convolved gate(bench, shape, k.rows, k.layout), up(bench, shape, k.rows, k.layout);
  const Tensor dy = bench.upload(bench.random({shape.rows(), shape.channels}), k.layout);
  const auto run = [&](const ConvolvedInput& of_gate, const ConvolvedInput& of_up) {
    const std::array<Tensor, 3> all = {k.device(), k.device(), k.device()};  // y, dgate, dup
    ops::conv_swiglu_forward(bench.gpu(), all[0], of_gate, of_up, k.grows);
    ops::conv_swiglu_backward(bench.gpu(), all[1], all[2], dy, of_gate, of_up, k.grows);
    return all;
  };
  ConvolvedInput bare_gate = gate.gpu, bare_up = up.gpu;
  bare_gate.y = bare_up.y = {};
  const auto kept = run(gate.gpu, up.gpu), bare = run(bare_gate, bare_up);
  for (std::size_t i = 0; i < kept.size(); ++i) {
    EXPECT_EQ(bench.download(kept[i]), bench.download(bare[i])) << i << " of " << shape.name();
  }
}

TEST_F(ConvComposedOnGpu, SwigluOfConvolutionsNeedsNoMemoryForGateAndUp) {
  for (const ConvCase& c : composed_cases()) expect_the_same_without_gate_and_up(c);
}

TEST_F(ConvComposedOnGpu, SwigluOfConvolutionsEqualsTheOperationsOneByOne) {
  for (const ConvCase& c : composed_cases()) {
    expect_swiglu(c, DType::bf16, Layout::contiguous);
    expect_swiglu(c, DType::bf16, Layout::strided);
    expect_swiglu(c, DType::f32, Layout::contiguous);
  }
}

TEST_F(ConvComposedOnGpu, AResidualIsAddedToAConvolution) {
  for (const ConvCase& c : composed_cases()) {
    for (const DType dtype : {DType::bf16, DType::f32}) {
      Case k(c, dtype, Layout::strided);
      DeviceBench& bench = k.bench;
      const Convolved in(bench, c, k.rows, Layout::strided);
      const Tensor addend = bench.random({c.rows(), c.channels});
      Tensor sum = k.host(), gsum = k.device();
      ops::conv_forward_add(bench.cpu(), sum, in.cpu.x, addend, in.cpu.filters, c.shape, k.rows);
      ops::conv_forward_add(bench.gpu(), gsum, in.gpu.x, bench.upload(addend, Layout::strided),
                            in.gpu.filters, c.shape, k.grows);
      Tensor size = k.host();
      Workbench::for_each(size, [&](std::int64_t i, std::int64_t j, double) {
        return at(in.size, i, j) + std::abs(at(addend, i, j));
      });
      bench.expect_sum(gsum, sum, size, k.terms + 1, k.inner(), "sum of " + c.name());
    }
  }
}

}  // namespace
}  // namespace convoy::test
