// Attention's inputs (low-rank convolutions, QK-norm, RoPE) as one operation on a GPU, against the
// operations one by one in f64 on the CPU.
#include <array>

#include "tests/core/conv_case.h"
#include "tests/core/gpu/device_bench.h"

namespace convoy::test {
namespace {

using AttentionInputsOnGpu = GpuTest;

struct HeadsCase {
  std::int64_t head_width, query_heads, kv_heads;
  int width;
  std::int64_t filter_rank;
  bool residual, normed;
  std::int64_t segments, length;
  std::vector<std::int64_t> document_lengths;

  ConvShape conv() const { return {FilterKind::lowrank, width, filter_rank, 0, residual}; }
  std::int64_t rows() const { return segments * length; }
  std::int64_t channels(std::size_t input) const {
    return head_width * (input == 0 ? query_heads : kv_heads);
  }
  std::string name() const {
    return concat(query_heads, '+', kv_heads, " heads of ", head_width, ", W ", width, " R ",
                  filter_rank, normed ? ", normed" : "", residual ? ", residual" : "", ", ",
                  segments, 'x', length, " rows, documents ", document_lengths.size());
  }
};

std::vector<HeadsCase> heads_cases() {
  std::vector<HeadsCase> cases;
  for (const bool normed : {false, true}) {
    cases.push_back({64, 4, 2, 4, 16, true, normed, 2, 67, {3, 1, 63}});
    cases.push_back({128, 2, 1, 4, 16, true, normed, 1, 131, {}});
    cases.push_back({128, 1, 1, 3, 8, false, normed, 1, 33, {1, 32}});
    cases.push_back({64, 3, 1, 2, 16, true, normed, 1, 300, {100, 31, 1, 1, 167}});
    cases.push_back({32, 5, 5, 4, 16, false, normed, 2, 41, {}});
    cases.push_back({96, 2, 1, 4, 16, true, normed, 1, 70, {69, 1}});
    cases.push_back({64, 2, 2, 1, 8, true, normed, 1, 1, {}});
    // What the one pass does not take: the operations one by one.
    cases.push_back({16, 2, 1, 4, 16, true, normed, 1, 37, {}});
    cases.push_back({64, 2, 1, 5, 12, true, normed, 1, 19, {}});
  }
  return cases;
}

class HeadsPair {
 public:
  HeadsPair(const HeadsCase& c, DType dtype, Layout layout)
      : c_(c), dtype_(dtype), layout_(layout), bench_(dtype) {
    const ConvCase conv{c.conv(), c.segments, c.length, 1, c.document_lengths};
    std::vector<std::int64_t> positions;
    // As of a window, from a place on where small angles are long past.
    for (std::int64_t i = 0; i < c.rows(); ++i) positions.push_back(i % c.length + 3000);
    heads_ = {{c.segments, c.length, bench_.host().indices(conv.reach()), {}},
              bench_.host().indices(positions),
              c.head_width,
              1e4,
              1e-5};
    gheads_ = heads_;
    gheads_.rows.reach = bench_.upload(heads_.rows.reach);
    gheads_.positions = bench_.upload(heads_.positions);
    for (std::size_t i = 0; i < 3; ++i) declare(i);
  }

  void expect_forward() {
    ops::attention_inputs_forward(bench_.cpu(), in_, heads_);
    ops::attention_inputs_forward(bench_.gpu(), gin_, gheads_);
    for (std::size_t i = 0; i < 3; ++i) {
      // Where there is a norm, the convolution's output may be rounded before it.
      const bool normed = !in_[i].norm_weight.empty();
      if (normed) {
        bench_.expect_sum(gin_[i].rstd, in_[i].rstd, rstd_size(i), terms(), 1, name("rstd", i));
      }
      // A sine or cosine is wrong by up to 2^-20.5, 12 roundings of f32; one of two products.
      bench_.expect_sum(gin_[i].y, in_[i].y, output_size(i), terms() + c_.head_width + 24,
                        normed && dtype_ == DType::bf16 ? 2
                        : dtype_ == DType::bf16         ? 1
                                                        : 0,
                        name("y", i));
    }
  }

