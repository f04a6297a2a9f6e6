#include "launch/overlap_workload.h"

#include "core/random.h"
#include "launch/device_batch.h"
#include "launch/gradient_sums.h"
#include "models/mlp.h"

namespace convoy {
namespace {

constexpr std::uint64_t kSeed = 5;
constexpr DType kDtype = DType::f32;
constexpr auto kAllConvSites = std::array{ConvSite::q,    ConvSite::k,  ConvSite::v,   ConvSite::o,
                                          ConvSite::gate, ConvSite::up, ConvSite::down};

struct Sizes {
  std::int64_t sequences, length;
};

ModelConfig layer_model() {
  ModelConfig m;
  m.d_model = 256;
  m.n_heads = 4;
  m.d_ff = 704;
  m.n_layers = 1;
  m.conv.kind = FilterKind::lowrank;
  m.conv.on.assign(kAllConvSites.begin(), kAllConvSites.end());
  m.conv.init = ConvInit::normal;
  return m;
}

ModelConfig deep_model() {
  ModelConfig m;
  m.d_model = 128;
  m.n_heads = 4;
  m.d_ff = 352;
  m.n_layers = 10;
  return m;
}

Sharding sharding_over(CoSchedule what, Communicator& pair, Overlap overlap) {
  Communicator& alone = one_rank().tp;
  Sharding s{alone, alone, alone, SequenceParallel::no, overlap, {}, {}, {}};
  switch (what) {
    case CoSchedule::halo: {
      Sharding cp{alone, pair, pair, SequenceParallel::no, overlap, {}, {}, {}};
      cp.mesh.cp = 2;
      cp.position.cp = pair.rank();
      return cp;
    }
    case CoSchedule::sequence_gather:
    case CoSchedule::weight_gradients: {
      Sharding tp{pair, alone, pair, SequenceParallel::yes, overlap, {}, {}, {}};
      tp.mesh.tp = 2;
      tp.position.tp = pair.rank();
      return tp;
    }
    case CoSchedule::gradient_buckets: break;
  }
  return s;
}

void append(std::vector<float>& all, const Tensor& tensor) {
  for (std::int64_t row = 0; row < tensor.rows(); ++row) {
    const float* values = tensor.row<float>(row);
    all.insert(all.end(), values, values + tensor.cols());
  }
}

// What all workloads have: parameters, a batch, memory.
class Rig : public OverlapWorkload {
 protected:
  Rig(const ModelConfig& model, const Sizes& sizes, const Sharding& sharding, Backend& backend)
      : model_(model),
        sizes_(sizes),
        sharding_(sharding),
        backend_(backend),
        store_(sharding.mesh, sharding.position),
        arena_(backend, "overlap", kArenaBytes),
        batch_(backend, sizes.sequences, sizes.length, sharding) {
    Batch batch(sizes.sequences, sizes.length);
    const RandomStream random(kSeed, "tokens");
    for (std::size_t i = 0; i < batch.tokens.size(); ++i) {
      batch.tokens[i] = static_cast<std::int32_t>(random.bits(i)[0] % model.vocab);
      batch.targets[i] = static_cast<std::int32_t>(random.bits(i)[1] % model.vocab);
      batch.document_start[i] = 0;
    }
    batch_.load(batch);
  }

  Context context() { return {backend_, arena_, kDtype, BackwardParts::together}; }
  const BatchView& batch() const { return batch_.view(); }
  // Rows that lie outside of the arena, drawn anew for each name.
  OwnedTensor random_rows(std::int64_t rows, std::int64_t columns, const char* name) {
    OwnedTensor tensor(backend_, kDtype, {rows, columns});
    const RandomStream random(kSeed, name);
    float* values = tensor.view().data<float>();
    for (std::int64_t i = 0; i < rows * columns; ++i) {
      values[i] = static_cast<float>(random.normal(static_cast<std::uint64_t>(i)));
    }
    return tensor;
  }

  static constexpr std::size_t kArenaBytes = std::size_t{256} << 20;
  ModelConfig model_;
  Sizes sizes_;
  Sharding sharding_;
  Backend& backend_;
  ParameterStore store_;
  Arena arena_;
  DeviceBatch batch_;
};

constexpr Sizes kLayerSizes = {4, 1024};

// q, k, v with their convolutions: forward, and under context parallelism backward as well, where
// the halo's gradient returns.
class ProjectionWorkload final : public Rig {
 public:
  ProjectionWorkload(CoSchedule what, const Sharding& sharding, Backend& backend)
      : Rig(layer_model(), kLayerSizes, sharding, backend),
        backward_(what == CoSchedule::halo),
        qkv_(store_, model_, sharding, SplitBy::outputs, "",
             {{ConvSite::q, 0.02}, {ConvSite::k, 0.02}, {ConvSite::v, 0.02}}),
        x_(random_rows(batch().own_rows(), model_.d_model, "x")),
        dx_(random_rows(batch().own_rows(), model_.d_model, "dx")) {
    store_.allocate(backend, kDtype);
    store_.initialize(kSeed);
  }

  void prepare() override {
    arena_.release(0);
    saved_ = {};
  }
  void run() override {
    Context context = this->context();
    context.parts = BackwardParts::apart;
    qkv_.forward(context, batch(), x_.view(), saved_);
    if (!backward_) return;
    qkv_.prepare_backward(context, saved_);
    for (std::size_t i = 0; i < saved_.outputs.size(); ++i) {
      backend_.copy(saved_.doutputs[i], saved_.outputs[i]);
    }
    qkv_.backward_input(context, batch(), dx_.view(), saved_);
  }
  std::vector<float> result() const override {
    std::vector<float> all;
    for (const Tensor& y : saved_.outputs) append(all, y);
    if (backward_) append(all, dx_.view());
    return all;
  }

