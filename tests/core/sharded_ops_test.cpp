// What operations offer to ranks that share their work: a convolution in parts while a halo
// travels, attention of some queries on all keys, a part of a vocabulary.
#include "tests/core/conv_case.h"

namespace convoy::test {
namespace {

struct ConvResult {
  Tensor y, dx, dgenerated, dhalo;
};

ConvResult outputs(Workbench& bench, const ConvCase& c, const ConvTensors& in) {
  ConvResult r;
  r.y = bench.output({c.rows(), c.channels});
  r.dx = bench.output({c.rows(), c.channels});
  if (!in.filters.generated.empty()) {
    r.dgenerated = bench.output({c.rows(), in.filters.generated.cols()});
  }
  r.dhalo = bench.output({c.segments * (c.shape.width - 1), c.channels});
  return r;
}

void forward(Workbench& bench, const ConvCase& c, const ConvTensors& in, const ConvResult& out,
             ConvRows rows, ConvPart part) {
  rows.part = part;
  ops::conv_forward(bench.context(), out.y, in.x, in.filters, c.shape, rows);
}

void backward(Workbench& bench, const ConvCase& c, const ConvTensors& in, const ConvResult& out,
              ConvRows rows, ConvPart part) {
  rows.part = part;
  ops::conv_backward_input(bench.context(), out.dx, out.dgenerated, out.dhalo, in.dy, in.x,
                           in.filters, c.shape, rows);
}

// The interior must not read the halo, and the boundary alone must complete its gradient: the halo
// holds NaN until the boundary's turn, and dhalo is taken away after it.
void expect_parts_equal_all(const ConvCase& c) {
  SCOPED_TRACE(c.name());
  Workbench bench;
  const ConvTensors in(bench, c, Layout::strided);
  ConvRows rows = in.rows;
  std::vector<std::int64_t> reach(static_cast<std::size_t>(c.rows()));
  for (std::int64_t t = 0; t < c.rows(); ++t) {  // into the halo, but for one document start
    reach[static_cast<std::size_t>(t)] = t == 1 ? 0 : 7;
  }
  rows.reach = bench.indices(reach);
  const Tensor halo = bench.random({c.segments * (c.shape.width - 1), c.channels});
  rows.halo = halo;
  const ConvResult all = outputs(bench, c, in), parts = outputs(bench, c, in);
  forward(bench, c, in, all, rows, ConvPart::all);
  backward(bench, c, in, all, rows, ConvPart::all);

  rows.halo = bench.output({halo.rows(), halo.cols()});
  forward(bench, c, in, parts, rows, ConvPart::interior);
  copy_values(rows.halo, halo);
  forward(bench, c, in, parts, rows, ConvPart::boundary);
  EXPECT_EQ(values(all.y), values(parts.y));

  backward(bench, c, in, parts, rows, ConvPart::boundary);
  EXPECT_EQ(values(all.dhalo), values(parts.dhalo));
  backward(bench, c, in, parts, rows, ConvPart::interior);
  EXPECT_EQ(values(all.dhalo), values(parts.dhalo));
  EXPECT_EQ(values(all.dx), values(parts.dx));
  if (!all.dgenerated.empty()) {
    EXPECT_EQ(values(all.dgenerated), values(parts.dgenerated));
  }
}

TEST(ConvParts, InteriorAndBoundaryGiveTheBitsOfOneCall) {
  using enum FilterKind;
  for (const std::int64_t length : {1, 2, 3, 4, 17, 40}) {
    for (const int width : {2, 4, 8}) {
      expect_parts_equal_all({{fixed, width, 0, 0, true}, 2, length, 35, {}});
      expect_parts_equal_all({{headwise, width, 0, 4, false}, 2, length, 32, {}});
      expect_parts_equal_all({{lowrank, width, 5, 0, true}, 2, length, 35, {}});
    }
  }
}

struct Attended {
  Tensor out, lse, dq, dk, dv;
};

Attended attend(Workbench& bench, const AttentionShape& shape, const Tensor& q, const Tensor& k,
                const Tensor& v, const Tensor& dout, const Tensor& starts) {
  Attended a{bench.output({q.rows(), q.cols()}), bench.output({q.rows(), shape.query_heads}),
             bench.output({q.rows(), q.cols()}), bench.output({k.rows(), k.cols()}),
             bench.output({k.rows(), k.cols()})};
  ops::attention_forward(bench.context(), a.out, a.lse, q, k, v, starts, shape);
  ops::attention_backward(bench.context(), a.dq, a.dk, a.dv, dout, q, k, v, a.out, a.lse, starts,
                          shape);
  return a;
}

// The rows of one sequence's runs [begin, begin + length) side by side.
Tensor rows_at(Workbench& bench, const Tensor& all, const AttentionShape& s) {
  Tensor some = bench.output({s.sequences * s.length, all.cols()});
  const std::int64_t length = s.length / s.runs;
  for (std::int64_t b = 0; b < s.sequences; ++b) {
    for (int run = 0; run < s.runs; ++run) {
      copy_values(
          some.row_range(b * s.length + run * length, length),
          all.row_range(b * s.key_length + s.run_begin[static_cast<std::size_t>(run)], length));
    }
  }
  return some;
}

// Two ranks of a zigzag share the queries of 2 sequences of `length`; the sum of their dk, dv is
// that of all queries.
void expect_shared_queries(std::int64_t length, const std::vector<std::int64_t>& one_sequence) {
  SCOPED_TRACE(length);
  constexpr std::int64_t kHeads = 4, kKeyHeads = 2, kWidth = 6;
  Workbench bench;
  const AttentionShape whole{2, length, kHeads, kKeyHeads, kWidth};
  const Tensor q = bench.random({2 * length, kHeads * kWidth}),
               k = bench.random({2 * length, kKeyHeads * kWidth}),
               v = bench.random({2 * length, kKeyHeads * kWidth}),
               dout = bench.random({2 * length, kHeads * kWidth});
  std::vector<std::int64_t> start = one_sequence;
  start.insert(start.end(), one_sequence.begin(), one_sequence.end());
  const Attended all = attend(bench, whole, q, k, v, dout, bench.indices(start));
  Tensor dk = bench.zeros({k.rows(), k.cols()}), dv = bench.zeros({k.rows(), k.cols()});
  for (const std::int64_t rank : {0, 1}) {
    const std::int64_t chunk = length / 4;
    const AttentionShape shape{2,      length / 2, kHeads, kKeyHeads,
                               kWidth, length,     2,      {rank * chunk, (3 - rank) * chunk}};
    std::vector<std::int64_t> own;
    for (std::int64_t b = 0; b < 2; ++b) {
      for (const auto begin : shape.run_begin) {
        for (std::int64_t i = 0; i < chunk; ++i) {
          own.push_back(start[static_cast<std::size_t>(begin + i)]);
        }
      }
    }
    const Attended part = attend(bench, shape, rows_at(bench, q, shape), k, v,
                                 rows_at(bench, dout, shape), bench.indices(own));
    const double bound = sum_bound(DType::f64, length, 64);
    const auto near = [&](const Tensor& found, const Tensor& expected) {
      const auto a = values(found), b = values(rows_at(bench, expected, shape));
      for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], bound) << i;
    };
    near(part.out, all.out);
    near(part.lse, all.lse);
    near(part.dq, all.dq);
    ops::add(bench.context(), dk, dk, part.dk);
    ops::add(bench.context(), dv, dv, part.dv);
  }
  const double bound = sum_bound(DType::f64, length, 64 * static_cast<double>(length));
  for (const auto& [found, expected] : {std::pair{dk, all.dk}, {dv, all.dv}}) {
    const auto a = values(found), b = values(expected);
    for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], bound) << i;
  }
}

