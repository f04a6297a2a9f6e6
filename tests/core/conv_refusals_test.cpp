// What a convolution refuses before anything is written, by the name of the tensor at fault.
#include "tests/core/conv_case.h"
#include "tests/core/refusals.h"

namespace convoy::test {
namespace {

TEST(Refusals, OfConvolutions) {
  Workbench bench, narrow(DType::f32);
  const Context run = bench.context();
  const ConvCase c{{FilterKind::lowrank, 3, 4, 0, true}, 2, 5, 6, {}};
  const ConvTensors in(bench, c, Layout::contiguous);
  Tensor y = bench.output({10, 6}), dz = bench.output({10, 4}), wrong = bench.output({9, 6});
  Tensor ds = bench.zeros({3, 6}), du = bench.zeros({4, 3, 6});
  const auto forward = [&](const std::function<void(ConvFilters&, ConvShape&, ConvRows&)>& spoil) {
    return [&, spoil] {
      ConvFilters filters = in.filters;
      ConvShape shape = c.shape;
      ConvRows rows = in.rows;
      spoil(filters, shape, rows);
      ops::conv_forward(run, y, in.x, filters, shape, rows);
    };
  };
  const auto backward = [&](Tensor dx, Tensor dgenerated, Tensor dhalo, Tensor dy) {
    return [=, &in, &c] {
      ops::conv_backward_input(run, dx, dgenerated, dhalo, dy, in.x, in.filters, c.shape, in.rows);
    };
  };
  const auto weight = [&](Tensor s, Tensor u, Tensor dy) {
    return [=, &in, &c] {
      ops::conv_backward_weight(run, s, u, dy, in.x, in.filters, c.shape, in.rows);
    };
  };
  expect_refusals({
      {"1 to 8 taps, not 9", forward([](auto&, auto& s, auto&) { s.width = 9; })},
      {"1 to 8 taps, not 0", forward([](auto&, auto& s, auto&) { s.width = 0; })},
      {"is not 3 segments of 5 rows", forward([](auto&, auto&, auto& r) { r.segments = 3; })},
      {"reach is i32[2]", forward([&](auto&, auto&, auto& r) {
         r.reach = bench.indices({0, 1});
       })},
      {"s is f64[4, 6]", forward([&](auto& f, auto&, auto&) {
         f.s = bench.zeros({4, 6});
       })},
      {"u is not given", forward([](auto& f, auto&, auto&) { f.u = {}; })},
      {"u is f64[3, 3, 6]", forward([&](auto& f, auto&, auto&) {
         f.u = bench.zeros({3, 3, 6});
       })},
      {"generated filters is f64[10, 5]", forward([&](auto& f, auto&, auto&) {
         f.generated = bench.zeros({10, 5});
       })},
      {"generated filters is not given", forward([](auto& f, auto&, auto&) { f.generated = {}; })},
      {"halo is f64[3, 6], expected 4 rows of 6", forward([&](auto&, auto&, auto& r) {
         r.halo = bench.zeros({3, 6});
       })},
      {"is not on the device",
       forward([](auto& f, auto&, auto&) { f.generated = on_another_device(f.generated); })},
      {"head-wise filters of 4 channels do not divide f64[10, 6]",
       forward([](auto&, auto& s, auto&) {
         s.kind = FilterKind::headwise;
         s.head_size = 4;
       })},
      {"head-wise filters of 0 channels",
       forward([](auto&, auto& s, auto&) { s.kind = FilterKind::headwise; })},
      {"is not on the device",
       [&] {
         ConvFilters filters = in.filters;
         filters.generated = on_another_device(filters.generated);
         ops::conv_backward_input(run, y, dz, {}, in.dy, in.x, filters, c.shape, in.rows);
       }},
      {"is not on the device",
       [&] {
         ConvRows rows = in.rows;
         const Tensor halo = bench.zeros({4, 6});
         rows.halo = on_another_device(halo);
         ops::conv_backward_input(run, y, dz, halo, in.dy, in.x, in.filters, c.shape, rows);
       }},
      {"dx of the convolution is f64[9, 6]", backward(wrong, dz, {}, in.dy)},
      {"dgenerated is f64[9, 6]", backward(y, wrong, {}, in.dy)},
      {"halo and dhalo go together", backward(y, dz, wrong, in.dy)},
      {"dy of the convolution is f32[10, 6]", backward(y, dz, {}, narrow.random({10, 6}))},
      {"ds is f64[9, 6]", weight(wrong, du, in.dy)},
      {"du is f64[9, 6]", weight(ds, wrong, in.dy)},
      {"du is not given", weight(ds, {}, in.dy)},
  });
  for (const double value : values(y)) EXPECT_TRUE(std::isnan(value)) << "written to";
}

}  // namespace
}  // namespace convoy::test
