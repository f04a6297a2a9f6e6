// Attention on a GPU: the general kernels and those on the matrix units.
#include "tests/core/gpu/device_bench.h"

namespace convoy::test {
namespace {

using AttentionOnGpu = GpuTest;

struct AttentionCase {
  AttentionShape shape;
  std::vector<std::int64_t> documents;  // lengths, of one sequence; empty: one document
};

std::vector<AttentionCase> cases() {
  return {{{2, 1, 1, 1, 2}, {}},           {{1, 47, 2, 2, 6}, {}},
          {{1, 65, 4, 2, 32}, {64, 1}},    {{2, 64, 2, 1, 64}, {1, 1, 62}},
          {{1, 130, 2, 2, 128}, {}},       {{2, 199, 4, 2, 64}, {70, 1, 128}},
          {{1, 150, 3, 1, 32}, {140, 10}}, {{1, 193, 2, 1, 128}, {33, 96, 64}},
          {{1, 129, 2, 2, 40}, {100, 29}}};
}

// The position in its sequence of row i of the queries.
std::int64_t position_of(const AttentionShape& s, std::int64_t i) {
  const std::int64_t place = i % s.length, run = s.length / s.runs;
  return s.run_begin[static_cast<std::size_t>(place / run)] + place % run;
}

// Of each row of the queries, where its document starts.
std::vector<std::int64_t> starts_of(const AttentionCase& c) {
  std::vector<std::int64_t> whole;
  for (const auto length : c.documents) {
    whole.insert(whole.end(), static_cast<std::size_t>(length), std::ssize(whole));
  }
  whole.resize(static_cast<std::size_t>(c.shape.key_length), 0);
  std::vector<std::int64_t> start;
  for (std::int64_t i = 0; i < c.shape.sequences * c.shape.length; ++i) {
    start.push_back(whole[static_cast<std::size_t>(position_of(c.shape, i))]);
  }
  return start;
}

// Relative error of a probability: a score of up to 30 carries (K + 16) u of itself.
double probability_error(DType dtype, std::int64_t width) {
  return 2 * sum_bound(wide_of(dtype), width + 8, 30);
}

class AttentionPair {
 public:
  AttentionPair(const AttentionCase& c, DType dtype, Layout layout)
      : c_(c), dtype_(dtype), layout_(layout), bench_(dtype), start_(starts_of(c)) {
    const AttentionShape& s = c.shape;
    const std::int64_t rows = s.sequences * s.length;
    q_ = bench_.random({rows, s.query_heads * s.head_width});
    k_ = bench_.random({s.sequences * s.key_length, s.kv_heads * s.head_width});
    v_ = bench_.random({k_.rows(), k_.cols()});
    dout_ = bench_.random({rows, s.query_heads * s.head_width});
    starts_ = bench_.host().indices(start_);
    out_ = bench_.host().output({rows, q_.cols()});
    lse_ = bench_.host().output({rows, s.query_heads});
    ops::attention_forward(bench_.cpu(), out_, lse_, q_, k_, v_, starts_, s);
  }

  void expect_forward() {
    const AttentionShape& s = c_.shape;
    Tensor size = bench_.host().output({q_.rows(), q_.cols()});
    Tensor lse = bench_.host().output({q_.rows(), s.query_heads});
    ops::attention_forward(bench_.cpu(), size, lse, q_, k_, bench_.magnitude(v_), starts_, s);
    Tensor gout = bench_.output({q_.rows(), q_.cols()}, layout_);
    Tensor glse = bench_.output_as(wide_of(dtype_), lse_.shape());
    ops::attention_forward(bench_.gpu(), gout, glse, up(q_), up(k_), up(v_), bench_.upload(starts_),
                           s);
    const double p = probability_error(dtype_, s.head_width);
    // In bf16 the probabilities are rounded before they meet the values.
    const double u = p + static_cast<double>(s.key_length) * unit_roundoff(wide_of(dtype_)) +
                     (dtype_ == DType::bf16 ? unit_roundoff(dtype_) : 0);
    bench_.expect_near(
        gout, out_,
        [&](std::int64_t i, std::int64_t j) {
          const double error = u * at(size, i, j);
          return error + unit_roundoff(dtype_) * (std::abs(at(out_, i, j)) + error);
        },
        name("out"));
    bench_.expect_near(
        glse, lse_, [&](std::int64_t, std::int64_t) { return u + p; }, name("log_sum_exp"));
  }

