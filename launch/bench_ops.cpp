#include <algorithm>
#include <array>
#include <cstdlib>

#include "core/conv_shape.h"
#include "core/ops.h"
#include "core/random.h"
#include "launch/bench.h"
#include "launch/run_device.h"

namespace convoy {
namespace {

// Tensors filled with random numbers: a pool of normal draws, taken up at another place each time.
class RandomTensors {
 public:
  RandomTensors(Backend& backend, DType dtype) : backend_(backend) {
    std::vector<double> host(kPool);
    const RandomStream stream(1, "bench");
    for (std::size_t i = 0; i < host.size(); ++i) host[i] = 0.1 * stream.normal(i);
    pool_ = OwnedTensor(backend, dtype, {kPool});
    backend.convert(pool_.view(), Tensor(host.data(), DType::f64, DeviceKind::cpu, {kPool}));
  }

  void fill(const Tensor& t) {
    const Tensor flat = t.reshape({t.size(), 1});
    for (std::int64_t begin = 0; begin < t.size();) {
      place_ = (place_ + 7919) % (kPool / 2);
      const std::int64_t count = std::min(kPool / 2, t.size() - begin);
      backend_.copy(flat.row_range(begin, count).reshape({count}),
                    pool_.view().reshape({kPool, 1}).row_range(place_, count).reshape({count}));
      begin += count;
    }
  }

 private:
  static constexpr std::int64_t kPool = std::int64_t{1} << 20;
  Backend& backend_;
  OwnedTensor pool_;
  std::int64_t place_ = 0;
};

std::size_t arena_bytes(const BenchSetup& s) {
  const auto rows = static_cast<std::size_t>(std::max<std::int64_t>(s.sequences * s.length, 1024));
  return rows * static_cast<std::size_t>(s.channels) * size_of(s.dtype) * 34 +
         (std::size_t{64} << 20);
}

class OperationBench {
 public:
  explicit OperationBench(const BenchSetup& setup)
      : setup_(setup),
        backend_(make_backend(setup.device, NumericsMode::fast)),
        arena_(*backend_, "bench", arena_bytes(setup)),
        random_(*backend_, setup.dtype),
        gradients_(*backend_, setup.dtype == DType::bf16 ? DType::f32 : setup.dtype),
        context_{*backend_, arena_, setup.dtype},
        rows_(setup.sequences * setup.length),
        channels_(setup.channels),
        shape_(concat(setup.sequences, 'x', setup.length, 'x', setup.channels)) {}

  std::vector<OpMeasurement> run() {
    for (const FilterKind kind : {FilterKind::fixed, FilterKind::headwise, FilterKind::lowrank}) {
      convolution({kind, 4, 16, 16, true});
    }
    for (const bool normed : {false, true}) attention_inputs(normed);
    convolutions_with_neighbours();
    matmul();
    for (const std::int64_t width : {32, 64, 128}) attention(width);
    elementwise();
    return std::move(results_);
  }

 private:
  double element() const { return static_cast<double>(size_of(setup_.dtype)); }

