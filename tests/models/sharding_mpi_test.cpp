// Run by mpirun: a model split over processes gives what each of them computes alone.
#include "parallel/mpi.h"
#include "tests/models/sharding_harness.h"

namespace {

convoy::Communicator* world = nullptr;

}  // namespace

namespace convoy::test {
namespace {

// The gradients of all ranks, put together on each of them.
Tensors summed(const ParameterStore& store, const Sharding& sharding) {
  Tensors whole;
  put_gradients(whole, store, sharding.tp.rank() == 0);
  for (auto& [name, values] : whole) {
    const Tensor view(values.data(), DType::f64, DeviceKind::cpu, {std::ssize(values)});
    world->all_reduce(view, Reduction::sum).wait();
  }
  return whole;
}

TEST(ShardingMpi, ProcessesComputeWhatOneRankDoes) {
  ModelConfig model = tiny_model(FilterKind::lowrank);
  model.d_ff = 24;
  model.seq_len = 16;
  model.qk_norm = true;
  const Task task{model, 2, {{3, 5, 1}, {9, 1}}};
  const Outcome expected = on_one_rank(task);
  const int ranks = world->size();
  for (const Splitting& splitting :
       std::vector<Splitting>{{{.tp = ranks}, SequenceParallel::no},
                              {{.tp = ranks}, SequenceParallel::yes},
                              {{.cp = ranks}, SequenceParallel::no},
                              {{.cp = 2, .tp = ranks / 2}, SequenceParallel::yes}}) {
    SCOPED_TRACE(splitting.describe());
    const Mesh mesh(*world, splitting.mesh);
    const Sharding sharding = sharding_of(mesh, splitting.sequence_parallel);
    RankPass pass(task, sharding);
    pass.train();
    // 1e-12 of the norm: the sums are as long on all ranks as on one.
    for (const auto& [name, gradient] : summed(pass.store(), sharding)) {
      const auto& alone = expected.gradients.at(name);
      EXPECT_LE(distance(alone, gradient), 1e-12 * norm(alone)) << name;
    }
  }
}

}  // namespace
}  // namespace convoy::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const convoy::MpiEnvironment mpi;
  const auto ranks = mpi.world();
  world = ranks.get();
  return RUN_ALL_TESTS();
}