  void expect_backward() {
    ops::attention_inputs_forward(bench_.cpu(), in_, heads_);
    ops::attention_inputs_forward(bench_.gpu(), gin_, gheads_);
    std::array<AttentionInputGradients, 3> cpu;
    for (std::size_t i = 0; i < 3; ++i) {
      dy_[i] = bench_.random({c_.rows(), c_.channels(i)});
      cpu[i] = host_gradients(i);
      copy_values(cpu[i].dy, dy_[i]);
    }
    ops::attention_inputs_backward(bench_.cpu(), cpu, in_, heads_);
    const auto first = run_backward(), again = run_backward();
    for (std::size_t i = 0; i < 3; ++i) {
      const ConvGradients bound = gradient_sizes(i);
      const auto& g = first[i].conv;
      // dy turned back may be rounded, with a norm also its gradient (and its input, before), and
      // so are the products that the matrix units take.
      const double low = dtype_ == DType::bf16 ? 1 : 0;
      const double before = (in_[i].norm_weight.empty() ? 1 : 4) * low;
      const std::int64_t more = terms() + 4 * c_.head_width + 24;
      bench_.expect_sum(g.dx, cpu[i].conv.dx, bound.dx, more, before, name("dx", i));
      bench_.expect_sum(g.dgenerated, cpu[i].conv.dgenerated, bound.dgenerated,
                        more + c_.channels(i) * c_.width, before + low, name("dgenerated", i));
      bench_.expect_sum(g.ds, cpu[i].conv.ds, bound.ds, more + c_.rows(), before + low,
                        name("ds", i));
      bench_.expect_sum(g.du, cpu[i].conv.du, bound.du, more + c_.rows(), before + low,
                        name("du", i));
      if (!in_[i].norm_weight.empty()) {
        bench_.expect_sum(first[i].dnorm_weight, cpu[i].dnorm_weight, norm_weight_size(i),
                          more + c_.rows() * c_.channels(i), 3 * low, name("dnorm_weight", i));
      }
      const auto same = [&](const Tensor& a, const Tensor& b, const char* what) {
        EXPECT_EQ(bench_.download(a), bench_.download(b)) << name(what, i) << ": other bits";
      };
      same(g.dx, again[i].conv.dx, "dx");
      same(g.dgenerated, again[i].conv.dgenerated, "dgenerated");
      same(g.ds, again[i].conv.ds, "ds");
      same(g.du, again[i].conv.du, "du");
    }
  }

 private:
  void declare(std::size_t i) {
    const std::int64_t rows = c_.rows(), channels = c_.channels(i);
    AttentionInput& in = in_[i];
    in = {bench_.host().output({rows, channels}),
          bench_.random({rows, channels}),
          {},
          c_.conv(),
          {},
          {},
          {},
          i < 2};
    in.filters = {bench_.random({c_.width, channels}, 0.1),
                  bench_.random({c_.filter_rank, c_.width, channels}, 0.1),
                  bench_.random({rows, c_.filter_rank}, 0.1)};
    AttentionInput& gin = gin_[i];
    gin = in;
    gin.y = bench_.output({rows, channels}, layout_);
    gin.x = bench_.upload(in.x, layout_);
    gin.filters = {bench_.upload(in.filters.s), bench_.upload(in.filters.u),
                   bench_.upload(in.filters.generated, layout_)};
    before_s_[i] = bench_.random_as(wide_of(dtype_), {c_.width, channels});
    before_u_[i] = bench_.random_as(wide_of(dtype_), {c_.filter_rank, c_.width, channels});
    if (!c_.normed || i == 2) return;
    const std::int64_t heads = channels / c_.head_width;
    in.convolved = bench_.host().output({rows, channels});
    in.rstd = bench_.host().output({rows, heads});
    in.norm_weight = bench_.random({c_.head_width});
    gin.convolved = bench_.output({rows, channels}, layout_);
    gin.rstd = bench_.output_as(wide_of(dtype_), in.rstd.shape());
    gin.norm_weight = bench_.upload(in.norm_weight);
    before_norm_[i] = bench_.random_as(wide_of(dtype_), {c_.head_width});
  }