  Tensor random(std::initializer_list<std::int64_t> shape) {
    Tensor t = context_.take(shape);
    random_.fill(t);
    return t;
  }
  Tensor gradient(std::initializer_list<std::int64_t> shape) {
    Tensor t = context_.take_statistics(shape);
    gradients_.fill(t);
    return t;
  }
  template <class Value>
  Tensor indices(Value&& value) {
    std::vector<std::int32_t> host(static_cast<std::size_t>(rows_));
    for (std::int64_t i = 0; i < rows_; ++i) {
      host[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(value(i));
    }
    Tensor t = arena_.take(DType::i32, {rows_});
    backend_->copy(t, Tensor(host.data(), DType::i32, DeviceKind::cpu, {rows_}));
    return t;
  }

  void add(const std::string& name, double bytes, double flops, const std::function<void()>& run) {
    const double seconds = backend_->seconds_of(setup_.repeats, run);
    results_.push_back({name, shape_, seconds, bytes, flops, copy_seconds(bytes)});
  }

  // Seconds of a copy that reads and writes `bytes` in all.
  double copy_seconds(double bytes) {
    const ArenaScope scope(arena_);
    const auto half = static_cast<std::int64_t>(bytes / 8) + 1;
    Tensor source = arena_.take(DType::f32, {half}), target = arena_.take(DType::f32, {half});
    return backend_->seconds_of(setup_.repeats, [&] { backend_->copy(target, source); });
  }

  void convolution(const ConvShape& shape) {
    const ArenaScope scope(arena_);
    const char* kind = shape.kind == FilterKind::fixed      ? "static"
                       : shape.kind == FilterKind::headwise ? "headwise H16"
                                                            : "lowrank R16";
    const std::int64_t made = generated_columns(shape, channels_);
    if (shape.kind == FilterKind::headwise && channels_ % shape.head_size != 0) return;
    Tensor x = random({rows_, channels_}), dy = random({rows_, channels_});
    Tensor y = context_.take({rows_, channels_});
    ConvGradients g;
    g.dx = context_.take({rows_, channels_});
    ConvFilters filters{
        random({shape.width, channels_}), random({shape.filter_rank, shape.width, channels_}), {}};
    if (made > 0) {
      filters.generated = random({rows_, made});
      g.dgenerated = context_.take({rows_, made});
    }
    g.ds = gradient({shape.width, channels_});
    g.du = gradient({shape.filter_rank, shape.width, channels_});
    const std::int64_t length = setup_.length;
    const ConvRows rows{
        setup_.sequences,
        length,
        indices([&](std::int64_t i) { return std::min<std::int64_t>(i % length, 7); }),
        {}};
    const double column = element() * static_cast<double>(rows_);  // bytes
    const auto width = static_cast<double>(channels_), more = static_cast<double>(made);
    const double depth =
        shape.kind == FilterKind::lowrank ? 1.0 + static_cast<double>(shape.filter_rank) : 1.0;
    const double taps = 2.0 * static_cast<double>(rows_ * shape.width * channels_) * depth;
    const std::string name = std::string("conv ") + kind;
    add(name + " forward", column * (2 * width + more), taps,
        [&] { ops::conv_forward(context_, y, x, filters, shape, rows); });
    add(name + " backward input", column * (3 * width + 2 * more), 2 * taps, [&] {
      ops::conv_backward_input(context_, g.dx, g.dgenerated, {}, dy, x, filters, shape, rows);
    });
    add(name + " backward weight", column * (2 * width + more), taps,
        [&] { ops::conv_backward_weight(context_, g.ds, g.du, dy, x, filters, shape, rows); });
    add(name + " backward", column * (3 * width + 2 * more), 3 * taps,
        [&] { ops::conv_backward(context_, g, dy, x, filters, shape, rows); });
    add(name + " forward and backward", column * (5 * width + 3 * more), 4 * taps, [&] {
      ops::conv_forward(context_, y, x, filters, shape, rows);
      ops::conv_backward(context_, g, dy, x, filters, shape, rows);
    });
  }

  // q, k and v of heads of 128 channels: low-rank convolutions, QK-norm and rotation, beside a copy
  // of q, k and v. As in a model x and dx are columns of one matrix, the generated ones behind
  // them.
  void attention_inputs(bool normed) {
    constexpr std::int64_t kWidth = 128, kRank = 16;
    if (channels_ % kWidth != 0) return;
    const ArenaScope scope(arena_);
    const ConvShape conv{FilterKind::lowrank, 4, kRank, 0, true};
    const std::int64_t columns = 3 * (channels_ + kRank), length = setup_.length;
    const Tensor joined = random({rows_, columns}), djoined = context_.take({rows_, columns});
    std::array<AttentionInput, 3> inputs;
    std::array<AttentionInputGradients, 3> back;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const auto part = [&](const Tensor& matrix) {
        return matrix.column_range(static_cast<std::int64_t>(i) * channels_, channels_);
      };
      const auto generated = [&](const Tensor& matrix) {
        const auto before = static_cast<std::int64_t>(i) * kRank;
        return matrix.column_range(3 * channels_ + before, kRank);
      };
      AttentionInput& in = inputs[i];
      in = {context_.take({rows_, channels_}), part(joined), {}, conv, {}, {}, {}, i < 2};
      in.filters = {random({conv.width, channels_}), random({kRank, conv.width, channels_}),
                    generated(joined)};
      back[i] = {random({rows_, channels_}), {}, {}, {}};
      back[i].conv = {part(djoined),
                      generated(djoined),
                      {},
                      gradient({conv.width, channels_}),
                      gradient({kRank, conv.width, channels_})};
      if (!normed || i == 2) continue;
      in.convolved = context_.take({rows_, channels_});
      in.rstd = context_.take_statistics({rows_, channels_ / kWidth});
      in.norm_weight = random({kWidth});
      back[i].dconvolved = context_.take({rows_, channels_});
      back[i].dnorm_weight = gradient({kWidth});
    }
    const auto of_window = [&](std::int64_t most) {
      return indices([=](std::int64_t i) { return std::min(i % length, most); });
    };
    const HeadsShape heads{
        {setup_.sequences, length, of_window(7), {}}, of_window(length), kWidth, 1e4, 1e-5};
    const double bytes = 3 * element() * static_cast<double>(rows_ * channels_);  // of q, k and v
    const std::string name =
        concat("q, k, v lowrank R16 ", normed ? "and QK-norm " : "", "and RoPE ");
    add(name + "forward", 2 * bytes, 0,
        [&] { ops::attention_inputs_forward(context_, inputs, heads); });
    add(name + "backward", 3 * bytes, 0,
        [&] { ops::attention_inputs_backward(context_, back, inputs, heads); });
    add(name + "forward and backward", 5 * bytes, 0, [&] {
      ops::attention_inputs_forward(context_, inputs, heads);
      ops::attention_inputs_backward(context_, back, inputs, heads);
    });
  }

