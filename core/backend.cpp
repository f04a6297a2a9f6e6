#include "core/backend.h"

#include <algorithm>
#include <chrono>
#include <vector>

namespace convoy {

namespace {
struct AlreadyThere final : Arrival {
  void wait() override {}
};
}  // namespace

std::unique_ptr<Arrival> Backend::copy_behind(Tensor host, Tensor source) {
  copy(host, source);
  return std::make_unique<AlreadyThere>();
}

std::unique_ptr<Recording> Backend::record(const std::function<void()>& /*body*/) {
  throw Error(concat("the backend ", name(), " records nothing"));
}

double Backend::seconds_of(int repeats, const std::function<void()>& body) {
  using Clock = std::chrono::steady_clock;
  CHECK(repeats > 0, repeats, " measurements");
  body();
  synchronize();
  std::vector<double> seconds;
  for (int i = 0; i < repeats; ++i) {
    const auto start = Clock::now();
    body();
    synchronize();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  const auto middle = seconds.begin() + repeats / 2;
  std::nth_element(seconds.begin(), middle, seconds.end());
  return *middle;
}

}  // namespace convoy