TEST(AttentionRuns, SomeQueriesOnAllKeysGiveTheirRowsOfTheWhole) {
  const auto documents = [](std::int64_t length, std::vector<std::int64_t> lengths) {
    std::vector<std::int64_t> start;
    std::int64_t first = 0;
    for (const auto n : lengths) {
      start.insert(start.end(), static_cast<std::size_t>(n), first);
      first += n;
    }
    start.resize(static_cast<std::size_t>(length), first);
    return start;
  };
  expect_shared_queries(4, documents(4, {}));
  expect_shared_queries(4, documents(4, {1, 2}));
  expect_shared_queries(52, documents(52, {20, 1, 9}));
  expect_shared_queries(300, documents(300, {}));
  expect_shared_queries(300, documents(300, {140, 1, 100}));
}

TEST(AttentionRuns, QueriesPastTheKeysAreRefused) {
  Workbench bench;
  const Tensor q = bench.random({4, 4}), k = bench.random({8, 4}), lse = bench.output({4, 1});
  const Tensor starts = bench.indices({0, 0, 0, 0});
  const AttentionShape shape{1, 4, 1, 1, 4, 8, 2, {0, 7}};
  EXPECT_THROW(
      ops::attention_forward(bench.context(), bench.output({4, 4}), lse, q, k, k, starts, shape),
      Error);
}

