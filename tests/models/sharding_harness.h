// One training pass of a model on one rank and on many, as threads; what the many found, put
// together as one rank would have it: every gradient under its global shape, every row's loss.
#pragma once

#include <cmath>
#include <map>
#include <numeric>
#include <optional>
#include <span>

#include "models/batch_rows.h"
#include "parallel/thread_communicator.h"
#include "tests/models/model_harness.h"

namespace convoy::test {

struct Splitting {
  MeshShape mesh;
  SequenceParallel sequence_parallel = SequenceParallel::no;
  Overlap overlap = Overlap::yes;
  GatherChunks gather = {};

  std::string describe() const {
    return mesh.describe() +
           (sequence_parallel == SequenceParallel::yes ? " with sequence parallel" : "");
  }
};

// What is computed: a model, a batch of it, and how.
struct Task {
  ModelConfig model;
  std::int64_t sequences = 2;
  std::vector<std::vector<std::int64_t>> documents;  // lengths, of each sequence; the last is open
  DType dtype = DType::f64;
  std::int64_t recompute_blocks = 0;
  std::int64_t length = model.seq_len;
  std::int64_t labels_one_in = 0;  // a label at every so many positions; 0: at four of five
};

// Whether a batch names its labelled rows, so that the head sees them alone.
enum class LabelRowsNamed : bool { no, yes };

// By global name, row-major of the global shape.
using Tensors = std::map<std::string, std::vector<double>>;

struct Outcome {
  Tensors gradients;
  std::vector<double> losses;  // [B*T]
};

struct HostBatch {
  std::vector<std::int32_t> tokens, targets, document_start;

  explicit HostBatch(const Task& task) {
    const RandomStream random(1, "tokens");
    const auto draw = [&](std::int64_t i) {
      return static_cast<std::int32_t>(random.bits(static_cast<std::uint64_t>(i))[0] %
                                       static_cast<std::uint32_t>(task.model.vocab));
    };
    for (std::int64_t b = 0; b < task.sequences; ++b) {
      for (const std::int64_t start : starts_of(task, b)) {
        const auto i = static_cast<std::int64_t>(tokens.size());
        tokens.push_back(draw(i));
        const bool label =
            task.labels_one_in > 0 ? i % task.labels_one_in == task.labels_one_in - 1 : i % 5 != 4;
        targets.push_back(label ? draw(i + (1 << 20)) : -1);
        document_start.push_back(static_cast<std::int32_t>(start));
      }
    }
  }

 private:
  // Of each position the start of its document.
  static std::vector<std::int64_t> starts_of(const Task& task, std::int64_t sequence) {
    std::vector<std::int64_t> starts;
    std::int64_t start = 0;
    if (!task.documents.empty()) {
      const auto n = static_cast<std::size_t>(sequence) % task.documents.size();
      for (const std::int64_t length : task.documents[n]) {
        starts.insert(starts.end(), static_cast<std::size_t>(length), start);
        start += length;
      }
    }
    starts.resize(static_cast<std::size_t>(task.length), start);
    return starts;
  }
};

// One rank's part of a pass.
class RankPass {
 public:
  RankPass(const Task& task, const Sharding& sharding, LabelRowsNamed named = LabelRowsNamed::no)
      : task_(task),
        sharding_(sharding),
        backend_(make_cpu_backend(NumericsMode::invariant)),
        arena_(*backend_, "rank", std::size_t{8} << 20),
        store_(sharding.mesh, sharding.position),
        model_(store_, task.model, task.recompute_blocks, sharding) {
    store_.allocate(*backend_, task.dtype);
    redraw(store_, 7);
    const HostBatch whole(task);
    rows_ = rows_of_rank(
        {task.sequences, task.length, whole.tokens, whole.targets, whole.document_start}, sharding);
    losses_.resize(rows_.tokens.size());
    if (named == LabelRowsNamed::yes) fill_labels(labels_.emplace(), rows_.targets);
  }

  void train() {
    store_.zero_gradients();
    model_.train(context(), batch(), losses(), 1);
    store_.add_second_gradients();
    reduce_partial_gradients(store_, sharding_.tp);
  }
  void evaluate() { model_.evaluate(context(), batch(), losses()); }

  Context context() { return {*backend_, arena_, task_.dtype}; }
  BatchView batch() {
    BatchView batch{rows_.sequences,     rows_.length,          view(rows_.tokens),
                    view(rows_.targets), view(rows_.positions), view(rows_.document_start),
                    view(rows_.reach),   view(rows_.own_reach)};
    if (labels_) batch.labels = {view(labels_->rows), view(labels_->targets), view(labels_->place)};
    return batch;
  }
  ParameterStore& store() { return store_; }
  const Transformer& model() const { return model_; }
  Arena& arena() { return arena_; }

  // This rank's losses by their place in the batch.
  void put_losses(std::vector<double>& all) const {
    const std::int64_t padded = padded_length(task_.length, sharding_);
    const auto indices =
        row_indices(task_.sequences, sharding_.all_rows(padded), sharding_.cp.rank());
    all.resize(static_cast<std::size_t>(task_.sequences * task_.length));
    for (std::size_t i = 0; i < indices.size(); ++i) {
      const std::int64_t position = indices[i] % padded;
      if (position >= task_.length) {
        EXPECT_EQ(losses_[i], 0) << "a padded row counts";
        continue;
      }
      all[static_cast<std::size_t>(indices[i] / padded * task_.length + position)] = losses_[i];
    }
  }

