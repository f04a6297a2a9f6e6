// Operations that hold several: on a device without a pass for all, the bits of those one by one;
// and what they refuse.
#include <array>

#include "tests/core/conv_case.h"
#include "tests/core/refusals.h"

namespace convoy::test {
namespace {

constexpr std::int64_t kWidth = 4;  // of a head

struct Heads {
  Workbench bench;
  ConvCase c{{FilterKind::lowrank, 3, 5, 0, true}, 2, 7, 2 * kWidth, {3, 4}};
  ConvTensors in{bench, c, Layout::contiguous};
  HeadsShape shape{in.rows, bench.indices({0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6}), kWidth, 1e4,
                   1e-5};

  Tensor rows() { return bench.output({c.rows(), c.channels}); }
  AttentionInput input() {
    return {rows(),
            in.x,
            in.filters,
            c.shape,
            rows(),
            bench.output({c.rows(), 2}),
            bench.random({kWidth}),
            true};
  }
  ConvGradients gradients() {
    return {rows(),
            bench.output({c.rows(), 5}),
            {},
            bench.zeros({3, c.channels}),
            bench.zeros({5, 3, c.channels})};
  }
};

TEST(ComposedOperations, AttentionInputsHaveTheBitsOfTheOperationsOneByOne) {
  Heads h;
  const Context run = h.bench.context();
  const std::array<AttentionInput, 1> in = {h.input()};
  ops::attention_inputs_forward(run, in, h.shape);
  Tensor convolved = h.rows(), y = h.rows(), rstd = h.bench.output({h.c.rows(), 2});
  ops::conv_forward(run, convolved, h.in.x, h.in.filters, h.c.shape, h.in.rows);
  ops::rmsnorm_forward(run, y, rstd, convolved, in[0].norm_weight, 1e-5);
  ops::rope(run, y, h.shape.positions, kWidth, 1e4, RopeDirection::forward);
  EXPECT_EQ(values(in[0].y), values(y));
  EXPECT_EQ(values(in[0].rstd), values(rstd));

  const std::array<AttentionInputGradients, 1> back = {
      {{h.rows(), h.rows(), h.bench.zeros({kWidth}), h.gradients()}}};
  copy_values(back[0].dy, h.in.dy);
  ops::attention_inputs_backward(run, back, in, h.shape);
  Tensor dy = h.rows(), dconvolved = h.rows(), dnorm = h.bench.zeros({kWidth});
  copy_values(dy, h.in.dy);
  ops::rope(run, dy, h.shape.positions, kWidth, 1e4, RopeDirection::backward);
  ops::rmsnorm_backward(run, dconvolved, dnorm, dy, convolved, rstd, in[0].norm_weight, {});
  const ConvGradients g = h.gradients();
  ops::conv_backward(run, g, dconvolved, h.in.x, h.in.filters, h.c.shape, h.in.rows);
  EXPECT_EQ(values(back[0].dnorm_weight), values(dnorm));
  EXPECT_EQ(values(back[0].conv.dx), values(g.dx));
  EXPECT_EQ(values(back[0].conv.dgenerated), values(g.dgenerated));
  EXPECT_EQ(values(back[0].conv.ds), values(g.ds));
  EXPECT_EQ(values(back[0].conv.du), values(g.du));
}

TEST(ComposedOperations, ConvolvedSwigluAndResidualHaveTheBitsOfTheOperationsOneByOne) {
  Heads h;
  const Context run = h.bench.context();
  const ConvolvedInput gate{h.rows(), h.in.x, h.in.filters, h.c.shape};
  const ConvolvedInput up{h.rows(), h.in.dy, h.in.filters, h.c.shape};
  Tensor y = h.rows(), dgate = h.rows(), dup = h.rows(), sum = h.rows();
  ops::conv_swiglu_forward(run, y, gate, up, h.in.rows);
  ops::conv_swiglu_backward(run, dgate, dup, h.in.dy, gate, up, h.in.rows);
  ops::conv_forward_add(run, sum, h.in.x, h.in.dy, h.in.filters, h.c.shape, h.in.rows);
  Tensor g = h.rows(), u = h.rows(), y2 = h.rows(), dgate2 = h.rows(), dup2 = h.rows();
  ops::conv_forward(run, g, h.in.x, h.in.filters, h.c.shape, h.in.rows);
  ops::conv_forward(run, u, h.in.dy, h.in.filters, h.c.shape, h.in.rows);
  ops::swiglu_forward(run, y2, g, u);
  ops::swiglu_backward(run, dgate2, dup2, h.in.dy, g, u);
  EXPECT_EQ(values(y), values(y2));
  EXPECT_EQ(values(dgate), values(dgate2));
  EXPECT_EQ(values(dup), values(dup2));
  ops::add(run, g, g, h.in.dy);
  EXPECT_EQ(values(sum), values(g));
}

TEST(ComposedOperations, RefuseHalosAndOtherShapes) {
  Heads h;
  const Context run = h.bench.context();
  const auto forward = [&](const std::function<void(AttentionInput&, HeadsShape&)>& spoil) {
    return [&h, run, spoil] {
      std::array<AttentionInput, 1> in = {h.input()};
      HeadsShape shape = h.shape;
      spoil(in[0], shape);
      ops::attention_inputs_forward(run, in, shape);
    };
  };
  const Tensor halo = h.bench.zeros({4, h.c.channels}), wrong = h.bench.zeros({3, 3});
  expect_refusals({
      {"without a halo", forward([&](auto&, auto& s) { s.rows.halo = halo; })},
      {"heads of 3", forward([](auto&, auto& s) { s.head_width = 3; })},
      {"an input of attention is f64[3, 3]", forward([&](auto& in, auto&) { in.y = wrong; })},
      {"positions is i32[2]", forward([&](auto&, auto& s) {
         s.positions = h.bench.indices({0, 1});
       })},
      {"has a weight f64[3, 3]", forward([&](auto& in, auto&) { in.norm_weight = wrong; })},
      {"what the norm of heads reads is not given",
       forward([](auto& in, auto&) { in.convolved = {}; })},
      {"rstd of heads is f64[3, 3]", forward([&](auto& in, auto&) { in.rstd = wrong; })},
      {"0 gradients of 1 inputs",
       [&] {
         const std::array<AttentionInput, 1> in = {h.input()};
         ops::attention_inputs_backward(run, {}, in, h.shape);
       }},
      {"is added to what stays as it is",
       [&] {
         ops::conv_forward_add(run, h.in.dy, h.in.x, h.in.dy, h.in.filters, h.c.shape, h.in.rows);
       }},
      {"dy of swiglu is f64[3, 3]",
       [&] {
         const ConvolvedInput one{h.rows(), h.in.x, h.in.filters, h.c.shape};
         ops::conv_swiglu_backward(run, h.rows(), h.rows(), wrong, one, one, h.in.rows);
       }},
  });
}

}  // namespace
}  // namespace convoy::test