  AttentionInputGradients host_gradients(std::size_t i) {
    Workbench& host = bench_.host();
    const std::int64_t rows = c_.rows(), channels = c_.channels(i);
    AttentionInputGradients g;
    g.dy = host.output({rows, channels});
    g.conv = {host.output({rows, channels}),
              host.output({rows, c_.filter_rank}),
              {},
              host.output({c_.width, channels}),
              host.output({c_.filter_rank, c_.width, channels})};
    copy_values(g.conv.ds, before_s_[i]);
    copy_values(g.conv.du, before_u_[i]);
    if (in_[i].norm_weight.empty()) return g;
    g.dconvolved = host.output({rows, channels});
    g.dnorm_weight = host.output({c_.head_width});
    copy_values(g.dnorm_weight, before_norm_[i]);
    return g;
  }

  std::array<AttentionInputGradients, 3> run_backward() {
    std::array<AttentionInputGradients, 3> all;
    for (std::size_t i = 0; i < 3; ++i) {
      AttentionInputGradients& g = all[i];
      const DType wide = wide_of(dtype_);
      g.dy = bench_.upload(dy_[i], layout_);
      g.conv = {bench_.output({c_.rows(), c_.channels(i)}, layout_),
                bench_.output({c_.rows(), c_.filter_rank}, layout_),
                {},
                bench_.upload_as(wide, before_s_[i]),
                bench_.upload_as(wide, before_u_[i])};
      if (gin_[i].norm_weight.empty()) continue;
      g.dconvolved = bench_.output({c_.rows(), c_.channels(i)}, layout_);
      g.dnorm_weight = bench_.upload_as(wide, before_norm_[i]);
    }
    ops::attention_inputs_backward(bench_.gpu(), all, gin_, gheads_);
    return all;
  }

  // Sums of the magnitudes of the terms of each element.
  Tensor convolved_size(std::size_t i) {
    Tensor size = bench_.host().output({c_.rows(), c_.channels(i)});
    ops::conv_forward(bench_.cpu(), size, bench_.magnitude(in_[i].x), filter_sizes(i), c_.conv(),
                      heads_.rows);
    return size;
  }
  ConvFilters filter_sizes(std::size_t i) {
    const ConvFilters& f = in_[i].filters;
    return {bench_.magnitude(f.s), bench_.magnitude(f.u), bench_.magnitude(f.generated)};
  }
  // How much larger an error of the convolution may be in 1 / rms: r^3 / K sum of |c| size.
  Tensor rstd_size(std::size_t i) {
    const AttentionInput& in = in_[i];
    const Tensor sizes = convolved_size(i);
    Tensor size = bench_.host().output({in.rstd.rows(), in.rstd.cols()});
    Workbench::for_each(size, [&](std::int64_t t, std::int64_t head, double) {
      double sum = 0;
      for (std::int64_t k = head * c_.head_width; k < (head + 1) * c_.head_width; ++k) {
        sum += std::abs(at(in.convolved, t, k)) * at(sizes, t, k);
      }
      const double r = at(in.rstd, t, head);
      return r + r * r * r * sum / static_cast<double>(c_.head_width);
    });
    return size;
  }
  Tensor normed_size(std::size_t i) {
    Tensor size = convolved_size(i);
    const AttentionInput& in = in_[i];
    if (in.norm_weight.empty()) return size;
    const Tensor rstd = rstd_size(i);
    Workbench::for_each(size, [&](std::int64_t t, std::int64_t j, double convolved) {
      const std::int64_t head = j / c_.head_width;
      return std::abs(at(in.norm_weight, 0, j % c_.head_width)) *
             (at(in.rstd, t, head) * convolved +
              std::abs(at(in.convolved, t, j)) * at(rstd, t, head));
    });
    return size;
  }
  // Both of a pair go into each of it.
  Tensor turned_size(const Tensor& size, bool rotates) {
    if (!rotates) return size;
    Tensor turned = bench_.host().output({size.rows(), size.cols()});
    Workbench::for_each(turned, [&](std::int64_t t, std::int64_t j, double) {
      const std::int64_t half = c_.head_width / 2;
      return at(size, t, j) + at(size, t, j % c_.head_width < half ? j + half : j - half);
    });
    return turned;
  }
  Tensor output_size(std::size_t i) { return turned_size(normed_size(i), in_[i].rotates); }

