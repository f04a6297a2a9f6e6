// Norms, rotations, SwiGLU, embedding and the loss on a GPU.
#include <array>

#include "tests/core/gpu/device_bench.h"

namespace convoy::test {
namespace {

using NormOnGpu = GpuTest;
using RopeOnGpu = GpuTest;
using SwigluOnGpu = GpuTest;
using EmbeddingOnGpu = GpuTest;
using LossOnGpu = GpuTest;

struct NormCase {
  std::int64_t rows, groups, width;
};

void expect_norm(const NormCase& c, DType dtype, Layout layout) {
  DeviceBench bench(dtype);
  const std::int64_t columns = c.groups * c.width;
  const Tensor x = bench.random({c.rows, columns}), dy = bench.random({c.rows, columns});
  const Tensor weight = bench.random({c.width}),
               before = bench.random_as(wide_of(dtype), {c.width});
  Workbench& host = bench.host();
  Tensor y = host.output({c.rows, columns}), dx = host.output({c.rows, columns});
  Tensor rstd = host.output({c.rows, c.groups}), dweight = host.output({c.width});
  ops::rmsnorm_forward(bench.cpu(), y, rstd, x, weight, 1e-5);
  ops::rmsnorm_backward_input(bench.cpu(), dx, dy, x, rstd, weight);
  copy_values(dweight, before);
  ops::rmsnorm_backward_weight(bench.cpu(), dweight, dy, x, rstd);

  const DType wide = wide_of(dtype);
  const Tensor gx = bench.upload(x, layout), gdy = bench.upload(dy, layout),
               gw = bench.upload(weight);
  Tensor gy = bench.output({c.rows, columns}, layout),
         gdx = bench.output({c.rows, columns}, layout);
  Tensor grstd = bench.output_as(wide, rstd.shape()), gdw = bench.upload_as(wide, before);
  ops::rmsnorm_forward(bench.gpu(), gy, grstd, gx, gw, 1e-5);
  ops::rmsnorm_backward_input(bench.gpu(), gdx, gdy, gx, grstd, gw);
  ops::rmsnorm_backward_weight(bench.gpu(), gdw, gdy, gx, grstd);

  // rstd is a root of a sum of K squares: its relative error is below (K + 8) u.
  bench.expect_sum(grstd, rstd, rstd, c.width, 0, "rstd");
  bench.expect_sum(gy, y, bench.magnitude(y), c.width, 0, "rmsnorm");
  // dx = r (w dy - x r^2 mean(w dy x)): the magnitudes of both parts.
  Tensor size = host.output({c.rows, columns});
  Workbench::for_each(size, [&](std::int64_t i, std::int64_t j, double) {
    const std::int64_t first = j / c.width * c.width;
    double mean = 0;
    for (std::int64_t k = 0; k < c.width; ++k) {
      mean += std::abs(at(weight, 0, k) * at(dy, i, first + k) * at(x, i, first + k)) /
              static_cast<double>(c.width);
    }
    const double r = at(rstd, i, j / c.width);
    return r * (std::abs(at(weight, 0, j % c.width) * at(dy, i, j)) +
                std::abs(at(x, i, j)) * r * r * mean);
  });
  bench.expect_sum(gdx, dx, size, 4 * c.width, 0, "dx of rmsnorm");
  Tensor weight_size = host.output({c.width});
  Workbench::for_each(weight_size, [&](std::int64_t, std::int64_t j, double) {
    double sum = std::abs(at(before, 0, j));
    for (std::int64_t i = 0; i < c.rows; ++i) {
      for (std::int64_t g = 0; g < c.groups; ++g) {
        const std::int64_t k = g * c.width + j;
        sum += std::abs(at(dy, i, k) * at(x, i, k) * at(rstd, i, g));
      }
    }
    return sum;
  });
  bench.expect_sum(gdw, dweight, weight_size, c.rows * c.groups + c.width, 0, "dweight of rmsnorm");
}

TEST_F(NormOnGpu, ForwardAndBackwardEqualTheReference) {
  const NormCase cases[] = {{1, 1, 1},  {5, 1, 8},    {3, 2, 24},   {700, 1, 7},
                            {9, 4, 64}, {33, 1, 352}, {270, 3, 16}, {2, 1, 2056}};
  for (const DType dtype : kAllDtypes) {
    for (const NormCase& c : cases) {
      expect_norm(c, dtype, Layout::contiguous);
      expect_norm(c, dtype, Layout::strided);
    }
  }
}

TEST_F(NormOnGpu, WithTheResidualEqualsTheTwoOperationsApart) {
  for (const DType dtype : kAllDtypes) {
    for (const std::int64_t width : {1, 24, 1024, 1032, 4096}) {
      DeviceBench bench(dtype);
      const Tensor a = bench.upload(bench.random({5, width})),
                   b = bench.upload(bench.random({5, width}));
      const Tensor dy = bench.upload(bench.random({5, width}));
      const Tensor weight = bench.upload(bench.random({width}));
      const auto wide = [&] {
        return bench.output_as(wide_of(dtype), std::array<std::int64_t, 2>{5, 1});
      };
      Tensor sum = bench.output({5, width}), y = bench.output({5, width}), rstd = wide();
      ops::add_rmsnorm_forward(bench.gpu(), sum, y, rstd, a, b, weight, 1e-5);
      Tensor sum2 = bench.output({5, width}), y2 = bench.output({5, width}), rstd2 = wide();
      ops::add(bench.gpu(), sum2, a, b);
      ops::rmsnorm_forward(bench.gpu(), y2, rstd2, sum2, weight, 1e-5);
      EXPECT_EQ(bench.download(sum), bench.download(sum2));
      EXPECT_EQ(bench.download(y), bench.download(y2));
      EXPECT_EQ(bench.download(rstd), bench.download(rstd2));
      Tensor dx = bench.output({5, width}), dx2 = bench.output({5, width});
      ops::rmsnorm_backward_input_add(bench.gpu(), dx, dy, sum, rstd, weight, a);
      ops::rmsnorm_backward_input(bench.gpu(), dx2, dy, sum, rstd, weight);
      // In one pass the sum is rounded once, apart twice.
      const auto first = bench.download(dx2), residual = bench.download(a);
      const auto found = bench.download(dx);
      for (std::size_t i = 0; i < found.size(); ++i) {
        ASSERT_NEAR(found[i], first[i] + residual[i],
                    2 * unit_roundoff(dtype) * (std::abs(first[i]) + std::abs(residual[i])));
      }
    }
  }
}

// In one pass over whole rows, beside the two operations apart, of which the sum's order differs.
TEST_F(NormOnGpu, BothGradientsInOnePassEqualThoseApart) {
  for (const DType dtype : kAllDtypes) {
    for (const std::int64_t width : {8, 24, 384, 1024, 2048, 4096}) {
      for (const Layout layout : {Layout::contiguous, Layout::strided}) {
        for (const std::int64_t rows : {1, 37, 700}) {
          if (rows * width > 300'000) continue;  // what the bench's memory holds
          for (const bool adds : {false, true}) {
            DeviceBench bench(dtype);
            const DType wide = wide_of(dtype);
            const Tensor hx = bench.random({rows, width}), hdy = bench.random({rows, width});
            const Tensor x = bench.upload(hx, layout), dy = bench.upload(hdy, layout);
            const Tensor weight = bench.upload(bench.random({width}));
            const Tensor rest = adds ? bench.upload(bench.random({rows, width}), layout) : Tensor();
            const Tensor before = bench.random_as(wide, {width});
            Tensor y = bench.output({rows, width});
            Tensor rstd = bench.output_as(wide, std::array<std::int64_t, 2>{rows, 1});
            ops::rmsnorm_forward(bench.gpu(), y, rstd, x, weight, 1e-5);
            Tensor dx = bench.output({rows, width}, layout), dx2 = bench.output({rows, width});
            Tensor dw = bench.upload_as(wide, before), dw2 = bench.upload_as(wide, before);
            Tensor dw3 = bench.upload_as(wide, before);
            ops::rmsnorm_backward(bench.gpu(), dx, dw, dy, x, rstd, weight, rest);
            if (adds) {
              ops::rmsnorm_backward_input_add(bench.gpu(), dx2, dy, x, rstd, weight, rest);
            } else {
              ops::rmsnorm_backward_input(bench.gpu(), dx2, dy, x, rstd, weight);
            }
            ops::rmsnorm_backward_weight(bench.gpu(), dw2, dy, x, rstd);
            const auto found = bench.download(dx), expected = bench.download(dx2);
            const auto r = bench.download(rstd);
            for (std::size_t i = 0; i < found.size(); ++i) {
              // The mean over the row is a sum of `width` terms in two orders.
              const double row = r[i / static_cast<std::size_t>(width)];
              const double slack = static_cast<double>(width + 8) * unit_roundoff(wide) * 32 * row;
              ASSERT_NEAR(found[i], expected[i],
                          slack + 2 * unit_roundoff(dtype) * std::abs(expected[i]))
                  << name_of(dtype) << ' ' << rows << " x " << width;
            }
            const auto sums = bench.download(dw), apart = bench.download(dw2);
            for (std::int64_t j = 0; j < width; ++j) {
              double size = std::abs(at(before, 0, j));
              for (std::int64_t i = 0; i < rows; ++i) {
                size += std::abs(at(hdy, i, j) * at(hx, i, j) * r[static_cast<std::size_t>(i)]);
              }
              ASSERT_NEAR(sums[static_cast<std::size_t>(j)], apart[static_cast<std::size_t>(j)],
                          2 * static_cast<double>(rows + 8) * unit_roundoff(wide) * size);
            }
            Tensor again = bench.output({rows, width}, layout);
            ops::rmsnorm_backward(bench.gpu(), again, dw3, dy, x, rstd, weight, rest);
            EXPECT_EQ(bench.download(again), found);
            EXPECT_EQ(bench.download(dw3), sums) << "not the same bits";
          }
        }
      }
    }
  }
}

TEST_F(RopeOnGpu, TurnsForwardAndBackLikeTheReference) {
  for (const DType dtype : kAllDtypes) {
    for (const std::int64_t width : {2, 6, 64}) {
      for (const auto direction : {RopeDirection::forward, RopeDirection::backward}) {
        DeviceBench bench(dtype);
        const std::int64_t rows = width == 64 ? 1500 : 11;  // threads go on to further rows
        const Tensor x = bench.random({rows, 3 * width});
        std::vector<std::int64_t> drawn{0, 1, 2, 3, 100, 4095, 7, 1000, 9, 10, 11};
        while (std::ssize(drawn) < rows) drawn.push_back(drawn[drawn.size() - 11] * 31 % 4096);
        const Tensor positions = bench.host().indices(drawn);
        const Tensor original = bench.random({rows, 3 * width});
        copy_values(original, x);
        const Tensor gx = bench.upload(x, Layout::strided);
        ops::rope(bench.cpu(), x, positions, width, 1e4, direction);
        ops::rope(bench.gpu(), gx, bench.upload(positions), width, 1e4, direction);
        // Angles up to 4,095 are exact to an ulp of f64 on both sides, sine and cosine to 2 ulps.
        const double angle = 4 * 4096 * unit_roundoff(DType::f64);
        const double u = 16 * unit_roundoff(wide_of(dtype)) + angle;
        bench.expect_near(
            gx, x,
            [&](std::int64_t i, std::int64_t j) {
              const std::int64_t first = j / width * width, k = (j + width / 2 - first) % width;
              const double size =
                  std::abs(at(original, i, j)) + std::abs(at(original, i, first + k));
              return u * size + unit_roundoff(dtype) * (std::abs(at(x, i, j)) + u * size);
            },
            "rope");
      }
    }
  }
}

TEST_F(SwigluOnGpu, ForwardAndBackwardEqualTheReference) {
  for (const DType dtype : kAllDtypes) {
    for (const Layout layout : {Layout::contiguous, Layout::strided}) {
      for (const std::int64_t columns : {1, 13, 200}) {
        DeviceBench bench(dtype);
        const Tensor gate = bench.random({9, columns}, 4), up = bench.random({9, columns});
        const Tensor dy = bench.random({9, columns});
        Workbench& host = bench.host();
        Tensor y = host.output({9, columns}), dgate = host.output({9, columns});
        Tensor dup = host.output({9, columns}), size = host.output({9, columns});
        ops::swiglu_forward(bench.cpu(), y, gate, up);
        ops::swiglu_backward(bench.cpu(), dgate, dup, dy, gate, up);
        const Tensor g = bench.upload(gate, layout), u = bench.upload(up, layout);
        const Tensor d = bench.upload(dy, layout);
        Tensor gy = bench.output({9, columns}, layout), gdup = bench.output({9, columns}, layout);
        Tensor gdgate = bench.output({9, columns}, layout);
        ops::swiglu_forward(bench.gpu(), gy, g, u);
        ops::swiglu_backward(bench.gpu(), gdgate, gdup, d, g, u);
        // exp(-x) carries |x| u of its argument; 16 roundings in all.
        Workbench::for_each(size, [&](std::int64_t i, std::int64_t j, double) {
          const double x = std::abs(at(gate, i, j));
          return (1 + x) * (1 + x) * std::abs(at(up, i, j)) * (1 + std::abs(at(dy, i, j)));
        });
        bench.expect_sum(gy, y, size, 8, 0, "swiglu");
        bench.expect_sum(gdgate, dgate, size, 8, 0, "dgate");
        Workbench::for_each(size, [&](std::int64_t i, std::int64_t j, double) {
          const double x = std::abs(at(gate, i, j));
          return (1 + x) * (1 + x) * std::abs(at(dy, i, j));
        });
        bench.expect_sum(gdup, dup, size, 8, 0, "dup");
      }
    }
  }
}

TEST_F(EmbeddingOnGpu, GathersAndSumsEachTokensRows) {
  for (const DType dtype : kAllDtypes) {
    for (const std::int64_t vocabulary : {1, 5, 300}) {
      DeviceBench bench(dtype);
      const std::int64_t rows = 517, columns = vocabulary == 5 ? 40 : 33;  // in packs and not
      std::vector<std::int64_t> drawn;
      for (std::int64_t i = 0; i < rows; ++i) {
        drawn.push_back(static_cast<std::int64_t>(mix64(static_cast<std::uint64_t>(i)) %
                                                  static_cast<std::uint64_t>(vocabulary)));
      }
      const Tensor tokens = bench.host().indices(drawn), gtokens = bench.upload(tokens);
      const Tensor table = bench.random({vocabulary, columns}), dy = bench.random({rows, columns});
      Tensor y = bench.host().output({rows, columns}), gy = bench.output({rows, columns});
      ops::embedding_forward(bench.cpu(), y, table, tokens);
      ops::embedding_forward(bench.gpu(), gy, bench.upload(table), gtokens);
      EXPECT_EQ(bench.download(gy), values(y));
      const Tensor before = bench.random_as(wide_of(dtype), {vocabulary, columns});
      Tensor size = bench.magnitude(before), dtable = bench.host().output({vocabulary, columns});
      copy_values(dtable, before);
      ops::embedding_backward(bench.cpu(), dtable, dy, tokens);
      ops::embedding_backward(bench.cpu(), size, bench.magnitude(dy), tokens);
      Tensor gdtable = bench.upload_as(wide_of(dtype), before);
      const Tensor gdy = bench.upload(dy);
      ops::embedding_backward(bench.gpu(), gdtable, gdy, gtokens);
      bench.expect_sum(gdtable, dtable, size, rows, 0, "dtable");
      Tensor again = bench.upload_as(wide_of(dtype), before);
      ops::embedding_backward(bench.gpu(), again, gdy, gtokens);
      EXPECT_EQ(bench.download(again), bench.download(gdtable)) << "not the same bits";
    }
  }
}

TEST_F(LossOnGpu, StatisticsLossesAndGradientsEqualTheReference) {
  for (const DType dtype : kAllDtypes) {
    for (const std::int64_t classes : {1, 257, 1000}) {
      DeviceBench bench(dtype);
      const std::int64_t rows = 37, first = 3;
      const DType wide = wide_of(dtype);
      std::vector<std::int64_t> drawn;
      for (std::int64_t i = 0; i < rows; ++i) {
        drawn.push_back(i % 5 == 0 ? -1 : (i * 131) % (classes + 6));  // some of other classes
      }
      const Tensor targets = bench.host().indices(drawn), gtargets = bench.upload(targets);
      const Tensor logits = bench.random({rows, classes}, 3), glogits = bench.upload(logits);
      Tensor statistics = bench.host().output({rows, 3}), losses = bench.host().output({rows});
      ops::softmax_statistics(bench.cpu(), statistics, logits, targets, first);
      ops::cross_entropy_losses(bench.cpu(), losses, statistics, targets);
      Tensor gstatistics = bench.output_as(wide, statistics.shape());
      Tensor glosses = bench.output_as(DType::f64, losses.shape());
      ops::softmax_statistics(bench.gpu(), gstatistics, glogits, gtargets, first);
      ops::cross_entropy_losses(bench.gpu(), glosses, gstatistics, gtargets);
      // A logit below 40 carries 40 u into its exponential.
      const double relative =
          static_cast<double>(classes + 64) * (unit_roundoff(wide) + unit_roundoff(DType::f64));
      bench.expect_near(
          gstatistics, statistics,
          [&](std::int64_t i, std::int64_t j) { return relative * std::abs(at(statistics, i, j)); },
          "statistics");
      bench.expect_near(
          glosses, losses,
          [&](std::int64_t, std::int64_t i) {
            return relative * (1 + std::abs(at(statistics, i, 0)) + std::abs(at(statistics, i, 2)));
          },
          "losses");
      ops::cross_entropy_backward(bench.gpu(), glogits, gstatistics, gtargets, first, 0.25);
      ops::cross_entropy_backward(bench.cpu(), logits, statistics, targets, first, 0.25);
      bench.expect_near(
          glogits, logits,
          [&](std::int64_t i, std::int64_t j) {
            return 2 * relative * 0.25 + unit_roundoff(dtype) * std::abs(at(logits, i, j));
          },
          "dlogits");
    }
  }
}

// A row may lie in one block, in a cluster, or be too wide for one.
TEST_F(LossOnGpu, InOnePassEqualsTheReference) {
  for (const DType dtype : kAllDtypes) {
    for (const std::int64_t classes : {1, 257, 1000, 8192, 40008, 100352, 300000}) {
      DeviceBench bench(dtype);
      const std::int64_t rows = 7;
      const DType wide = wide_of(dtype);
      std::vector<std::int64_t> drawn;
      for (std::int64_t i = 0; i < rows; ++i) {
        drawn.push_back(i == 3 ? -1 : (i * 7919 + classes - 1) % classes);
      }
      const Tensor targets = bench.host().indices(drawn), gtargets = bench.upload(targets);
      const Tensor logits = bench.random({rows, classes}, 3), glogits = bench.upload(logits);
      const Tensor again = bench.upload(logits);
      Tensor statistics = bench.host().output({rows, 3}), losses = bench.host().output({rows});
      ops::cross_entropy(bench.cpu(), losses, statistics, logits, targets, 0.25);
      Tensor gstatistics = bench.output_as(wide, statistics.shape());
      Tensor glosses = bench.output_as(DType::f64, losses.shape());
      ops::cross_entropy(bench.gpu(), glosses, gstatistics, glogits, gtargets, 0.25);
      const double relative =
          static_cast<double>(classes + 64) * (unit_roundoff(wide) + unit_roundoff(DType::f64));
      bench.expect_near(
          glosses, losses,
          [&](std::int64_t, std::int64_t i) {
            return relative * (1 + std::abs(at(statistics, i, 0)) + std::abs(at(statistics, i, 2)));
          },
          "losses");
      bench.expect_near(
          glogits, logits,
          [&](std::int64_t i, std::int64_t j) {
            // The probability is the gradient, but for the target, where it is 0.25 away.
            const bool is_target = targets.data<std::int32_t>()[i] == j;
            const double size = std::abs(at(logits, i, j));
            return 2 * relative * (size + (is_target ? 0.25 : 0)) + unit_roundoff(dtype) * size;
          },
          "dlogits");
      ops::cross_entropy(bench.gpu(), glosses, gstatistics, again, gtargets, 0.25);
      EXPECT_EQ(bench.download(again), bench.download(glogits)) << "not the same bits";
    }
  }
}

}  // namespace
}  // namespace convoy::test