TEST(VocabularyParts, EmbeddingsOfPartsAddUpBitForBit) {
  for (const auto dtype : {DType::f64, DType::f32}) {
    Workbench bench(dtype);
    const Tensor table = bench.random({7, 5}), tokens = bench.indices({3, 0, 6, 3, 4});
    const Tensor dy = bench.random({5, 5});
    Tensor whole = bench.output({5, 5}), sum = bench.zeros({5, 5});
    Tensor dwhole = bench.zeros({7, 5}), dparts = bench.zeros({8, 5});  // the last row is padding
    ops::embedding_forward(bench.context(), whole, table, tokens);
    ops::embedding_backward(bench.context(), dwhole, dy, tokens);
    for (const std::int64_t first : {0, 4}) {
      Tensor part = bench.zeros({4, 5}), y = bench.output({5, 5});
      copy_values(part.row_range(0, std::min<std::int64_t>(4, 7 - first)),
                  table.row_range(first, std::min<std::int64_t>(4, 7 - first)));
      ops::embedding_forward(bench.context(), y, part, tokens, {first, 7});
      ops::add(bench.context(), sum, sum, y);
      ops::embedding_backward(bench.context(), dparts.row_range(first, 4), dy, tokens, {first, 7});
    }
    EXPECT_EQ(values(whole), values(sum));
    EXPECT_EQ(values(dwhole), values(dparts.row_range(0, 7)));
    EXPECT_EQ(largest(dparts.row_range(7, 1)), 0);
    EXPECT_THROW(ops::embedding_forward(bench.context(), whole, table,
                                        bench.indices({7, 0, 0, 0, 0}), {0, 7}),
                 Error);
  }
}

TEST(VocabularyParts, MergedStatisticsAreThoseOfAllClasses) {
  for (const auto dtype : {DType::f64, DType::f32}) {
    Workbench bench(dtype);
    const Context run = bench.context();
    Tensor logits = bench.random({5, 37}, 30), targets = bench.indices({0, 18, 19, 36, -1});
    Tensor all = bench.output({5, 3}), merged = bench.output({5, 3}), parts = bench.output({15, 3});
    ops::softmax_statistics(run, all, logits, targets, 0);
    std::int64_t first = 0;
    for (const std::int64_t part : {0, 1, 2}) {
      const std::int64_t count = part == 2 ? 1 : 18;  // the last one's maximum may be far below
      ops::softmax_statistics(run, parts.row_range(part * 5, 5), logits.column_range(first, count),
                              targets, first);
      first += count;
    }
    ops::merge_softmax_statistics(run, merged, parts);
    for (std::int64_t i = 0; i < 5; ++i) {
      ASSERT_EQ(at(merged, i, 0), at(all, i, 0));
      // Exponents to 200 carry a rounding of that size; then a sum of 37.
      ASSERT_NEAR(at(merged, i, 1), at(all, i, 1),
                  2 * (sum_bound(dtype, 37, 1) + 200 * unit_roundoff(dtype)) * at(all, i, 1));
      ASSERT_EQ(at(merged, i, 2), at(all, i, 2));
    }
    ops::merge_softmax_statistics(run, merged, all);  // one part is all
    EXPECT_EQ(values(merged), values(all));
    EXPECT_THROW(ops::merge_softmax_statistics(run, merged, parts.row_range(0, 7)), Error);
  }
}

}  // namespace
}  // namespace convoy::test