  void expect_backward() {
    const AttentionShape& s = c_.shape;
    Workbench& host = bench_.host();
    DeviceBench::round_to(out_, dtype_);
    DeviceBench::round_to(lse_, wide_of(dtype_));
    Tensor dq = host.output({q_.rows(), q_.cols()}), dk = host.output({k_.rows(), k_.cols()});
    Tensor dv = host.output({v_.rows(), v_.cols()});
    ops::attention_backward(bench_.cpu(), dq, dk, dv, dout_, q_, k_, v_, out_, lse_, starts_, s);
    Tensor sizes[3] = {host.zeros({q_.rows(), q_.cols()}), host.zeros({k_.rows(), k_.cols()}),
                       host.zeros({v_.rows(), v_.cols()})};
    add_sizes(sizes);
    Tensor gdq = bench_.output({q_.rows(), q_.cols()}, layout_);
    Tensor gdk = bench_.output({k_.rows(), k_.cols()}, layout_);
    Tensor gdv = bench_.output({v_.rows(), v_.cols()}, layout_);
    const auto run = [&] {
      ops::attention_backward(bench_.gpu(), gdq, gdk, gdv, up(dout_), up(q_), up(k_), up(v_),
                              up(out_), bench_.upload_as(wide_of(dtype_), lse_),
                              bench_.upload(starts_), s);
    };
    run();
    // ds is rounded to bf16, as p is; its own error is that of p and of two sums over K.
    const double u = probability_error(dtype_, s.head_width) +
                     static_cast<double>(2 * s.head_width + s.key_length * s.query_heads + 32) *
                         unit_roundoff(wide_of(dtype_)) +
                     (dtype_ == DType::bf16 ? unit_roundoff(dtype_) : 0);
    const auto check = [&](const Tensor& found, const Tensor& expected, const Tensor& size,
                           const char* what) {
      bench_.expect_near(
          found, expected,
          [&](std::int64_t i, std::int64_t j) {
            const double error = u * at(size, i, j);
            return error + unit_roundoff(dtype_) * (std::abs(at(expected, i, j)) + error);
          },
          name(what));
    };
    check(gdq, dq, sizes[0], "dq");
    check(gdk, dk, sizes[1], "dk");
    check(gdv, dv, sizes[2], "dv");
    const auto first = bench_.download(gdq), first_k = bench_.download(gdk);
    run();
    EXPECT_EQ(first, bench_.download(gdq)) << name("dq") << ": not the same bits";
    EXPECT_EQ(first_k, bench_.download(gdk)) << name("dk") << ": not the same bits";
  }

 private:
  Tensor up(const Tensor& t) { return bench_.upload(t, layout_); }
  std::string name(const char* what) const {
    return concat(what, " of T ", c_.shape.length, " K ", c_.shape.head_width, " heads ",
                  c_.shape.query_heads, '/', c_.shape.kv_heads);
  }

