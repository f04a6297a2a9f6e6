#include "launch/stop_signal.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <csignal>
#include <thread>
#include <vector>

#include "core/cpu/cpu_backend.h"

namespace convoy::test {
namespace {

Tensor matrix(std::vector<float>& values, std::int64_t columns) {
  return {values.data(),
          DType::f32,
          DeviceKind::cpu,
          {static_cast<std::int64_t>(values.size()) / columns, columns}};
}

// A matmul library may use the stack pointer for its own ends; then a handler that ran on "the
// stack" would damage whatever the pointer was aimed at.
TEST(StopSignal, InTheMiddleOfAMatmulChangesNothing) {
  constexpr std::int64_t kRows = 64, kInner = 512;
  constexpr int kMatmuls = 2000;
  const auto backend = make_cpu_backend(NumericsMode::fast);
  std::vector<float> a(kRows * kInner, 0.5f), b(kRows * kInner, 0.25f), first(kRows * kRows);
  const auto multiply = [&](std::vector<float>& c) {
    backend->matmul(matrix(c, kRows), matrix(a, kInner), Transpose::no, matrix(b, kInner),
                    Transpose::yes, Accumulate::no);
  };
  install_stop_signals();
  EXPECT_FALSE(stop_requested());
  multiply(first);
  std::atomic<bool> done = false;
  std::thread sender([&, computing = pthread_self()] {
    while (!done) pthread_kill(computing, SIGUSR1);
  });
  int wrong = 0;
  for (int i = 0; i < kMatmuls; ++i) {
    std::vector<float> c(kRows * kRows);
    multiply(c);
    wrong += c != first;
  }
  done = true;
  sender.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_TRUE(stop_requested());
}

}  // namespace
}  // namespace convoy::test
