// For tests of operations on a GPU against the CPU reference in f64: inputs are drawn on the host,
// rounded to the dtype under test on both sides, and uploaded; outputs are poisoned with NaN; the
// difference must stay below a bound computed from dtype, number of terms and magnitudes.
#pragma once

#include "core/device.h"
#include "tests/core/op_test_tools.h"

namespace convoy::test {

constexpr DType kAllDtypes[] = {DType::bf16, DType::f32, DType::f64};

// The dtype that sums and statistics are kept in.
constexpr DType wide_of(DType dtype) { return dtype == DType::f64 ? DType::f64 : DType::f32; }

inline double rounded(double value, DType dtype) {
  if (dtype == DType::f64) return value;
  const auto single = static_cast<float>(value);
  return static_cast<double>(dtype == DType::f32 ? single : static_cast<float>(BF16(single)));
}

// Skips where there is no GPU, says so, and frees what a test put on it.
class GpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "there is no GPU here: left out";
  }
};

// One backend a mode for all tests: making one costs more than most tests do.
inline Backend& shared_gpu(NumericsMode mode) {
  static const auto fast = make_cuda_backend(NumericsMode::fast, 0);
  static const auto invariant = make_cuda_backend(NumericsMode::invariant, 0);
  return mode == NumericsMode::fast ? *fast : *invariant;
}

class DeviceBench {
 public:
  explicit DeviceBench(DType dtype, NumericsMode mode = NumericsMode::fast)
      : dtype_(dtype),
        host_(DType::f64, NumericsMode::fast),
        gpu_(shared_gpu(mode)),
        arena_(gpu_, "gpu test", std::size_t{64} << 20) {}

  DType dtype() const { return dtype_; }
  Workbench& host() { return host_; }
  Context cpu() { return host_.context(); }
  Context gpu() { return {gpu_, arena_, dtype_}; }
  Backend& backend() { return gpu_; }

  // N(0, deviation) on the host, rounded to the dtype under test.
  Tensor random(std::initializer_list<std::int64_t> shape, double deviation = 1) {
    return random_as(dtype_, shape, deviation);
  }
  Tensor random_as(DType dtype, std::initializer_list<std::int64_t> shape, double deviation = 1) {
    Tensor t = host_.random(shape, deviation);
    round_to(t, dtype);
    return t;
  }
  static void round_to(const Tensor& t, DType dtype) {
    Workbench::for_each(
        t, [&](std::int64_t, std::int64_t, double old) { return rounded(old, dtype); });
  }
  Tensor magnitude(const Tensor& t) {
    Tensor copy = host_.output({t.rows(), t.cols()});
    Workbench::for_each(
        copy, [&](std::int64_t i, std::int64_t j, double) { return std::abs(at(t, i, j)); });
    return reshaped(copy, t);
  }

  // How many columns more than its own the rows of a strided tensor lie apart, 8 or more.
  void set_extra_columns(std::int64_t extra) { extra_columns_ = extra; }

  // A poisoned device tensor, in columns of a wider one where `layout` says so.
  Tensor output_as(DType dtype, std::span<const std::int64_t> shape,
                   Layout layout = Layout::contiguous) {
    const Tensor model(nullptr, dtype, DeviceKind::cuda, shape);
    const std::int64_t extra = layout == Layout::strided ? extra_columns_ : 0;
    Tensor wide = arena_.take(dtype, {model.rows(), model.cols() + extra});
    gpu_.fill(wide, std::numeric_limits<double>::quiet_NaN());
    if (layout == Layout::strided) return wide.column_range(8, model.cols());
    return Tensor(wide.data(), dtype, DeviceKind::cuda, shape);
  }
  Tensor output(std::initializer_list<std::int64_t> shape, Layout layout = Layout::contiguous) {
    return output_as(dtype_, std::span(shape.begin(), shape.size()), layout);
  }
  // A host tensor's values on the device; i32 stays i32.
  Tensor upload(const Tensor& t, Layout layout = Layout::contiguous) {
    return upload_as(dtype_, t, layout);
  }
  Tensor upload_as(DType dtype, const Tensor& t, Layout layout = Layout::contiguous) {
    if (t.empty()) return {};
    if (t.dtype() == DType::i32) {
      Tensor on_device = arena_.take(DType::i32, {t.size()});
      gpu_.copy(on_device, t);
      return on_device;
    }
    Tensor on_device = output_as(dtype, t.shape(), layout);
    gpu_.convert(on_device, t);
    return on_device;
  }
  std::vector<double> download(const Tensor& t) {
    std::vector<double> host(static_cast<std::size_t>(t.size()));
    gpu_.convert(Tensor(host.data(), DType::f64, DeviceKind::cpu, {t.rows(), t.cols()}), t);
    return host;
  }

  // |device - expected| <= bound(row, column) everywhere.
  template <class Bound>
  void expect_near(const Tensor& device, const Tensor& expected, Bound&& bound,
                   const std::string& what) {
    const std::vector<double> found = download(device);
    std::size_t place = 0;
    for (std::int64_t i = 0; i < expected.rows(); ++i) {
      for (std::int64_t j = 0; j < expected.cols(); ++j, ++place) {
        ASSERT_NEAR(found[place], at(expected, i, j), bound(i, j))
            << what << " in " << name_of(device.dtype()) << " at (" << i << ", " << j << ") of "
            << expected.describe();
      }
    }
  }
  // For sums of `terms` products whose magnitudes add up to `magnitude`: their roundings in the
  // wide dtype on both sides, `inner` roundings of each product to the dtype, and that of the
  // output.
  void expect_sum(const Tensor& device, const Tensor& expected, const Tensor& magnitude,
                  std::int64_t terms, double inner, const std::string& what) {
    const double u = unit_roundoff(wide_of(dtype_)) + unit_roundoff(DType::f64);
    const double low = unit_roundoff(dtype_), out = unit_roundoff(device.dtype());
    expect_near(
        device, expected,
        [&](std::int64_t i, std::int64_t j) {
          const double m = at(magnitude, i, j);
          const double error = (static_cast<double>(terms + 8) * u + inner * low) * m;
          return error + out * (std::abs(at(expected, i, j)) + error);
        },
        what);
  }

 private:
  static Tensor reshaped(const Tensor& t, const Tensor& like) {
    return {t.data(), t.dtype(), t.device(), like.shape()};
  }

  DType dtype_;
  Workbench host_;
  Backend& gpu_;
  Arena arena_;
  std::int64_t extra_columns_ = 24;
};

}  // namespace convoy::test
