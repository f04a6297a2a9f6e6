// The dynamic convolution on a GPU, by every kernel that may take it.
#include "tests/core/conv_case.h"
#include "tests/core/gpu/device_bench.h"

namespace convoy::test {
namespace {

using ConvOnGpu = GpuTest;

// Shapes that the fast kernels take (channels in packs, up to 16 ranks and 4 taps in bf16), whole
// and ragged, beside those of the general ones.
std::vector<ConvCase> gpu_cases() {
  using enum FilterKind;
  std::vector<ConvCase> cases = conv_cases();
  for (const bool residual : {true, false}) {
    for (int width = 1; width <= 5; ++width) {
      cases.push_back({{lowrank, width, 16, 0, residual}, 2, 67, 72, {3, 1, 63}});
      cases.push_back({{headwise, width, 0, 16, residual}, 2, 41, 64, {1, 40}});
      cases.push_back({{fixed, width, 0, 0, residual}, 2, 37, 48, {36, 1}});
    }
    cases.push_back({{lowrank, 4, 16, 0, residual}, 1, 1, 8, {}});
    cases.push_back({{lowrank, 4, 16, 0, residual}, 3, 130, 320, {}});
    cases.push_back({{lowrank, 4, 8, 0, residual}, 1, 300, 264, {100, 31, 1, 1, 167}});
    cases.push_back({{headwise, 4, 0, 8, residual}, 1, 270, 520, {100, 170}});
    cases.push_back({{headwise, 4, 0, 128, residual}, 2, 70, 256, {}});
  }
  cases.push_back({{lowrank, 4, 16, 0, true}, 2, 1100, 24, {1024, 76}});
  // Ranks that are padded, in one narrow block, in several, and in wide ones.
  for (int width = 1; width <= 4; ++width) {
    cases.push_back({{lowrank, width, 4, 0, true}, 2, 77, 96, {40, 37}});
    cases.push_back({{lowrank, width, 4, 0, false}, 1, 165, 256, {1, 131, 33}});
  }
  for (const int rank : {1, 2, 3, 5, 8, 12, 15}) {
    cases.push_back({{lowrank, 4, rank, 0, true}, 1, 131, 352, {64, 67}});
  }
  cases.push_back({{headwise, 4, 0, 16, true}, 2, 600, 32, {}});
  // Groups within a warp's channels, across its warps, and across its blocks.
  cases.push_back({{headwise, 4, 0, 8, false}, 2, 90, 256, {33, 57}});
  cases.push_back({{headwise, 4, 0, 16, true}, 1, 97, 256, {}});
  cases.push_back({{headwise, 4, 0, 32, true}, 1, 130, 320, {64, 66}});
  cases.push_back({{headwise, 4, 0, 256, true}, 1, 70, 512, {}});
  // Rings that turn round several times, in blocks that begin in the middle of a document.
  cases.push_back({{headwise, 2, 0, 4, true}, 1, 200, 136, {150, 50}});
  cases.push_back({{headwise, 3, 0, 32, false}, 1, 190, 96, {62, 128}});
  cases.push_back({{headwise, 4, 0, 64, true}, 1, 251, 640, {60, 2, 189}});
  cases.push_back({{fixed, 3, 0, 0, true}, 1, 305, 520, {61, 244}});
  cases.push_back({{fixed, 4, 0, 0, false}, 2, 140, 1032, {}});
  return cases;
}

class ConvPair {
 public:
  ConvPair(const ConvCase& c, DType dtype, Layout layout, bool with_halo,
           std::int64_t extra_columns = 24)
      : c_(c), dtype_(dtype), layout_(layout), bench_(dtype) {
    bench_.set_extra_columns(extra_columns);
    x_ = bench_.random({c.rows(), c.channels});
    dy_ = bench_.random({c.rows(), c.channels});
    filters_.s = bench_.random({c.shape.width, c.channels}, 0.1);
    if (c.shape.kind == FilterKind::lowrank) {
      filters_.u = bench_.random({c.shape.filter_rank, c.shape.width, c.channels}, 0.1);
    }
    const std::int64_t generated = generated_columns(c.shape, c.channels);
    if (generated > 0) filters_.generated = bench_.random({c.rows(), generated}, 0.1);
    const auto reach =
        with_halo ? std::vector<std::int64_t>(static_cast<std::size_t>(c.rows()), 7) : c.reach();
    rows_ = {c.segments, c.length, bench_.host().indices(reach), {}};
    if (with_halo && c.shape.width > 1) {
      rows_.halo = bench_.random({c.segments * (c.shape.width - 1), c.channels});
    }
    sizes_ = {bench_.magnitude(filters_.s),
              filters_.u.empty() ? Tensor{} : bench_.magnitude(filters_.u),
              filters_.generated.empty() ? Tensor{} : bench_.magnitude(filters_.generated)};
    size_rows_ = rows_;
    if (!rows_.halo.empty()) size_rows_.halo = bench_.magnitude(rows_.halo);
    gfilters_ = {bench_.upload(filters_.s), bench_.upload(filters_.u),
                 bench_.upload(filters_.generated, layout)};
    grows_ = {c.segments, c.length, bench_.upload(rows_.reach), bench_.upload(rows_.halo)};
  }

