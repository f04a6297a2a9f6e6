#include <algorithm>
#include <cstring>

#include "core/conv_shape.h"
#include "core/cpu/cpu_backend.h"
#include "core/ops.h"
#include "core/random.h"
#include "launch/bench.h"
#include "launch/stopwatch.h"

namespace convoy {

double median_seconds(int repeats, const std::function<void()>& run) {
  run();
  std::vector<double> seconds;
  for (int i = 0; i < repeats; ++i) {
    const Stopwatch watch;
    run();
    seconds.push_back(watch.seconds());
  }
  std::nth_element(seconds.begin(), seconds.begin() + repeats / 2, seconds.end());
  return seconds[static_cast<std::size_t>(repeats / 2)];
}

namespace {

class OperationBench {
 public:
  OperationBench(std::int64_t sequences, std::int64_t length, std::int64_t channels, int repeats)
      : backend_(make_cpu_backend(NumericsMode::fast)),
        arena_(*backend_, "bench", arena_bytes(sequences * length, channels)),
        context_{*backend_, arena_, DType::f32},
        sequences_(sequences),
        length_(length),
        rows_(sequences * length),
        channels_(channels),
        repeats_(repeats),
        shape_(concat(sequences, 'x', length, 'x', channels)) {}

  std::vector<OpMeasurement> run() {
    for (const FilterKind kind : {FilterKind::fixed, FilterKind::headwise, FilterKind::lowrank}) {
      convolution({kind, 4, 16, 16, true});
    }
    matmul();
    attention();
    elementwise();
    return std::move(results_);
  }

 private:
  static std::size_t arena_bytes(std::int64_t rows, std::int64_t channels) {
    return static_cast<std::size_t>(std::max<std::int64_t>(rows, 1024) * channels) * 4 * 16 +
           (std::size_t{64} << 20);
  }

  Tensor random(std::initializer_list<std::int64_t> shape) {
    Tensor t = context_.take(shape);
    const RandomStream stream(++draws_, "bench");
    for (std::int64_t i = 0; i < t.size(); ++i) {
      t.data<float>()[i] = static_cast<float>(0.1 * stream.normal(static_cast<std::uint64_t>(i)));
    }
    return t;
  }

  Tensor indices(const std::function<std::int64_t(std::int64_t)>& value) {
    Tensor t = arena_.take(DType::i32, {rows_});
    for (std::int64_t i = 0; i < rows_; ++i) {
      t.data<std::int32_t>()[i] = static_cast<std::int32_t>(value(i));
    }
    return t;
  }

  void add(const std::string& name, double bytes, double flops, const std::function<void()>& run) {
    const double seconds = median_seconds(repeats_, run);
    results_.push_back({name, shape_, seconds, bytes, flops, copy_seconds(bytes) / seconds});
  }

  // Seconds of a memcpy that reads and writes `bytes` in all.
  double copy_seconds(double bytes) {
    const auto half = static_cast<std::size_t>(bytes / 2);
    copy_source_.resize(half, 1);
    copy_target_.resize(half, 2);
    return median_seconds(repeats_,
                          [&] { std::memcpy(copy_target_.data(), copy_source_.data(), half); });
  }

  void convolution(const ConvShape& shape) {
    const ArenaScope scope(arena_);
    const char* kind = shape.kind == FilterKind::fixed      ? "static"
                       : shape.kind == FilterKind::headwise ? "headwise"
                                                            : "lowrank";
    const std::int64_t generated = generated_columns(shape, channels_);
    Tensor x = random({rows_, channels_}), dy = random({rows_, channels_});
    Tensor y = context_.take({rows_, channels_}), dx = context_.take({rows_, channels_});
    ConvFilters filters{
        random({shape.width, channels_}), random({shape.filter_rank, shape.width, channels_}), {}};
    Tensor dgenerated;
    if (generated > 0) {
      filters.generated = random({rows_, generated});
      dgenerated = context_.take({rows_, generated});
    }
    Tensor ds = random({shape.width, channels_});
    Tensor du = random({shape.filter_rank, shape.width, channels_});
    const ConvRows rows{
        sequences_,
        length_,
        indices([&](std::int64_t i) { return std::min<std::int64_t>(i % length_, 7); }),
        {}};
    const double moved = 4.0 * static_cast<double>(rows_);  // bytes of one column
    const auto columns = static_cast<double>(channels_), made = static_cast<double>(generated);
    const double taps = 2.0 * static_cast<double>(rows_ * shape.width * channels_);
    const double depth =
        shape.kind == FilterKind::lowrank ? 1.0 + static_cast<double>(shape.filter_rank) : 1.0;
    const std::string name = std::string("conv ") + kind;
    add(name + " forward", moved * (2 * columns + made), taps * depth,
        [&] { ops::conv_forward(context_, y, x, filters, shape, rows); });
    add(name + " backward input", moved * (3 * columns + 2 * made), 2 * taps * depth, [&] {
      ops::conv_backward_input(context_, dx, dgenerated, {}, dy, x, filters, shape, rows);
    });
    add(name + " backward weight", moved * (2 * columns + made), taps * depth,
        [&] { ops::conv_backward_weight(context_, ds, du, dy, x, filters, shape, rows); });
  }