  // Low-rank convolutions of what SwiGLU reads, and of what a residual is added to.
  void convolutions_with_neighbours() {
    const ArenaScope scope(arena_);
    const ConvShape conv{FilterKind::lowrank, 4, 16, 0, true};
    const auto input = [&] {
      return ConvolvedInput{
          context_.take({rows_, channels_}),
          random({rows_, channels_}),
          {random({conv.width, channels_}), random({conv.filter_rank, conv.width, channels_}),
           random({rows_, conv.filter_rank})},
          conv};
    };
    const ConvolvedInput gate = input(), up = input();
    const Tensor y = context_.take({rows_, channels_}), dy = random({rows_, channels_});
    const Tensor dgate = context_.take({rows_, channels_}), dup = context_.take({rows_, channels_});
    const std::int64_t length = setup_.length;
    const ConvRows rows{
        setup_.sequences,
        length,
        indices([&](std::int64_t i) { return std::min<std::int64_t>(i % length, 7); }),
        {}};
    const double bytes = element() * static_cast<double>(rows_ * channels_);
    add("conv lowrank R16 of gate and up, swiglu forward", 3 * bytes, 0,
        [&] { ops::conv_swiglu_forward(context_, y, gate, up, rows); });
    add("conv lowrank R16 of gate and up, swiglu backward", 5 * bytes, 0,
        [&] { ops::conv_swiglu_backward(context_, dgate, dup, dy, gate, up, rows); });
    add("conv lowrank R16 with the residual forward", 3 * bytes, 0,
        [&] { ops::conv_forward_add(context_, y, gate.x, dy, gate.filters, gate.conv, rows); });
  }