  void expect_forward() {
    Tensor y = output(), size = output(), gy = bench_.output({c_.rows(), c_.channels}, layout_);
    ops::conv_forward(bench_.cpu(), y, x_, filters_, c_.shape, rows_);
    ops::conv_forward(bench_.cpu(), size, bench_.magnitude(x_), sizes_, c_.shape, size_rows_);
    ops::conv_forward(bench_.gpu(), gy, bench_.upload(x_, layout_), gfilters_, c_.shape, grows_);
    bench_.expect_sum(gy, y, size, terms(), 0, name("y"));
  }

  void expect_backward(bool at_once) {
    const DType wide = wide_of(dtype_);
    Set cpu = host_set(bench_.cpu(), dy_, x_, filters_, rows_, false);
    Set size = host_set(bench_.cpu(), bench_.magnitude(dy_), bench_.magnitude(x_), sizes_,
                        size_rows_, true);
    const Tensor gdy = bench_.upload(dy_, layout_), gx = bench_.upload(x_, layout_);
    const auto run = [&] {
      Set g;
      g.dx = bench_.output({c_.rows(), c_.channels}, layout_);
      if (!filters_.generated.empty()) {
        g.dgenerated = bench_.output({c_.rows(), filters_.generated.cols()}, layout_);
      }
      if (!rows_.halo.empty()) g.dhalo = bench_.output_as(dtype_, rows_.halo.shape());
      g.ds = bench_.upload_as(wide, before_s());
      if (!filters_.u.empty()) g.du = bench_.upload_as(wide, before_u());
      if (at_once) {
        bench_.backend().conv_backward(g, gdy, gx, gfilters_, c_.shape, grows_);
      } else {
        ops::conv_backward_input(bench_.gpu(), g.dx, g.dgenerated, g.dhalo, gdy, gx, gfilters_,
                                 c_.shape, grows_);
        ops::conv_backward_weight(bench_.gpu(), g.ds, g.du, gdy, gx, gfilters_, c_.shape, grows_);
      }
      return g;
    };
    const Set g = run();
    // The matrix units take products dy x rounded to bf16.
    const double inner = dtype_ == DType::bf16 ? 1 : 0;
    bench_.expect_sum(g.dx, cpu.dx, size.dx, terms(), 0, name("dx"));
    if (!cpu.dgenerated.empty()) {
      bench_.expect_sum(g.dgenerated, cpu.dgenerated, size.dgenerated, c_.channels * c_.shape.width,
                        inner, name("dgenerated"));
    }
    if (!cpu.dhalo.empty()) {
      bench_.expect_sum(g.dhalo, cpu.dhalo, size.dhalo, terms(), 0, name("dhalo"));
    }
    bench_.expect_sum(g.ds, cpu.ds, size.ds, c_.rows(), inner, name("ds"));
    if (!cpu.du.empty()) bench_.expect_sum(g.du, cpu.du, size.du, c_.rows(), inner, name("du"));
    const Set again = run();
    EXPECT_EQ(bench_.download(g.dx), bench_.download(again.dx)) << name("dx: other bits");
    EXPECT_EQ(bench_.download(g.ds), bench_.download(again.ds)) << name("ds: other bits");
    if (!cpu.du.empty()) {
      EXPECT_EQ(bench_.download(g.du), bench_.download(again.du)) << name("du: other bits");
    }
    if (!cpu.dgenerated.empty()) {
      EXPECT_EQ(bench_.download(g.dgenerated), bench_.download(again.dgenerated))
          << name("dgenerated: other bits");
    }
  }

 private:
  using Set = ConvGradients;

