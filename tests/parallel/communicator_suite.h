// What every communicator must do, run by whoever can provide ranks.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <numeric>
#include <vector>

#include "core/cpu/cpu_backend.h"
#include "parallel/communicator.h"
#include "parallel/tree_sum.h"

namespace convoy::test {

inline Tensor view(std::vector<double>& v) {
  return {v.data(), DType::f64, DeviceKind::cpu, {static_cast<std::int64_t>(v.size())}};
}
inline Tensor view(std::vector<double>& v, std::int64_t columns) {
  return {v.data(),
          DType::f64,
          DeviceKind::cpu,
          {static_cast<std::int64_t>(v.size()) / columns, columns}};
}

inline void expect_reductions(Communicator& c) {
  std::vector<double> sum = {1.0 + c.rank(), 10}, top = {double(c.rank()), -1.0 - c.rank()};
  Work first = c.all_reduce(view(sum), Reduction::sum);
  Work second = c.all_reduce(view(top), Reduction::maximum);
  second.wait();
  first.wait();
  const double n = c.size();
  EXPECT_EQ(sum, (std::vector<double>{n * (n + 1) / 2, 10 * n}));
  EXPECT_EQ(top, (std::vector<double>{n - 1, -1}));
}

inline void expect_gathers(Communicator& c) {
  const auto n = static_cast<std::size_t>(c.size());
  std::vector<double> mine = {double(c.rank()), 0.5}, all(2 * n, -1);
  c.all_gather(view(all), view(mine)).wait();
  for (std::size_t r = 0; r < n; ++r) {
    EXPECT_EQ(all[2 * r], double(r));
    EXPECT_EQ(all[2 * r + 1], 0.5);
  }
  std::vector<double> in_place(2 * n, -1);
  const Tensor whole = view(in_place, 2), own_part = whole.row_range(c.rank(), 1);
  own_part.data<double>()[0] = double(c.rank());
  own_part.data<double>()[1] = 0.5;
  c.all_gather(whole, own_part).wait();
  EXPECT_EQ(in_place, all);
  std::vector<double> parts(3 * n), own(3);
  std::iota(parts.begin(), parts.end(), 0);
  c.reduce_scatter(view(own), view(parts)).wait();
  for (std::size_t i = 0; i < 3; ++i)
    EXPECT_EQ(own[i], double(n * (3 * std::size_t(c.rank()) + i)));
}

inline void expect_all_to_all(Communicator& c) {
  // Rank r sends s + 1 rows of two numbers to rank s.
  std::vector<std::int64_t> send, receive;
  std::int64_t sent = 0;
  for (std::int64_t s = 0; s < c.size(); ++s) {
    send.push_back(s + 1);
    receive.push_back(c.rank() + 1);
    sent += s + 1;
  }
  std::vector<double> in(static_cast<std::size_t>(2 * sent), c.rank());
  std::vector<double> out(static_cast<std::size_t>(2 * c.size() * (c.rank() + 1)), -1);
  c.all_to_all(view(out, 2), receive, view(in, 2), send).wait();
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::size_t sender = i / static_cast<std::size_t>(2 * (c.rank() + 1));
    EXPECT_EQ(out[i], double(sender));
  }
}

inline void expect_messages(Communicator& c) {
  std::vector<double> values = {c.rank() == c.size() - 1 ? 7.0 : 0.0};
  c.broadcast(view(values), c.size() - 1).wait();
  EXPECT_EQ(values[0], 7);
  if (c.size() > 1) {  // a ring: to the next, from the one before
    std::vector<double> out = {double(c.rank())}, in = {-1};
    const int next = (c.rank() + 1) % c.size(), before = (c.rank() + c.size() - 1) % c.size();
    const Transfer ring[] = {{Transfer::Kind::send, view(out), next},
                             {Transfer::Kind::receive, view(in), before}};
    c.exchange(ring).wait();
    EXPECT_EQ(in[0], before);
  }
  c.barrier();
}

inline void expect_split(Communicator& c) {
  const auto half = c.split(c.rank() % 2);
  EXPECT_EQ(half->rank(), c.rank() / 2);
  EXPECT_EQ(half->size(), (c.size() + 1 - c.rank() % 2) / 2);
  std::vector<double> sum = {double(c.rank())};
  half->all_reduce(view(sum), Reduction::sum).wait();
  double expected = 0;
  for (int r = c.rank() % 2; r < c.size(); r += 2) expected += r;
  EXPECT_EQ(sum[0], expected);
}

// The values of micro-batch i: numbers whose sum depends on the order of addition.
inline double leaf(std::int64_t i, std::int64_t element) {
  return (i % 3 == 0 ? 1e8 : 0.1) * static_cast<double>(1 + i * 7 % 5) /
         static_cast<double>(3 + element);
}

inline std::vector<double> tree_total(Communicator& c, std::int64_t micro_batches) {
  constexpr std::int64_t kElements = 420;  // for 1 to 7 ranks, each a part
  CHECK(kElements % c.size() == 0, c.size(), " ranks");
  const auto backend = make_cpu_backend(NumericsMode::fast);
  TreeSum tree(*backend, DType::f64, kElements);
  std::vector<double> total(kElements);
  std::vector<double> part(static_cast<std::size_t>(kElements / c.size()));
  std::vector<MicroBatchRange> owners;
  for (int r = 0; r < c.size(); ++r) {
    owners.push_back({r * micro_batches / c.size(), (r + 1) * micro_batches / c.size()});
  }
  for (int repeat = 0; repeat < 2; ++repeat) {  // a second step starts afresh
    const MicroBatchRange own = owners[static_cast<std::size_t>(c.rank())];
    for (std::int64_t i = own.begin; i < own.end; ++i) {
      const Tensor values = tree.begin(i);
      for (std::int64_t e = 0; e < kElements; ++e) values.data<double>()[e] = leaf(i, e);
      tree.end(i);
    }
    tree.start(c, owners);
    tree.finish(view(part));
    c.all_gather(view(total), view(part)).wait();
  }
  return total;
}

// The tree by its definition: halves of aligned ranges, and what is left folded from the right.
inline double tree_by_definition(std::int64_t begin, std::int64_t end, std::int64_t element) {
  std::int64_t size = 1;
  while (begin + 2 * size <= end) size *= 2;
  const std::function<double(std::int64_t, std::int64_t)> aligned = [&](std::int64_t first,
                                                                        std::int64_t count) {
    if (count == 1) return leaf(first, element);
    return aligned(first, count / 2) + aligned(first + count / 2, count / 2);
  };
  if (begin + size == end) return aligned(begin, size);
  return aligned(begin, size) + tree_by_definition(begin + size, end, element);
}

inline void expect_tree_sums(Communicator& c) {
  for (std::int64_t m = c.size(); m <= 17; ++m) {
    const auto total = tree_total(c, m);
    for (std::int64_t e = 0; e < std::ssize(total); ++e) {
      ASSERT_EQ(total[static_cast<std::size_t>(e)], tree_by_definition(0, m, e)) << m;
    }
  }
}

inline void expect_everything(Communicator& c) {
  expect_reductions(c);
  expect_gathers(c);
  expect_all_to_all(c);
  expect_messages(c);
  expect_split(c);
  expect_tree_sums(c);
}

}  // namespace convoy::test