  // The norm's gradient r (w dy - c r^2 mean(w dy c)).
  Tensor dconvolved_size(std::size_t i) {
    const Tensor dy = turned_size(bench_.magnitude(dy_[i]), in_[i].rotates);
    const AttentionInput& in = in_[i];
    if (in.norm_weight.empty()) return dy;
    const Tensor rstd = rstd_size(i), convolved = convolved_size(i);
    Tensor size = bench_.host().output({dy.rows(), dy.cols()});
    Workbench::for_each(size, [&](std::int64_t t, std::int64_t j, double) {
      const std::int64_t head = j / c_.head_width, first = head * c_.head_width;
      const auto weighted = [&](std::int64_t k) {
        return std::abs(at(in.norm_weight, 0, k - first)) * at(dy, t, k);
      };
      double mean = 0;
      for (std::int64_t k = first; k < first + c_.head_width; ++k) {
        mean += weighted(k) * at(convolved, t, k) / static_cast<double>(c_.head_width);
      }
      const double r = at(rstd, t, head);
      return r * (weighted(j) + at(convolved, t, j) * r * r * mean);
    });
    return size;
  }
  Tensor norm_weight_size(std::size_t i) {
    const Tensor dy = turned_size(bench_.magnitude(dy_[i]), in_[i].rotates);
    const Tensor rstd = rstd_size(i), convolved = convolved_size(i);
    Tensor size = bench_.host().output({c_.head_width});
    Workbench::for_each(size, [&](std::int64_t, std::int64_t k, double) {
      double sum = std::abs(at(before_norm_[i], 0, k));
      for (std::int64_t t = 0; t < dy.rows(); ++t) {
        for (std::int64_t j = k; j < dy.cols(); j += c_.head_width) {
          sum += at(dy, t, j) * at(convolved, t, j) * at(rstd, t, j / c_.head_width);
        }
      }
      return sum;
    });
    return size;
  }
  ConvGradients gradient_sizes(std::size_t i) {
    AttentionInputGradients size = host_gradients(i);
    copy_values(size.conv.ds, bench_.magnitude(before_s_[i]));
    copy_values(size.conv.du, bench_.magnitude(before_u_[i]));
    const Tensor dy = dconvolved_size(i), x = bench_.magnitude(in_[i].x);
    bench_.host().backend().conv_backward(size.conv, dy, x, filter_sizes(i), c_.conv(),
                                          heads_.rows);
    return size.conv;
  }

  std::int64_t terms() const { return c_.width * (c_.filter_rank + 2) + 1 + c_.head_width; }
  std::string name(const char* what, std::size_t i) const {
    return concat(what, " of ", "qkv"[i], ": ", c_.name(),
                  layout_ == Layout::strided ? ", strided" : "");
  }

  HeadsCase c_;
  DType dtype_;
  Layout layout_;
  DeviceBench bench_;
  HeadsShape heads_, gheads_;
  std::array<AttentionInput, 3> in_, gin_;
  std::array<Tensor, 3> dy_, before_s_, before_u_, before_norm_;
};

TEST_F(AttentionInputsOnGpu, ForwardEqualsTheOperationsOneByOne) {
  for (const HeadsCase& c : heads_cases()) {
    HeadsPair(c, DType::bf16, Layout::contiguous).expect_forward();
    HeadsPair(c, DType::bf16, Layout::strided).expect_forward();
    HeadsPair(c, DType::f32, Layout::contiguous).expect_forward();
  }
}
TEST_F(AttentionInputsOnGpu, BackwardEqualsTheOperationsOneByOneWithTheSameBitsTwice) {
  for (const HeadsCase& c : heads_cases()) {
    HeadsPair(c, DType::bf16, Layout::contiguous).expect_backward();
    HeadsPair(c, DType::bf16, Layout::strided).expect_backward();
    HeadsPair(c, DType::f32, Layout::contiguous).expect_backward();
  }
}

}  // namespace
}  // namespace convoy::test