  void matmul() {
    const ArenaScope scope(arena_);
    Tensor a = random({rows_, channels_}), b = random({channels_, channels_});
    Tensor c = context_.take({rows_, channels_});
    const double flops = 2.0 * static_cast<double>(rows_ * channels_ * channels_);
    const double bytes = 4.0 * static_cast<double>(2 * rows_ * channels_ + channels_ * channels_);
    add("matmul", bytes, flops,
        [&] { ops::matmul(context_, c, a, Transpose::no, b, Transpose::yes); });
    const auto fixed = make_cpu_backend(NumericsMode::invariant);
    const Context invariant{*fixed, arena_, DType::f32};
    add("matmul, fixed order", bytes, flops,
        [&] { ops::matmul(invariant, c, a, Transpose::no, b, Transpose::yes); });
  }

  void attention() {
    constexpr std::int64_t kWidth = 32;
    if (channels_ % kWidth != 0) return;
    const ArenaScope scope(arena_);
    const AttentionShape shape{sequences_, length_, channels_ / kWidth, channels_ / kWidth, kWidth};
    Tensor q = random({rows_, channels_}), k = random({rows_, channels_});
    Tensor v = random({rows_, channels_}), dout = random({rows_, channels_});
    Tensor out = context_.take({rows_, channels_}), dq = context_.take({rows_, channels_});
    Tensor dk = context_.take({rows_, channels_}), dv = context_.take({rows_, channels_});
    Tensor lse = context_.take({rows_, shape.query_heads});
    Tensor starts = indices([](std::int64_t) { return 0; });
    const double flops = 2.0 * static_cast<double>(rows_ * channels_ * (length_ + 1));
    const double bytes = 16.0 * static_cast<double>(rows_ * channels_);
    add("attention forward, K 32", bytes, flops,
        [&] { ops::attention_forward(context_, out, lse, q, k, v, starts, shape); });
    add("attention backward, K 32", 2 * bytes, 2.5 * flops, [&] {
      ops::attention_backward(context_, dq, dk, dv, dout, q, k, v, out, lse, starts, shape);
    });
  }

  void elementwise() {
    const ArenaScope scope(arena_);
    Tensor x = random({rows_, channels_}), z = random({rows_, channels_});
    Tensor y = context_.take({rows_, channels_}), rstd = context_.take({rows_, 1});
    Tensor weight = random({channels_});
    const double bytes = 4.0 * static_cast<double>(rows_ * channels_);
    add("rmsnorm forward", 2 * bytes, 0,
        [&] { ops::rmsnorm_forward(context_, y, rstd, x, weight, 1e-5); });
    add("swiglu forward", 3 * bytes, 0, [&] { ops::swiglu_forward(context_, y, x, z); });
  }

  std::unique_ptr<Backend> backend_;
  Arena arena_;
  Context context_;
  std::int64_t sequences_, length_, rows_, channels_;
  int repeats_;
  std::string shape_;
  std::uint64_t draws_ = 0;
  std::vector<char> copy_source_, copy_target_;
  std::vector<OpMeasurement> results_;
};

}  // namespace

std::vector<OpMeasurement> bench_operations(std::int64_t sequences, std::int64_t length,
                                            std::int64_t channels, int repeats) {
  return OperationBench(sequences, length, channels, repeats).run();
}

}  // namespace convoy
