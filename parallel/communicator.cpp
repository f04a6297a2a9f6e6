#include "parallel/communicator.h"

#include <cstring>
#include <utility>

namespace convoy {

Work& Work::operator=(Work&& other) noexcept {
  std::swap(pending_, other.pending_);
  return *this;
}

Work::~Work() noexcept(false) {
  // While an exception unwinds, the operation may never complete: its peers see the failure.
  if (pending_ != nullptr && std::uncaught_exceptions() == 0) pending_->wait();
}

bool Work::test() {
  if (pending_ != nullptr && pending_->test()) pending_.reset();
  return pending_ == nullptr;
}

void Work::wait() {
  if (const auto pending = std::exchange(pending_, nullptr)) pending->wait();
}

namespace {

// One rank: every collective is the identity or a copy.
class SelfCommunicator final : public Communicator {
 public:
  std::string_view name() const override { return "self"; }
  int rank() const override { return 0; }
  int size() const override { return 1; }

  Work all_reduce(Tensor, Reduction) override { return {}; }
  Work all_gather(Tensor out, Tensor in) override { return copy(out, in); }
  Work reduce_scatter(Tensor out, Tensor in) override { return copy(out, in); }
  Work all_to_all(Tensor out, std::span<const std::int64_t>, Tensor in,
                  std::span<const std::int64_t>) override {
    return copy(out, in);
  }
  Work broadcast(Tensor, int) override { return {}; }
  Work exchange(std::span<const Transfer> transfers) override {
    CHECK(transfers.empty(), "a lone rank has no peer ", transfers.front().peer);
    return {};
  }
  void barrier() override {}
  std::unique_ptr<Communicator> split(int) override { return make_self_communicator(); }

 private:
  static Work copy(const Tensor& out, const Tensor& in) {
    CHECK(out.bytes() == in.bytes() && out.contiguous() && in.contiguous(), in.describe(), " to ",
          out.describe());
    CHECK(out.device() == DeviceKind::cpu || out.data() == in.data(), out.describe(),
          " is not in host memory: a lone rank on a GPU shares nothing, set parallel.zero = 0");
    if (out.data() != in.data()) std::memcpy(out.data(), in.data(), in.bytes());
    return {};
  }
};

}  // namespace

std::unique_ptr<Communicator> make_self_communicator() {
  return std::make_unique<SelfCommunicator>();
}

}  // namespace convoy