  // The sums that make the gradients, of magnitudes: sizes = {dq, dk, dv}.
  void add_sizes(const Tensor (&sizes)[3]) {
    const AttentionShape& s = c_.shape;
    const std::int64_t width = s.head_width;
    const double scale = 1 / std::sqrt(static_cast<double>(width));
    for (std::int64_t i = 0; i < q_.rows(); ++i) {
      const std::int64_t base = i / s.length * s.key_length;
      for (std::int64_t head = 0; head < s.query_heads; ++head) {
        const std::int64_t qc = head * width;
        const std::int64_t kc = head / (s.query_heads / s.kv_heads) * width;
        double delta = 0;
        for (std::int64_t d = 0; d < width; ++d) {
          delta += std::abs(at(dout_, i, qc + d) * at(out_, i, qc + d));
        }
        for (std::int64_t j = base + start_[static_cast<std::size_t>(i)];
             j <= base + position_of(s, i); ++j) {
          double score = 0, dp = 0;
          for (std::int64_t d = 0; d < width; ++d) {
            score += at(q_, i, qc + d) * at(k_, j, kc + d);
            dp += std::abs(at(dout_, i, qc + d) * at(v_, j, kc + d));
          }
          const double p = std::exp(score * scale - at(lse_, i, head)), ds = p * (dp + delta);
          for (std::int64_t d = 0; d < width; ++d) {
            sizes[0].row<double>(i)[qc + d] += scale * ds * std::abs(at(k_, j, kc + d));
            sizes[1].row<double>(j)[kc + d] += scale * ds * std::abs(at(q_, i, qc + d));
            sizes[2].row<double>(j)[kc + d] += p * std::abs(at(dout_, i, qc + d));
          }
        }
      }
    }
  }

  AttentionCase c_;
  DType dtype_;
  Layout layout_;
  DeviceBench bench_;
  std::vector<std::int64_t> start_;
  Tensor q_, k_, v_, dout_, starts_, out_, lse_;
};

TEST_F(AttentionOnGpu, ForwardEqualsTheReferenceInsideDocuments) {
  for (const DType dtype : kAllDtypes) {
    for (const AttentionCase& c : cases()) {
      AttentionPair(c, dtype, Layout::contiguous).expect_forward();
      AttentionPair(c, dtype, Layout::strided).expect_forward();
    }
  }
}
TEST_F(AttentionOnGpu, BackwardEqualsTheReferenceInsideDocumentsWithTheSameBitsTwice) {
  for (const DType dtype : kAllDtypes) {
    for (const AttentionCase& c : cases()) {
      AttentionPair(c, dtype, Layout::contiguous).expect_backward();
      AttentionPair(c, dtype, Layout::strided).expect_backward();
    }
  }
}
// Two of four chunks of a sequence's queries, as context parallelism gives them to a rank.
TEST_F(AttentionOnGpu, SomeQueriesOnAllKeysEqualTheReference) {
  for (const DType dtype : kAllDtypes) {
    for (const std::int64_t first : {0, 1}) {
      const std::array<std::int64_t, 2> begin = {first * 34, (3 - first) * 34};
      for (const auto& documents : {std::vector<std::int64_t>{}, {50, 1, 85}}) {
        const AttentionCase c{{2, 68, 4, 2, 32, false, 136, 2, begin}, documents};
        AttentionPair(c, dtype, Layout::contiguous).expect_forward();
        AttentionPair(c, dtype, Layout::strided).expect_backward();
      }
    }
  }
}
TEST_F(AttentionOnGpu, WholeWindowsThroughTheLibraryEqualTheReference) {
  for (const std::int64_t width : {64, 128}) {
    for (const std::int64_t kv_heads : {2, 1}) {
      AttentionCase c{{2, 256, 2, kv_heads, width, true}, {}};
      AttentionPair(c, DType::bf16, Layout::contiguous).expect_forward();
      AttentionPair(c, DType::bf16, Layout::contiguous).expect_backward();
    }
  }
}

// On a Hopper GPU the backward pass of these is the project's own: keys by tiles of 128, queries by
// 64, of which the last tile of a sequence may have one.
TEST_F(AttentionOnGpu, WholeWindowsOf64ChannelsEqualTheReferenceWithTheSameBitsTwice) {
  const AttentionShape shapes[] = {{3, 64, 1, 1, 64, true},
                                   {1, 128, 2, 2, 64, true},
                                   {2, 192, 2, 2, 64, true},
                                   {1, 448, 4, 2, 64, true},
                                   {2, 320, 3, 1, 64, true}};
  for (const AttentionShape& shape : shapes) {
    AttentionPair({shape, {}}, DType::bf16, Layout::contiguous).expect_backward();
    AttentionPair({shape, {}}, DType::bf16, Layout::strided).expect_backward();
  }
}

}  // namespace
}  // namespace convoy::test