 private:
  bool backward_;
  Projection qkv_;
  OwnedTensor x_, dx_;
  Projection::Saved saved_;
};

// The backward pass of an MLP.
class MlpWorkload final : public Rig {
 public:
  MlpWorkload(const Sharding& sharding, Backend& backend)
      : Rig(layer_model(), kLayerSizes, sharding, backend),
        mlp_(store_, model_, sharding, ""),
        x_(random_rows(batch().own_rows(), model_.d_model, "x")),
        dy_(random_rows(batch().own_rows(), model_.d_model, "dy")),
        dx_(random_rows(batch().own_rows(), model_.d_model, "dx")) {
    store_.allocate(backend, kDtype);
    store_.initialize(kSeed);
  }

  void prepare() override {
    arena_.release(0);
    saved_ = {};
    store_.zero_gradients();
    mlp_.forward(context(), batch(), x_.view(), saved_);
  }
  void run() override {
    mlp_.backward_input(context(), batch(), dx_.view(), dy_.view(), saved_);
    mlp_.backward_weight(context(), batch(), saved_);
  }
  std::vector<float> result() const override {
    std::vector<float> all;
    append(all, dx_.view());
    for (const auto& parameter : store_.all()) append(all, parameter.gradient);
    return all;
  }

 private:
  Mlp mlp_;
  OwnedTensor x_, dy_, dx_;
  Mlp::Saved saved_;
};

ParameterStore& divided(ParameterStore& store) {
  store.divide_buckets(2);
  return store;
}

// A micro-batch of a whole model on each of two data parallel ranks.
class ModelWorkload final : public Rig {
 public:
  ModelWorkload(const Sharding& sharding, Communicator& pair, Backend& backend, NumericsMode mode,
                Overlap overlap)
      : Rig(deep_model(), {2, 256}, sharding, backend),
        stage_(divided(store_), model_, ModelPiece::whole(model_), 0, sharding),
        losses_(backend, DType::f64, {batch().rows()}),
        rows_{random_rows(batch().rows(), model_.d_model, "rows"),
              random_rows(batch().rows(), model_.d_model, "more rows")} {
    GradientSumOptions options{mode, 0, pair.rank(), {{0, 1}, {1, 2}}, overlap};
    store_.allocate(backend, kDtype, {true, GradientSums::wants_gradient_buffer(options)});
    store_.initialize(kSeed);
    sums_ = make_gradient_sums(backend, store_, pair, options);
  }

  void prepare() override {
    arena_.release(0);
    saved_ = {};
  }
  void run() override {
    const Context context = this->context();
    const TransformerStage::Pass pass{context, batch(), saved_};
    sums_->begin_step();
    sums_->visit(0);
    stage_.forward(pass, {}, {});
    stage_.backward(pass, {{}, {}, losses_.view(), 1.0 / static_cast<double>(batch().rows())},
                    {context, {rows_[0].view(), rows_[1].view()}}, *sums_);
    sums_->finish();
  }
  std::vector<float> result() const override {
    std::vector<float> all;
    for (std::size_t i = 0; i < store_.buckets().size(); ++i) append(all, sums_->total(i));
    return all;
  }

 private:
  TransformerStage stage_;
  OwnedTensor losses_;
  std::array<OwnedTensor, 2> rows_;
  std::unique_ptr<GradientSums> sums_;
  TransformerStage::Saved saved_;
};

}  // namespace

std::string_view name_of(CoSchedule what) {
  switch (what) {
    case CoSchedule::halo: return "halo";
    case CoSchedule::sequence_gather: return "sequence_gather";
    case CoSchedule::weight_gradients: return "weight_gradients";
    case CoSchedule::gradient_buckets: return "gradient_buckets";
  }
  return "?";
}

std::string_view described(CoSchedule what) {
  switch (what) {
    case CoSchedule::halo: return "A halo and its gradient travel under the interior rows";
    case CoSchedule::sequence_gather:
      return "Rows are gathered in chunks under projection and convolution";
    case CoSchedule::weight_gradients:
      return "The input gradient is summed under the weight gradients";
    case CoSchedule::gradient_buckets: return "Gradient buckets are summed under backward";
  }
  return "?";
}

std::optional<Collective> collective_of(CoSchedule what) {
  switch (what) {
    case CoSchedule::halo: return Collective::exchange;
    case CoSchedule::sequence_gather: return Collective::all_gather;
    case CoSchedule::weight_gradients: return Collective::reduce_scatter;
    case CoSchedule::gradient_buckets: return {};
  }
  return {};
}

bool is_cover(CoSchedule what, const Trace::Span& span) {
  return span.kind == Trace::Kind::operation &&
         (what != CoSchedule::halo || span.name.starts_with("conv_"));
}

std::unique_ptr<OverlapWorkload> make_overlap_workload(CoSchedule what, Overlap overlap,
                                                       Communicator& pair, Backend& backend,
                                                       NumericsMode mode) {
  CHECK(pair.size() == 2, "a workload for 2 ranks on ", pair.size());
  const Sharding sharding = sharding_over(what, pair, overlap);
  switch (what) {
    case CoSchedule::weight_gradients: return std::make_unique<MlpWorkload>(sharding, backend);
    case CoSchedule::gradient_buckets:
      return std::make_unique<ModelWorkload>(sharding, pair, backend, mode, overlap);
    case CoSchedule::halo:
    case CoSchedule::sequence_gather: break;
  }
  return std::make_unique<ProjectionWorkload>(what, sharding, backend);
}

}  // namespace convoy
