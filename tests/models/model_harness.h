// A Transformer in f64 (or f32) with random parameters, none of them zero: at initialisation U and
// G are zero, which would hide every mistake in the generators.
#pragma once

#include <gtest/gtest.h>

#include <memory>

#include "core/cpu/cpu_backend.h"
#include "core/random.h"
#include "models/transformer.h"

namespace convoy::test {

inline const std::vector<ConvSite> kAllSites = {ConvSite::q,   ConvSite::k,    ConvSite::v,
                                                ConvSite::o,   ConvSite::gate, ConvSite::up,
                                                ConvSite::down};

inline ModelConfig tiny_model(FilterKind kind = FilterKind::none) {
  ModelConfig m;
  m.vocab = 19;
  m.d_model = 24;
  m.n_layers = 2;
  m.n_heads = 4;
  m.d_ff = 21;
  m.seq_len = 13;
  m.conv.kind = kind;
  m.conv.on = kAllSites;
  m.conv.rank = 5;
  m.conv.head_size = 3;
  return m;
}

// Norms near 1; U, G and s from N(0, 0.1); everything else from N(0, 0.15). By global index, so
// that the shards of a parameter are those of one rank's.
inline void redraw(ParameterStore& store, std::uint64_t seed) {
  for (auto& p : store.all()) {
    const RandomStream random(seed, p.name);
    const bool norm = p.name.find("norm") != std::string::npos;
    const bool conv = p.name.find(".conv.") != std::string::npos;
    dispatch_real(p.value.dtype(), [&]<class T>() {
      for (std::int64_t i = 0; i < p.size(); ++i) {
        const auto index = p.shard.global_index_of(i);
        if (!index) continue;
        const double z = random.normal(static_cast<std::uint64_t>(*index));
        p.value.data<T>()[i] = static_cast<T>(norm ? 1 + 0.2 * z : (conv ? 0.1 : 0.15) * z);
      }
    });
  }
}

inline std::string filter_name(const testing::TestParamInfo<FilterKind>& kind) {
  const std::string names[] = {"none", "fixed", "headwise", "lowrank"};
  return names[static_cast<int>(kind.param)];
}

class ModelHarness {
 public:
  explicit ModelHarness(const ModelConfig& config, std::int64_t sequences = 2,
                        DType dtype = DType::f64, std::int64_t recompute_blocks = 0)
      : backend_(make_cpu_backend(NumericsMode::invariant)),
        arena_(*backend_, "test", std::size_t{128} << 20),
        dtype_(dtype),
        model_(store_, config, recompute_blocks),
        sequences_(sequences),
        losses_(*backend_, DType::f64, {sequences * config.seq_len}) {
    store_.allocate(*backend_, dtype);
    redraw(store_, 7);
    make_batch(config);
  }

  ParameterStore& store() { return store_; }
  const Transformer& model() const { return model_; }
  const BatchView& batch() const { return batch_; }
  Context context() { return {*backend_, arena_, dtype_}; }
  const Tensor& losses() const { return losses_.view(); }  // nats of each row of the last pass

  // Documents of 3, 5, 1 and the rest; every fifth target is masked.
  void make_batch(const ModelConfig& config) {
    const std::int64_t length = config.seq_len;
    const RandomStream random(1, "tokens");
    std::vector<std::int32_t> start(static_cast<std::size_t>(length));
    for (std::int64_t t = 0; t < length; ++t) {
      start[static_cast<std::size_t>(t)] = t < 3 ? 0 : t < 8 ? 3 : t < 9 ? 8 : 9;
    }
    const auto token = [&](std::int64_t i) {
      return static_cast<std::int32_t>(random.bits(static_cast<std::uint64_t>(i))[0] %
                                       static_cast<std::uint32_t>(config.vocab));
    };
    const std::int64_t rows = sequences_ * length;
    const auto make = [&](auto value) {
      Tensor t = arena_.take(DType::i32, {rows});
      for (std::int64_t i = 0; i < rows; ++i) t.data<std::int32_t>()[i] = value(i);
      return t;
    };
    const auto start_of = [&](std::int64_t i) {
      return start[static_cast<std::size_t>(i % length)];
    };
    batch_ = {sequences_,
              length,
              make([&](std::int64_t i) { return token(i); }),
              make([&](std::int64_t i) { return i % 5 == 4 ? -1 : token(i + rows); }),
              make([&](std::int64_t i) { return static_cast<std::int32_t>(i % length); }),
              make(start_of),
              make([&](std::int64_t i) {
                return std::min(static_cast<std::int32_t>(i % length) - start_of(i), 7);
              })};
  }

  // Summed nats, without gradients.
  double loss() {
    model_.evaluate(context(), batch_, losses_.view());
    return total();
  }
  // Adds the gradients of the summed nats of `batch`; returns them.
  double train(const BatchView& batch) {
    const Tensor rows = losses_.view().reshape({losses_.view().size(), 1});
    model_.train(context(), batch, rows.row_range(0, batch.rows()).reshape({batch.rows()}), 1);
    return total();
  }
  double gradients() {
    store_.zero_gradients();
    const double sum = train(batch_);
    store_.add_second_gradients();
    return sum;
  }
  std::vector<double> flat_gradients() const {
    std::vector<double> all;
    for (const auto& p : store_.all()) {
      dispatch_real(p.gradient.dtype(), [&]<class T>() {
        const T* g = p.gradient.data<T>();
        all.insert(all.end(), g, g + p.size());
      });
    }
    return all;
  }

 private:
  double total() const {
    const double* nats = losses_.view().data<double>();
    double sum = 0;
    for (std::int64_t i = 0; i < losses_.view().size(); ++i) sum += nats[i];
    return sum;
  }

  std::unique_ptr<Backend> backend_;
  Arena arena_;
  DType dtype_;
  ParameterStore store_;
  Transformer model_;
  std::int64_t sequences_;
  OwnedTensor losses_;
  BatchView batch_;
};

}  // namespace convoy::test