  void matmul() {
    const ArenaScope scope(arena_);
    Tensor a = random({rows_, channels_}), b = random({channels_, channels_});
    Tensor c = context_.take({rows_, channels_}), db = gradient({channels_, channels_});
    const double flops = 2.0 * static_cast<double>(rows_ * channels_ * channels_);
    const double bytes =
        element() * static_cast<double>(2 * rows_ * channels_ + channels_ * channels_);
    add("matmul", bytes, flops,
        [&] { ops::matmul(context_, c, a, Transpose::no, b, Transpose::yes); });
    add("matmul into a gradient", bytes, flops,
        [&] { ops::matmul(context_, db, c, Transpose::yes, a, Transpose::no, Accumulate::yes); });
    const auto fixed = make_backend(setup_.device, NumericsMode::invariant);
    fixed->synchronize();
    const Context invariant{*fixed, arena_, setup_.dtype};
    backend_->synchronize();
    const double seconds = fixed->seconds_of(
        setup_.repeats, [&] { ops::matmul(invariant, c, a, Transpose::no, b, Transpose::yes); });
    results_.push_back({"matmul, fixed order", shape_, seconds, bytes, flops, copy_seconds(bytes)});
  }

  // Whole windows, and the same with documents of a quarter of a window.
  void attention(std::int64_t width) {
    if (channels_ % width != 0 || (width > 32 && setup_.device == DeviceKind::cpu)) return;
    const ArenaScope scope(arena_);
    AttentionShape shape{setup_.sequences, setup_.length, channels_ / width, channels_ / width,
                         width};
    Tensor q = random({rows_, channels_}), k = random({rows_, channels_});
    Tensor v = random({rows_, channels_}), dout = random({rows_, channels_});
    Tensor out = context_.take({rows_, channels_}), dq = context_.take({rows_, channels_});
    Tensor dk = context_.take({rows_, channels_}), dv = context_.take({rows_, channels_});
    Tensor lse = context_.take_statistics({rows_, shape.query_heads});
    Tensor starts = indices([](std::int64_t) { return 0; });
    const double flops = 2.0 * static_cast<double>(rows_ * channels_ * (setup_.length + 1));
    const double bytes = 4 * element() * static_cast<double>(rows_ * channels_);
    for (const bool one_document : {true, false}) {
      shape.one_document = one_document;
      const std::string name =
          concat("attention K ", width, one_document ? ", whole windows" : ", documents allowed");
      add(name + ", forward", bytes, flops,
          [&] { ops::attention_forward(context_, out, lse, q, k, v, starts, shape); });
      add(name + ", backward", 2 * bytes, 2.5 * flops, [&] {
        ops::attention_backward(context_, dq, dk, dv, dout, q, k, v, out, lse, starts, shape);
      });
      if (setup_.device == DeviceKind::cpu) return;
    }
  }

  void elementwise() {
    const ArenaScope scope(arena_);
    Tensor x = random({rows_, channels_}), z = random({rows_, channels_});
    Tensor y = context_.take({rows_, channels_}), w = context_.take({rows_, channels_});
    Tensor rstd = context_.take_statistics({rows_, 1});
    Tensor weight = random({channels_}), dweight = gradient({channels_});
    const double bytes = element() * static_cast<double>(rows_ * channels_);
    const double wide = element() == 8 ? 8 : 4;
    add("add", 3 * bytes, 0, [&] { ops::add(context_, y, x, z); });
    add("rmsnorm forward", 2 * bytes, 0,
        [&] { ops::rmsnorm_forward(context_, y, rstd, x, weight, 1e-5); });
    add("rmsnorm backward input", 3 * bytes, 0,
        [&] { ops::rmsnorm_backward_input(context_, y, z, x, rstd, weight); });
    add("rmsnorm backward weight", 2 * bytes, 0,
        [&] { ops::rmsnorm_backward_weight(context_, dweight, z, x, rstd); });
    add("add and rmsnorm forward", 4 * bytes, 0,
        [&] { ops::add_rmsnorm_forward(context_, w, y, rstd, x, z, weight, 1e-5); });
    add("rmsnorm backward, both, with the residual", 4 * bytes, 0,
        [&] { ops::rmsnorm_backward(context_, y, dweight, z, x, rstd, weight, w); });
    add("swiglu forward", 3 * bytes, 0, [&] { ops::swiglu_forward(context_, y, x, z); });
    add("swiglu backward", 5 * bytes, 0, [&] { ops::swiglu_backward(context_, y, w, z, x, z); });
    Tensor positions = indices([&](std::int64_t i) { return i % setup_.length; });
    if (channels_ % 64 == 0) {
      add("rope", 2 * bytes, 0,
          [&] { ops::rope(context_, y, positions, 64, 1e4, RopeDirection::forward); });
    }
    random_.fill(y);
    Tensor statistics = context_.take_statistics({rows_, 3});
    Tensor targets = indices([&](std::int64_t i) { return i * 7919 % channels_; });
    add("softmax statistics", bytes, 0,
        [&] { ops::softmax_statistics(context_, statistics, y, targets, 0); });
    add("cross-entropy backward", 2 * bytes, 0,
        [&] { ops::cross_entropy_backward(context_, y, statistics, targets, 0, 1e-5); });
    bench_large_vocabulary(y);
    Tensor dtable = gradient({channels_, channels_});
    add("embedding backward", bytes + 2 * wide * static_cast<double>(channels_ * channels_), 0,
        [&] { ops::embedding_backward(context_, dtable, x, targets); });
  }

