#include "parallel/null_communicator.h"

namespace convoy {
namespace {

class NullCommunicator final : public Communicator {
 public:
  NullCommunicator(int rank, int size) : rank_(rank), size_(size) {}

  std::string_view name() const override { return "null"; }
  int rank() const override { return rank_; }
  int size() const override { return size_; }

  Work all_reduce(Tensor, Reduction) override { return {}; }
  Work all_gather(Tensor, Tensor) override { return {}; }
  Work reduce_scatter(Tensor, Tensor) override { return {}; }
  Work all_to_all(Tensor, std::span<const std::int64_t>, Tensor,
                  std::span<const std::int64_t>) override {
    return {};
  }
  Work broadcast(Tensor, int) override { return {}; }
  Work exchange(std::span<const Transfer>) override { return {}; }
  void barrier() override {}
  std::unique_ptr<Communicator> split(int) override {
    CHECK(false, "a communicator without peers cannot be split");
  }

 private:
  int rank_, size_;
};

}  // namespace

std::unique_ptr<Communicator> make_null_communicator(const Communicator& like) {
  return make_null_communicator(like.rank(), like.size());
}

std::unique_ptr<Communicator> make_null_communicator(int rank, int size) {
  return std::make_unique<NullCommunicator>(rank, size);
}

}  // namespace convoy
