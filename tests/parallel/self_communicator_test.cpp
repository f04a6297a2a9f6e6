#include "tests/parallel/communicator_suite.h"

namespace convoy::test {
namespace {

TEST(SelfCommunicator, IsTheIdentity) {
  const auto self = make_self_communicator();
  EXPECT_EQ(self->rank(), 0);
  EXPECT_EQ(self->size(), 1);
  expect_everything(*self);
}

TEST(SelfCommunicator, HasNoPeers) {
  const auto self = make_self_communicator();
  std::vector<double> values = {1};
  const Transfer transfer[] = {{Transfer::Kind::send, view(values), 1}};
  EXPECT_THROW(auto work = self->exchange(transfer), Error);
}

class CountingWait final : public Work::Pending {
 public:
  explicit CountingWait(int& waits) : waits_(waits) {}
  bool test() override { return false; }
  void wait() override { ++waits_; }

 private:
  int& waits_;
};

TEST(Work, IsWaitedForOnceEvenWhereNobodyDoes) {
  int waits = 0;
  { const Work forgotten(std::make_unique<CountingWait>(waits)); }
  EXPECT_EQ(waits, 1);
  Work work(std::make_unique<CountingWait>(waits));
  Work moved = std::move(work);
  EXPECT_FALSE(moved.test());
  moved.wait();
  moved.wait();
  EXPECT_EQ(waits, 2);
  EXPECT_TRUE(moved.test());
}

}  // namespace
}  // namespace convoy::test