  // Logits of the vocabulary of the 305M model, as many rows as the memory of a tensor holds.
  void bench_large_vocabulary(const Tensor& memory) {
    constexpr std::int64_t kClasses = 100352;
    const std::int64_t rows = memory.size() / kClasses;
    if (rows == 0) return;
    const Tensor logits(memory.data(), memory.dtype(), memory.device(), {rows, kClasses});
    random_.fill(logits);
    const Tensor statistics = context_.take_statistics({rows, 3});
    const Tensor losses = arena_.take(DType::f64, {rows}),
                 targets = arena_.take(DType::i32, {rows});
    backend_->fill(targets, 12345);
    add("cross-entropy, one pass, 100352 classes",
        2 * element() * static_cast<double>(rows * kClasses), 0,
        [&] { ops::cross_entropy(context_, losses, statistics, logits, targets, 1e-5); });
  }

  BenchSetup setup_;
  std::unique_ptr<Backend> backend_;
  Arena arena_;
  RandomTensors random_, gradients_;
  Context context_;
  std::int64_t rows_, channels_;
  std::string shape_;
  std::vector<OpMeasurement> results_;
};

}  // namespace

std::vector<OpMeasurement> bench_operations(const BenchSetup& setup) {
  return OperationBench(setup).run();
}

Ceilings measure_ceilings(DeviceKind device, DType dtype) {
  const auto backend = make_backend(device, NumericsMode::fast);
  const bool gpu = device == DeviceKind::cuda;
  const std::int64_t copied = std::int64_t{1} << (gpu ? 30 : 24);  // bytes
  const std::int64_t side = gpu ? 8192 : 1024;
  Ceilings ceilings{};
  {
    const OwnedTensor from(*backend, DType::f32, {copied / 4}),
        to(*backend, DType::f32, {copied / 4});
    const double seconds = backend->seconds_of(9, [&] { backend->copy(to.view(), from.view()); });
    ceilings.copy_bytes_per_s = 2 * static_cast<double>(copied) / seconds;
  }
  const OwnedTensor a(*backend, dtype, {side, side}), b(*backend, dtype, {side, side});
  const OwnedTensor c(*backend, dtype, {side, side});
  RandomTensors random(*backend, dtype);
  random.fill(a.view());
  random.fill(b.view());
  const double seconds = backend->seconds_of(9, [&] {
    backend->matmul(c.view(), a.view(), Transpose::no, b.view(), Transpose::yes, Accumulate::no);
  });
  const auto n = static_cast<double>(side);
  ceilings.matmul_flops_per_s = 2 * n * n * n / seconds;
  return ceilings;
}

}  // namespace convoy
