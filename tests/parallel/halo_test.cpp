// Where the rows of a sequence lie, which of them a halo needs, and that they come and go.
#include <set>

#include "parallel/halo_exchange.h"
#include "parallel/thread_communicator.h"
#include "tests/parallel/communicator_suite.h"

namespace convoy::test {
namespace {

std::vector<RowLayout> layouts() {
  std::vector<RowLayout> all;
  for (const int cp : {1, 2, 3, 4}) {
    for (const int tp : {1, 2, 4}) {
      for (const std::int64_t length : {1, 2, 5}) {
        all.push_back({length * tp * (cp > 1 ? 2 * cp : 1), cp, tp});
      }
    }
  }
  return all;
}

std::string name_of(const RowLayout& l) {
  return concat("T ", l.length, " over cp ", l.cp, " x tp ", l.tp);
}

TEST(RowLayout, EveryPositionHasOnePlace) {
  for (const RowLayout& layout : layouts()) {
    SCOPED_TRACE(name_of(layout));
    std::set<std::int64_t> seen;
    for (int rank = 0; rank < layout.ranks(); ++rank) {
      for (int segment = 0; segment < layout.segments(); ++segment) {
        for (std::int64_t row = 0; row < layout.segment_length(); ++row) {
          const std::int64_t position = layout.begin_of(rank, segment) + row;
          ASSERT_TRUE(seen.insert(position).second);
          const auto place = layout.place_of(position);
          ASSERT_EQ(place.rank, rank);
          ASSERT_EQ(place.segment, segment);
          ASSERT_EQ(place.row, row);
        }
      }
    }
    ASSERT_EQ(std::ssize(seen), layout.length);
    ASSERT_EQ(*seen.rbegin(), layout.length - 1);
  }
}

TEST(RowLayout, ZigzagGivesEveryRankAsManyCausalPairs) {
  const RowLayout layout{48, 4, 1};
  for (int rank = 0; rank < 4; ++rank) {
    std::int64_t pairs = 0;
    for (int segment = 0; segment < 2; ++segment) {
      for (std::int64_t row = 0; row < layout.segment_length(); ++row) {
        pairs += layout.begin_of(rank, segment) + row + 1;
      }
    }
    EXPECT_EQ(pairs, 48 * 49 / 2 / 4) << rank;
  }
}

// By the definition: the halo row j of a segment is the position W - 1 - j before it.
TEST(HaloPlan, BringsEachRowBeforeASegmentOnceFromTheRankThatHasIt) {
  for (const RowLayout& layout : layouts()) {
    for (const std::int64_t before : {0, 1, 3, 7}) {
      SCOPED_TRACE(concat(name_of(layout), ", ", before, " before"));
      std::set<std::tuple<int, int, std::int64_t>> brought;
      for (const HaloRun& run : halo_runs(layout, before)) {
        ASSERT_GT(run.count, 0);
        for (std::int64_t i = 0; i < run.count; ++i) {
          const std::int64_t position =
              layout.begin_of(run.owner, run.owner_segment) + run.owner_row + i;
          const std::int64_t wanted =
              layout.begin_of(run.reader, run.reader_segment) - before + run.halo_row + i;
          ASSERT_EQ(position, wanted);
          ASSERT_LT(run.owner_row + i, layout.segment_length());
          ASSERT_TRUE(brought.insert({run.reader, run.reader_segment, run.halo_row + i}).second);
        }
      }
      std::int64_t expected = 0;
      for (int rank = 0; rank < layout.ranks(); ++rank) {
        for (int segment = 0; segment < layout.segments(); ++segment) {
          expected += std::min(before, layout.begin_of(rank, segment));
        }
      }
      ASSERT_EQ(std::ssize(brought), expected);
    }
  }
}

// Row `position` of sequence b holds numbers that tell both.
double mark(std::int64_t sequence, std::int64_t position, std::int64_t column) {
  return static_cast<double>(1 + 1000 * sequence + 10 * position + column);
}

void expect_exchange(Communicator& ranks, const RowLayout& layout, std::int64_t before) {
  constexpr std::int64_t kSequences = 2;
  const auto backend = make_cpu_backend(NumericsMode::fast);
  Arena arena(*backend, "halo", 1 << 20);
  const Context context{*backend, arena, DType::f64};
  const std::int64_t rows = kSequences * layout.rows();
  // Two parts of a wider matrix: columns 0 and 2, 3.
  Tensor x = context.take({rows, 4}), dx = context.take({rows, 4});
  const auto for_each_row = [&](auto function) {
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t segment = i / layout.segment_length() % layout.segments();
      function(
          i, i / layout.rows(),
          layout.begin_of(ranks.rank(), static_cast<int>(segment)) + i % layout.segment_length());
    }
  };
  for_each_row([&](std::int64_t i, std::int64_t sequence, std::int64_t position) {
    for (std::int64_t c = 0; c < 4; ++c) x.row<double>(i)[c] = mark(sequence, position, c);
    std::fill_n(dx.row<double>(i), 4, 0.5);
  });
  const auto parts = [](const Tensor& t) {
    return std::vector<Tensor>{t.column_range(0, 1), t.column_range(2, 2)};
  };
  HaloExchange exchange(context, ranks, layout, kSequences, before);
  if (exchange.empty()) return;
  Tensor halo = context.take({exchange.halo_rows(), 3});
  exchange.start(halo, parts(x));
  exchange.finish(halo);
  for (std::int64_t h = 0; h < halo.rows(); ++h) {
    const std::int64_t segment = h / before % layout.segments();
    const std::int64_t position =
        layout.begin_of(ranks.rank(), static_cast<int>(segment)) - before + h % before;
    const std::int64_t sequence = h / before / layout.segments();
    for (std::int64_t c = 0; c < 3; ++c) {
      const std::int64_t column = c == 0 ? 0 : c + 1;
      ASSERT_EQ(halo.row<double>(h)[c], position < 0 ? 0 : mark(sequence, position, column));
    }
  }
  // Each halo row comes back as a one, so a row gains as many ones as halos hold it.
  backend->fill(halo, 1);
  exchange.start_return(halo);
  exchange.finish_return(halo, parts(dx));
  for_each_row([&](std::int64_t i, std::int64_t, std::int64_t position) {
    double readers = 0;
    for (int rank = 0; rank < layout.ranks(); ++rank) {
      for (int segment = 0; segment < layout.segments(); ++segment) {
        const std::int64_t begin = layout.begin_of(rank, segment);
        if (position < begin && position >= begin - before) ++readers;
      }
    }
    ASSERT_EQ(dx.row<double>(i)[0], 0.5 + readers);
    ASSERT_EQ(dx.row<double>(i)[1], 0.5);
    ASSERT_EQ(dx.row<double>(i)[2], 0.5 + readers);
    ASSERT_EQ(dx.row<double>(i)[3], 0.5 + readers);
  });
}

TEST(HaloExchange, RowsComeFromTheirOwnersAndGradientsGoBack) {
  for (const RowLayout& layout : layouts()) {
    run_on_threads(layout.ranks(), [&](Communicator& ranks) {
      for (const std::int64_t before : {1, 3, 7}) expect_exchange(ranks, layout, before);
    });
  }
}

}  // namespace
}  // namespace convoy::test