  Tensor output() { return bench_.host().output({c_.rows(), c_.channels}); }
  // ds and du start from what was there before.
  const Tensor& before_s() {
    if (before_s_.empty()) {
      before_s_ = bench_.random_as(wide_of(dtype_), {c_.shape.width, c_.channels});
    }
    return before_s_;
  }
  const Tensor& before_u() {
    if (before_u_.empty()) {
      before_u_ =
          bench_.random_as(wide_of(dtype_), {c_.shape.filter_rank, c_.shape.width, c_.channels});
    }
    return before_u_;
  }
  Set host_set(const Context& context, Tensor dy, Tensor x, const ConvFilters& filters,
               const ConvRows& rows, bool magnitudes) {
    Set set;
    Workbench& host = bench_.host();
    set.dx = output();
    if (!filters.generated.empty()) {
      set.dgenerated = host.output({c_.rows(), filters.generated.cols()});
    }
    if (!rows.halo.empty()) set.dhalo = host.output({rows.halo.rows(), c_.channels});
    set.ds = host.output({c_.shape.width, c_.channels});
    copy_values(set.ds, magnitudes ? bench_.magnitude(before_s()) : before_s());
    if (!filters.u.empty()) {
      set.du = host.output({c_.shape.filter_rank, c_.shape.width, c_.channels});
      copy_values(set.du, magnitudes ? bench_.magnitude(before_u()) : before_u());
    }
    ops::conv_backward_input(context, set.dx, set.dgenerated, set.dhalo, dy, x, filters, c_.shape,
                             rows);
    ops::conv_backward_weight(context, set.ds, set.du, dy, x, filters, c_.shape, rows);
    return set;
  }
  std::int64_t terms() const { return c_.shape.width * (c_.shape.filter_rank + 2) + 1; }
  std::string name(const char* what) const {
    return concat(what, " of ", c_.name(), layout_ == Layout::strided ? ", strided" : "");
  }

  ConvCase c_;
  DType dtype_;
  Layout layout_;
  DeviceBench bench_;
  Tensor x_, dy_, before_s_, before_u_;
  ConvFilters filters_, sizes_, gfilters_;
  ConvRows rows_, size_rows_, grows_;
};

TEST_F(ConvOnGpu, ForwardEqualsTheReference) {
  for (const DType dtype : kAllDtypes) {
    for (const ConvCase& c : gpu_cases()) {
      ConvPair(c, dtype, Layout::contiguous, false).expect_forward();
      ConvPair(c, dtype, Layout::strided, false).expect_forward();
    }
  }
}
TEST_F(ConvOnGpu, BackwardInPartsEqualsTheReferenceWithTheSameBitsTwice) {
  for (const DType dtype : kAllDtypes) {
    for (const ConvCase& c : gpu_cases())
      ConvPair(c, dtype, Layout::contiguous, false).expect_backward(false);
  }
}
TEST_F(ConvOnGpu, BackwardAtOnceEqualsTheReferenceWithTheSameBitsTwice) {
  for (const DType dtype : kAllDtypes) {
    for (const ConvCase& c : gpu_cases())
      ConvPair(c, dtype, Layout::strided, false).expect_backward(true);
  }
}
TEST_F(ConvOnGpu, RowsMayBeginInTheMiddleOfEightChannels) {
  using enum FilterKind;
  const ConvCase cases[] = {{{lowrank, 4, 4, 0, true}, 2, 77, 96, {40, 37}},
                            {{lowrank, 3, 12, 0, false}, 1, 133, 352, {}},
                            {{headwise, 4, 0, 16, true}, 1, 133, 256, {64, 69}},
                            {{fixed, 4, 0, 0, true}, 1, 70, 256, {}}};
  for (const ConvCase& c : cases) {
    ConvPair(c, DType::bf16, Layout::strided, false, 20).expect_forward();
    for (const bool at_once : {false, true}) {
      ConvPair(c, DType::bf16, Layout::strided, false, 20).expect_backward(at_once);
    }
  }
}
TEST_F(ConvOnGpu, RowsOfAHaloAreReadAndGetTheirGradient) {
  using enum FilterKind;
  const ConvCase cases[] = {{{fixed, 4, 0, 0, true}, 3, 5, 16, {}},
                            {{headwise, 3, 0, 8, false}, 2, 2, 16, {}},
                            {{lowrank, 4, 16, 0, true}, 2, 9, 32, {}},
                            {{lowrank, 8, 5, 0, true}, 3, 1, 7, {}}};
  for (const DType dtype : kAllDtypes) {
    for (const ConvCase& c : cases) {
      ConvPair(c, dtype, Layout::contiguous, true).expect_forward();
      ConvPair(c, dtype, Layout::contiguous, true).expect_backward(false);
    }
  }
}

}  // namespace
}  // namespace convoy::test
