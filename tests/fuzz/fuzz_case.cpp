#include "tests/fuzz/fuzz_case.h"

#include <vector>

#include "core/random.h"
#include "data/byte_tokenizer.h"
#include "data/token_file_writer.h"
#include "launch/layout.h"

namespace convoy::test {
namespace {

class Draw {
 public:
  explicit Draw(std::uint64_t seed) : random_(seed, "fuzz") {}

  std::int64_t below(std::int64_t end) {
    return static_cast<std::int64_t>(random_.bits(next_++)[0] % static_cast<std::uint32_t>(end));
  }
  bool chance(std::int64_t one_in) { return below(one_in) == 0; }
  template <class T>
  T of(const std::vector<T>& values) {
    return values[static_cast<std::size_t>(below(std::ssize(values)))];
  }

 private:
  RandomStream random_;
  std::uint64_t next_ = 0;
};

void draw_conv(Draw& draw, ConvConfig& conv) {
  conv.kind = draw.of<FilterKind>({FilterKind::none, FilterKind::fixed, FilterKind::headwise,
                                   FilterKind::headwise, FilterKind::lowrank, FilterKind::lowrank,
                                   FilterKind::lowrank});
  conv.on.clear();
  for (int site = 0; site < 7; ++site) {
    if (draw.chance(2)) conv.on.push_back(static_cast<ConvSite>(site));
  }
  if (conv.on.empty()) conv.on = default_conv_sites();
  conv.width = static_cast<int>(1 + draw.below(8));
  conv.rank = 1 + draw.below(4);
  conv.head_size = draw.of<std::int64_t>({1, 2, 4});
  conv.residual = !draw.chance(3);
  conv.init = ConvInit::normal;
}

void draw_model(Draw& draw, ModelConfig& model) {
  model.n_heads = draw.of<std::int64_t>({2, 4});
  model.n_kv_heads = draw.chance(2) ? model.n_heads : draw.of<std::int64_t>({1, 2});
  model.d_model = model.n_heads * draw.of<std::int64_t>({2, 4, 6});
  model.d_ff = draw.of<std::int64_t>({8, 12, 20});
  model.n_layers = 1 + draw.below(8);
  model.vocab = 257 + draw.below(6);
  model.seq_len = draw.of<std::int64_t>({1, 4, 8, 12, 16, 24, 48});
  model.qk_norm = draw.chance(2);
  model.tie_embeddings = draw.chance(2);
  model.depth_scaled_init = draw.chance(3);
  model.init_std = 0.1;
  draw_conv(draw, model.conv);
}

ParallelConfig draw_layout(Draw& draw) {
  ParallelConfig parallel;
  parallel.dp = draw.of<std::int64_t>({1, 1, 2, 2, 3, 4});
  parallel.pp = draw.of<std::int64_t>({1, 1, 2, 3, 4});
  const bool inside = draw.chance(2);
  parallel.tp = inside ? draw.of<std::int64_t>({1, 2, 2, 4}) : 1;
  parallel.cp = inside ? draw.of<std::int64_t>({1, 1, 2, 3}) : 1;
  parallel.sequence_parallel = parallel.tp > 1 && draw.chance(2);
  parallel.schedule = draw.of<std::string>({"gpipe", "1f1b", "interleaved", "zb-h1", "zb-v"});
  if (parallel.schedule == "interleaved") {
    parallel.virtual_stages = draw.of<std::int64_t>({0, 2, 3});
  }
  parallel.zero = draw.below(4);
  parallel.recompute = draw.chance(3) ? "block" : "none";
  return parallel;
}

RunConfig draw_config(Draw& draw, const ParallelConfig& parallel, const FuzzData& data) {
  RunConfig config;
  config.origin = "a fuzzed configuration";
  draw_model(draw, config.model);
  config.parallel = parallel;
  config.train.steps = 2;
  config.train.micro_batch = 1 + draw.below(2);
  const std::int64_t count = config.parallel.dp * (1 + draw.below(5));
  config.train.batch_tokens = count * config.train.micro_batch * config.model.seq_len;
  config.train.seed = draw.below(1000);
  config.train.precision = "f64";
  config.numerics = draw.chance(4) ? NumericsMode::fast : NumericsMode::invariant;
  config.optimizer.clip = draw.chance(2) ? 0.5 : 1e3;
  config.optimizer.eps = 1e-6;  // of the size of gradients that are rounding alone, or larger
  config.data.pack = draw.chance(4) ? "stream" : "documents";
  config.data.seed = draw.below(1000);
  // A window of one token has no target but where documents are not told apart.
  if (config.model.seq_len == 1) config.data.pack = "stream";
  config.data.train = {data.file(static_cast<std::uint64_t>(draw.below(FuzzData::kFiles)))};
  return config;
}

}  // namespace

FuzzCase draw_case(std::uint64_t seed, int most_ranks, const FuzzData& data) {
  constexpr int kModels =
      500;  // tried on a layout, so that those that few models fit are drawn too
  Draw draw(seed);
  while (true) {
    const ParallelConfig p = draw_layout(draw);
    const int ranks = static_cast<int>(p.dp * p.pp * p.tp * p.cp);
    for (int i = 0; i < kModels && ranks <= most_ranks; ++i) {
      const RunConfig config = draw_config(draw, p, data);
      if (problems_of(config, ranks).empty()) return {config, ranks};
    }
  }
}

RunConfig on_one_rank(const RunConfig& config) {
  RunConfig alone = config;
  alone.parallel = {};
  alone.numerics = NumericsMode::invariant;
  return alone;
}

std::string FuzzCase::describe() const {
  const auto& m = config.model;
  const auto& p = config.parallel;
  const MeshShape mesh = mesh_shape(config, ranks);
  return concat(m.label(), "; ", m.n_layers, " layers, D ", m.d_model, ", heads ", m.n_heads, "/",
                m.kv_heads(), ", T ", m.seq_len, m.tie_embeddings ? ", tied" : "",
                m.qk_norm ? ", qk norm" : "", "; ", mesh.describe(),
                p.sequence_parallel ? " sp" : "", ", zero ", p.zero, ", ", p.schedule,
                p.virtual_stages > 0 ? concat(" v", p.virtual_stages) : "", ", recompute ",
                p.recompute, ", ", micro_batches(config), " micro-batches",
                config.numerics == NumericsMode::fast ? ", fast" : "");
}

FuzzData::FuzzData(const std::filesystem::path& folder) : folder_(folder) {
  const ByteTokenizer tokenizer;
  for (std::uint64_t number = 0; number < kFiles; ++number) {
    const RandomStream random(number, "documents");
    TokenFileWriter writer(file(number), tokenizer);
    const std::uint32_t longest = number == 0 ? 3 : number == 1 ? 12 : 90;
    for (std::uint64_t document = 0; writer.tokens() < 600; ++document) {
      std::vector<std::int32_t> tokens(1 + random.bits(document)[0] % longest);
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        tokens[i] = static_cast<std::int32_t>(random.bits(10000 + 100 * document + i)[0] % 257);
      }
      writer.add_document(tokens);
    }
    writer.finish("sum");
  }
}

std::string FuzzData::file(std::uint64_t number) const {
  return (folder_ / concat("documents_", number, ".h5")).string();
}

}  // namespace convoy::test
