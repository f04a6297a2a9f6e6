// Regions recorded as CUDA graphs: the same bits as operations one by one, values read when they
// are replayed, and clear refusals of what cannot be recorded, after which the backend goes on.
#include "core/recorded_region.h"
#include "tests/core/gpu/device_bench.h"

namespace convoy::test {
namespace {

using RecordingOnGpu = GpuTest;

constexpr int kPlain = RecordedRegion::kPlainRuns;

std::string refusal_of(Backend& backend, const std::function<void()>& body) {
  try {
    backend.record(body);
  } catch (const Error& error) {
    return error.what();
  }
  return "no refusal";
}

// A low-rank convolution (whose kernels overlap each other's ends), a matmul of the library and a
// norm, each reading what the one before wrote.
struct Chain {
  DeviceBench& bench;
  Tensor x, y, z, w, rstd, norm, s, u, generated, reach;
  ConvShape shape{FilterKind::lowrank, 4, 16, 0, true};

  explicit Chain(DeviceBench& on)
      : bench(on),
        x(bench.upload(bench.random({256, 64}))),
        y(bench.output({256, 64})),
        z(bench.output({256, 64})),
        w(bench.upload(bench.random({64, 64}, 0.125))),
        rstd(bench.output_as(wide_of(bench.dtype()), std::array<std::int64_t, 2>{256, 1})),
        norm(bench.upload(bench.random({64}))),
        s(bench.upload(bench.random({4, 64}))),
        u(bench.upload(bench.random({16, 4, 64}, 0.1))),
        generated(bench.upload(bench.random({256, 16}))) {
    std::vector<std::int64_t> far(256);
    for (std::size_t i = 0; i < far.size(); ++i)
      far[i] = std::min<std::int64_t>(7, static_cast<std::int64_t>(i));
    reach = bench.upload(bench.host().indices(far));
  }
  std::function<void()> body() {
    return [this] {
      const Context context = bench.gpu();
      for (int i = 0; i < 2; ++i) {
        ops::conv_forward(context, y, x, {s, u, generated}, shape, {1, 256, reach, {}});
        ops::conv_forward(context, z, y, {s, u, generated}, shape, {1, 256, reach, {}});
        ops::matmul(context, y, z, Transpose::no, w, Transpose::no);
        ops::rmsnorm_forward(context, z, rstd, y, norm, 1e-5);
      }
    };
  }
};

TEST_F(RecordingOnGpu, AGraphGivesTheBitsOfItsOperations) {
  for (const DType dtype : {DType::bf16, DType::f32}) {
    DeviceBench bench(dtype);
    Chain chain(bench);
    chain.body()();
    const auto first = bench.download(chain.z);
    RecordedRegion region(bench.backend());
    for (int i = 0; i < kPlain + 3; ++i) {
      bench.backend().fill(chain.z, std::numeric_limits<double>::quiet_NaN());
      region.run({}, chain.body());
      EXPECT_EQ(region.replayed(), i >= kPlain) << region.status();
      EXPECT_EQ(bench.download(chain.z), first);
    }
    EXPECT_NE(region.status().find("a CUDA graph of "), std::string::npos) << region.status();
    // Other values in the same memory.
    bench.backend().copy(chain.x, bench.upload(bench.random({256, 64})));
    region.run({}, chain.body());
    EXPECT_TRUE(region.replayed());
    const auto replayed = bench.download(chain.z);
    EXPECT_NE(replayed, first);
    chain.body()();
    EXPECT_EQ(bench.download(chain.z), replayed);
  }
}

// Where kernels may overlap at all (compute capability 9.0), a graph keeps it.
TEST_F(RecordingOnGpu, KernelsOfAGraphOverlapAsThoseOfAStreamDo) {
  DeviceBench bench(DType::bf16);
  Chain chain(bench);
  chain.body()();
  const std::string text = bench.backend().record(chain.body())->description();
  const std::string card = cuda_device_info(0).name;
  if (card.find("H100") == std::string::npos && card.find("H200") == std::string::npos) {
    GTEST_SKIP() << "no Hopper card but " << card << ": " << text;
  }
  EXPECT_EQ(text.find(" 0 of which"), std::string::npos) << text;
}

TEST_F(RecordingOnGpu, WhatMovesTheWorkspaceIsRecordedAgain) {
  const auto own = make_cuda_backend(NumericsMode::fast, 0);
  const auto gradient = [&](std::int64_t rows) {
    return std::array{OwnedTensor(*own, DType::f32, {8, 16}),
                      OwnedTensor(*own, DType::f32, {rows, 16}),
                      OwnedTensor(*own, DType::i32, {rows})};
  };
  const auto small = gradient(100), large = gradient(50000);
  own->fill(small[1].view(), 1);
  const auto body = [&] {
    own->embedding_backward(small[0].view(), small[1].view(), small[2].view(), {0, 8});
  };
  RecordedRegion region(*own);
  for (int i = 0; i < kPlain + 1; ++i) region.run({}, body);
  ASSERT_TRUE(region.replayed()) << region.status();
  own->embedding_backward(large[0].view(), large[1].view(), large[2].view(), {0, 8});
  region.run({}, body);
  region.run({}, body);
  EXPECT_TRUE(region.replayed()) << region.status();
  float sum = 0;  // of 100 rows of token 0, each time
  own->copy(Tensor(&sum, DType::f32, DeviceKind::cpu, {1}),
            Tensor(small[0].view().data(), DType::f32, DeviceKind::cuda, {1}));
  EXPECT_EQ(sum, 100.0f * (kPlain + 3));
}

TEST_F(RecordingOnGpu, WhatNeedsTheHostIsRefusedAndNothingElseIsLost) {
  DeviceBench bench(DType::f32);
  Chain chain(bench);
  chain.body()();
  const auto expected = bench.download(chain.z);
  Backend& gpu = bench.backend();
  float host = 0;
  const Tensor there(&host, DType::f32, DeviceKind::cpu, {1});
  const Tensor here(chain.x.data(), DType::f32, DeviceKind::cuda, {1});
  const std::vector<std::pair<std::string, std::function<void()>>> refused = {
      {"values travel", [&] { gpu.copy(there, here); }},
      {"values travel", [&] { gpu.copy(here, there); }},
      {"the host waits", [&] { gpu.synchronize(); }},
      {"memory is allocated", [&] { gpu.allocate_zeroed(16); }},
      {"another region", [&] { gpu.record([] {}); }},
  };
  for (const auto& [message, asked] : refused) {
    const std::function<void()>& what = asked;
    const std::string text = refusal_of(gpu, [&] {
      chain.body()();
      what();
    });
    EXPECT_NE(text.find(message), std::string::npos) << text;
    gpu.fill(chain.z, 0);
    chain.body()();
    EXPECT_EQ(bench.download(chain.z), expected) << "after: " << message;
  }
}

// The scale of a loss in memory: the bits of the same number given by the host.
TEST_F(RecordingOnGpu, AScalarInMemoryGivesTheBitsOfAKnownOne) {
  for (const DType dtype : kAllDtypes) {
    DeviceBench bench(dtype);
    const Tensor logits = bench.upload(bench.random({37, 512}));
    std::vector<std::int64_t> classes(37);
    for (std::size_t i = 0; i < classes.size(); ++i) {
      classes[i] = i % 5 == 0 ? -1 : static_cast<std::int64_t>(i * 13);
    }
    const Tensor targets = bench.upload(bench.host().indices(classes));
    const Tensor losses = bench.output_as(DType::f64, std::array<std::int64_t, 1>{37});
    const Tensor statistics = bench.output_as(wide_of(dtype), std::array<std::int64_t, 2>{37, 3});
    const Tensor scale = bench.output_as(DType::f64, std::array<std::int64_t, 1>{1});
    const Tensor known = bench.output({37, 512}), read = bench.output({37, 512});
    for (const double value : {1.0, 1.0 / 3, 1.0 / 524287}) {
      bench.backend().fill(scale, value);
      for (const Tensor& t : {known, read}) bench.backend().copy(t, logits);
      bench.backend().cross_entropy(losses, statistics, known, targets, value);
      bench.backend().cross_entropy(losses, statistics, read, targets, Scalar(scale));
      EXPECT_EQ(bench.download(read), bench.download(known));
      for (const Tensor& t : {known, read}) bench.backend().copy(t, logits);
      bench.backend().cross_entropy_backward(known, statistics, targets, 0, value);
      bench.backend().cross_entropy_backward(read, statistics, targets, 0, Scalar(scale));
      EXPECT_EQ(bench.download(read), bench.download(known));
    }
  }
}

}  // namespace
}  // namespace convoy::test