 private:
  static Tensor view(std::vector<std::int32_t>& v) {
    return {v.data(), DType::i32, DeviceKind::cpu, {std::ssize(v)}};
  }
  Tensor losses() { return {losses_.data(), DType::f64, DeviceKind::cpu, {std::ssize(losses_)}}; }

  const Task& task_;
  Sharding sharding_;
  std::unique_ptr<Backend> backend_;
  Arena arena_;
  ParameterStore store_;
  Transformer model_;
  BatchRows rows_;
  std::optional<LabelRows> labels_;
  std::vector<double> losses_;
};

inline std::vector<double> doubles(const Tensor& t) {
  std::vector<double> all;
  dispatch_real(t.dtype(), [&]<class T>() {
    const T* x = t.data<T>();
    all.assign(x, x + t.size());
  });
  return all;
}

// Adds a rank's shards to the whole tensors. Replicas over tp must be equal, bit for bit; the first
// counts. Shards of different cp ranks are shares of a sum.
inline void put_gradients(Tensors& whole, const ParameterStore& store, bool counts) {
  for (const auto& p : store.all()) {
    std::int64_t size = 1;
    for (const auto dim : p.placement.shape) size *= dim;
    auto& target = whole[p.name];
    target.resize(static_cast<std::size_t>(size));
    if (!p.placement.split && !counts) continue;
    const auto values = doubles(p.gradient);
    for (std::int64_t i = 0; i < p.size(); ++i) {
      const auto index = p.shard.global_index_of(i);
      const double value = values[static_cast<std::size_t>(i)];
      if (index) {
        target[static_cast<std::size_t>(*index)] += value;
      } else {
        EXPECT_EQ(value, 0) << "padding of " << p.name << " has a gradient";
      }
    }
  }
}

inline Outcome on_one_rank(const Task& task, LabelRowsNamed named = LabelRowsNamed::no) {
  RankPass pass(task, one_rank(), named);
  pass.train();
  Outcome outcome;
  pass.put_losses(outcome.losses);
  put_gradients(outcome.gradients, pass.store(), true);
  return outcome;
}

// Calls `body` on every rank of a mesh, as threads.
template <class Body>
void on_each_rank(const Splitting& splitting, Body body) {
  run_on_threads(splitting.mesh.ranks(), [&](Communicator& world) {
    const Mesh mesh(world, splitting.mesh);
    Sharding sharding = sharding_of(mesh, splitting.sequence_parallel, splitting.overlap);
    sharding.gather = splitting.gather;
    body(world, sharding);
  });
}

inline Outcome on_ranks(const Task& task, const Splitting& splitting,
                        LabelRowsNamed named = LabelRowsNamed::no) {
  Outcome outcome;
  std::vector<std::vector<Tensors>> replicas(static_cast<std::size_t>(splitting.mesh.cp));
  on_each_rank(splitting, [&](Communicator& world, const Sharding& sharding) {
    RankPass pass(task, sharding, named);
    pass.train();
    for (int turn = 0; turn < world.size(); ++turn) {  // one after the other: the sums are ordered
      world.barrier();
      if (turn != world.rank()) continue;
      if (sharding.tp.rank() == 0) pass.put_losses(outcome.losses);
      put_gradients(outcome.gradients, pass.store(), sharding.tp.rank() == 0);
      Tensors own;
      for (const auto& p : pass.store().all()) {
        if (!p.placement.split) own[p.name] = doubles(p.gradient);
      }
      replicas[static_cast<std::size_t>(sharding.cp.rank())].push_back(std::move(own));
    }
    world.barrier();
  });
  for (const auto& of_tp : replicas) {
    for (const auto& own : of_tp) EXPECT_EQ(own, of_tp.front()) << "replicas over tp differ";
  }
  return outcome;
}

inline double norm(std::span<const double> x) {
  return std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0));
}

inline double distance(std::span<const double> a, std::span<const double> b) {
  EXPECT_EQ(a.size(), b.size());
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum);
}

inline double norm_of_all(const Tensors& tensors) {
  double all = 0;
  for (const auto& [name, values] : tensors) all = std::hypot(all, norm(values));
  return all;
}

// Every tensor within `bound` of the norm of all: where a tensor's own gradient may vanish.
inline void expect_near(const Outcome& expected, const Outcome& actual, double bound) {
  EXPECT_LE(distance(expected.losses, actual.losses), bound * norm(expected.losses));
  ASSERT_EQ(expected.gradients.size(), actual.gradients.size());
  const double all = norm_of_all(expected.gradients);
  for (const auto& [name, gradient] : expected.gradients) {
    EXPECT_LE(distance(gradient, actual.gradients.at(name)), bound * all) << name;
  }
}

// Every tensor within `bound` of its norm.
inline void expect_equal(const Outcome& expected, const Outcome& actual, double bound) {
  EXPECT_LE(distance(expected.losses, actual.losses), bound * norm(expected.losses));
  ASSERT_EQ(expected.gradients.size(), actual.gradients.size());
  for (const auto& [name, gradient] : expected.gradients) {
    ASSERT_GT(norm(gradient), 0) << name << " has no gradient: the test is blind to it";
    EXPECT_LE(distance(gradient, actual.gradients.at(name)), bound * norm(gradient)) << name;
  }
}

}  // namespace convoy::test
