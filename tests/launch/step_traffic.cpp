#include "tests/launch/step_traffic.h"

#include <algorithm>

#include "launch/layout.h"

namespace convoy::test {

std::string described(const Traffic& traffic) {
  std::string text;
  for (const auto& [key, count] : traffic) {
    text += concat(key.first, ' ', name_of(key.second), ": ", count.operations, " operations, ",
                   count.bytes, " bytes\n");
  }
  return text;
}

namespace {

constexpr std::int64_t kAligned = 64;  // elements: where a group of parameters begins
const std::vector<ConvSite> kQkv = {ConvSite::q, ConvSite::k, ConvSite::v};
const std::vector<ConvSite> kGateUp = {ConvSite::gate, ConvSite::up};

std::int64_t rounded_up(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit * unit; }

// The sizes that everything else follows from.
struct Sizes {
  const RunConfig& config;
  const ModelConfig& m = config.model;
  MeshShape mesh;
  MeshPosition at;
  std::int64_t tp = mesh.tp, cp = mesh.cp;
  bool sequence_parallel = config.parallel.sequence_parallel && mesh.tp > 1;
  std::int64_t zero = config.parallel.zero;
  bool invariant = config.numerics == NumericsMode::invariant;
  std::int64_t element = config.train.precision == "f64" ? 8 : 4;  // bytes
  std::int64_t sequences = config.train.micro_batch;
  std::int64_t all_micro_batches = config.train.batch_tokens / (m.seq_len * sequences);
  std::int64_t micro_batches = all_micro_batches / mesh.dp;

  std::int64_t rows() const { return sequences * m.seq_len / cp; }
  std::int64_t own_rows() const { return sequence_parallel ? rows() / tp : rows(); }
  std::int64_t vocabulary() const { return rounded_up(m.vocab, tp) / tp; }
  std::int64_t sharers() const { return std::int64_t{mesh.dp} * mesh.cp; }
  bool on(ConvSite site) const { return m.conv.applies_to(site); }
  bool lowrank(ConvSite site) const { return on(site) && m.conv.kind == FilterKind::lowrank; }
  bool headwise(ConvSite site) const { return on(site) && m.conv.kind == FilterKind::headwise; }
  bool any_on(const std::vector<ConvSite>& sites) const {
    return std::any_of(sites.begin(), sites.end(), [&](ConvSite site) { return on(site); });
  }
};

// Which rank of cp x `parts` has each position of a sequence, by walking over the zigzag's chunks.
std::vector<int> owners(const Sizes& s, std::int64_t parts) {
  const std::int64_t chunks = s.cp > 1 ? 2 * s.cp : 1, chunk = s.m.seq_len / chunks;
  std::vector<int> owner;
  for (std::int64_t t = 0; t < s.m.seq_len; ++t) {
    const std::int64_t c = t / chunk, place = c < s.cp ? c : chunks - 1 - c;
    owner.push_back(static_cast<int>(place * parts + t % chunk / (chunk / parts)));
  }
  return owner;
}

enum class Way { forward, backward };

// Rows that rank `from` gives to others before their segments (or, backward, gives back).
std::int64_t halo_rows(const Sizes& s, std::int64_t parts, int from, Way way) {
  const std::vector<int> owner = owners(s, parts);
  const std::int64_t segment = s.m.seq_len / (s.cp > 1 ? 2 * s.cp : 1) / parts;
  std::int64_t rows = 0;
  for (std::int64_t begin = 0; begin < s.m.seq_len; begin += segment) {
    const int reader = owner[static_cast<std::size_t>(begin)];
    for (auto t = std::max<std::int64_t>(begin - s.m.conv.width + 1, 0); t < begin; ++t) {
      const int has = owner[static_cast<std::size_t>(t)];
      if (has != reader && (way == Way::backward ? reader : has) == from) ++rows;
    }
  }
  return rows * s.sequences;
}

// Parameters of a bucket in the order in which they lie, this rank's shard of each.
struct Parameters {
  struct Item {
    std::int64_t begin, size;
    bool share;  // of a gradient, to be summed over tp
  };
  std::vector<Item> items;
  std::int64_t end = 0;
  bool second = false;  // the gradient of a table through the head: no weights of its own

  void add(std::int64_t size, bool share) {
    end = rounded_up(end, kAligned);
    add_adjacent(size, share);
  }
  void add_adjacent(std::int64_t size, bool share) {
    items.push_back({end, size, share});
    end += size;
  }
  std::int64_t size(std::int64_t sharers) const { return rounded_up(end, kAligned * sharers); }
};

void add_column_split(Parameters& p, const Sizes& s, const std::vector<ConvSite>& sites) {
  const std::int64_t inputs = s.m.d_model;
  for (const ConvSite site : sites) {
    const std::int64_t size = s.m.channels_at(site) / s.tp * inputs;
    site == sites.front() ? p.add(size, false) : p.add_adjacent(size, false);
  }
  for (const ConvSite site : sites) {
    const std::int64_t groups = s.m.channels_at(site) / s.m.conv.head_size;
    if (s.lowrank(site)) p.add_adjacent(s.m.conv.rank * inputs, true);  // A: dz is a share
    if (s.headwise(site)) p.add_adjacent(groups / s.tp * s.m.conv.width * inputs, false);
  }
  for (const ConvSite site : sites) {
    const std::int64_t taps = s.m.conv.width * s.m.channels_at(site) / s.tp;
    if (s.lowrank(site)) p.add(s.m.conv.rank * taps, false);
    if (s.on(site)) p.add(taps, false);
  }
}

void add_row_split(Parameters& p, const Sizes& s, ConvSite site) {
  const std::int64_t inputs = s.m.inputs_at(site) / s.tp, width = s.m.conv.width;
  p.add(s.m.d_model * inputs, false);
  if (s.lowrank(site)) p.add_adjacent(s.m.conv.rank * inputs, false);
  if (s.headwise(site)) p.add_adjacent(s.m.d_model / s.m.conv.head_size * width * inputs, false);
  if (s.lowrank(site)) p.add(s.m.conv.rank * width * s.m.d_model, s.sequence_parallel);
  if (s.on(site)) p.add(width * s.m.d_model, s.sequence_parallel);
}

Parameters block_parameters(const Sizes& s) {
  Parameters p;
  p.add(s.m.d_model, s.sequence_parallel);
  add_column_split(p, s, kQkv);
  add_row_split(p, s, ConvSite::o);
  for (int norm = 0; s.m.qk_norm && norm < 2; ++norm) p.add(s.m.head_width(), true);
  p.add(s.m.d_model, s.sequence_parallel);
  add_column_split(p, s, kGateUp);
  add_row_split(p, s, ConvSite::down);
  return p;
}

struct Stage {
  int index, rank;
  std::int64_t blocks;
  bool first, last;
};

// Layers as evenly as they go: here they divide.
std::vector<Stage> stages_of(const Sizes& s) {
  const std::string& schedule = s.config.parallel.schedule;
  const int pp = s.mesh.pp;
  const int virtual_stages = schedule == "interleaved" || schedule == "zb-v" ? 2 : 1;
  const int count = pp * virtual_stages;
  std::vector<Stage> stages;
  for (int i = 0; i < count; ++i) {
    const int rank = schedule == "zb-v" && i >= pp ? 2 * pp - 1 - i : i % pp;
    stages.push_back({i, rank, s.m.n_layers / count, i == 0, i == count - 1});
  }
  return stages;
}

std::vector<Parameters> buckets_of(const Sizes& s, const Stage& stage) {
  Parameters table, norm;
  table.add(s.vocabulary() * s.m.d_model, false);
  norm.add(s.m.d_model, s.sequence_parallel);
  std::vector<Parameters> buckets;
  if (stage.first) buckets.push_back(table);
  for (std::int64_t i = 0; i < stage.blocks; ++i) buckets.push_back(block_parameters(s));
  if (!stage.last) return buckets;
  buckets.push_back(norm);
  buckets.push_back(table);
  buckets.back().second = s.m.tie_embeddings && stage.first;
  return buckets;
}

// How often a stage's weights come in a step where they are dropped as soon as more than one other
// action stands between two uses.
std::int64_t gathers_of(const Sizes& s, const Stage& stage) {
  const Schedule schedule = make_schedule(pipeline_shape(s.config, s.mesh));
  std::int64_t gathers = 0, others = 2;
  for (const Action& action : schedule.actions[static_cast<std::size_t>(stage.rank)]) {
    if (action.stage != stage.index) {
      ++others;
      continue;
    }
    if (others > 1) ++gathers;
    others = 0;
  }
  return gathers;
}

// The nodes of the tree over all micro-batches that one replica forms alone.
std::int64_t tree_nodes(std::int64_t begin, std::int64_t end) {
  std::int64_t nodes = 0;
  for (; begin < end; ++nodes) {
    std::int64_t size = 1;
    while (begin % (2 * size) == 0 && begin + 2 * size <= end) size *= 2;
    begin += size;
  }
  return nodes;
}

class Table {
 public:
  explicit Table(const Sizes& sizes) : s_(sizes) {
    agreement();
    for (const Stage& stage : stages_of(s_)) {
      if (stage.rank != s_.at.pp) continue;
      for (std::int64_t i = 0; i < s_.micro_batches; ++i) micro_batch(stage);
      for (const Parameters& bucket : buckets_of(s_, stage)) {
        gradients(bucket);
        shares(bucket);
        weights(bucket, stage);
      }
    }
    pipeline();
  }
  Traffic take() { return std::move(traffic_); }

 private:
  void count(const char* group, std::int64_t ranks, Collective collective, std::int64_t bytes) {
    if (ranks == 1) return;
    Count& sum = traffic_[{group, collective}];
    ++sum.operations;
    sum.bytes += bytes;
  }
  void tp(Collective collective, std::int64_t elements) {
    count("tp", s_.tp, collective, elements * s_.element);
  }
  void gradient(Collective collective, std::int64_t elements) {
    count("gradient", s_.sharers(), collective, elements * s_.element);
  }

  // All ranks: whether to stop, the micro-batches' losses, the gradient norm, which is an exact
  // sum of 71 words in invariant mode.
  void agreement() {
    const int ranks = s_.mesh.ranks();
    count("world", ranks, Collective::all_reduce, 4);
    count("world", ranks, Collective::all_reduce, 8 * s_.all_micro_batches);
    count("world", ranks, Collective::all_reduce, s_.invariant ? 8 * 71 : 8);
  }

  // A sum over tp of [rows, width] of which a rank needs its own rows.
  void sum(std::int64_t width) {
    tp(s_.sequence_parallel ? Collective::reduce_scatter : Collective::all_reduce,
       s_.rows() * width);
  }
  void gather(std::int64_t width) {
    if (s_.sequence_parallel) tp(Collective::all_gather, s_.own_rows() * width);
  }

  void micro_batch(const Stage& stage) {
    if (stage.first) {
      sum(s_.m.d_model);
      gather(s_.m.d_model);  // dy
    }
    if (stage.last) {
      gather(s_.m.d_model);
      tp(Collective::all_gather, s_.rows() * 3);  // maximum, sum, target's logit
      sum(s_.m.d_model);
    }
    const bool again = s_.config.parallel.recompute == "block";
    for (std::int64_t i = 0; i < stage.blocks; ++i) {
      block(Way::forward);
      if (again) block(Way::forward);
      block(Way::backward);
    }
  }
  void block(Way way) {
    column_split(kQkv, way);
    keys_and_values(way);
    row_split(ConvSite::o, way);
    column_split(kGateUp, way);
    row_split(ConvSite::down, way);
  }
  void column_split(const std::vector<ConvSite>& sites, Way way) {
    way == Way::forward ? gather(s_.m.d_model) : sum(s_.m.d_model);
    if (!s_.any_on(sites)) return;
    std::int64_t channels = 0;
    for (const ConvSite site : sites) {
      if (s_.on(site)) channels += s_.m.channels_at(site) / s_.tp;
    }
    count("cp", s_.cp, Collective::exchange,
          halo_rows(s_, 1, s_.at.cp, way) * channels * s_.element);
  }
  void row_split(ConvSite site, Way way) {
    std::int64_t width = s_.m.d_model;
    if (s_.lowrank(site)) width += s_.m.conv.rank;
    if (s_.headwise(site)) width += s_.m.d_model / s_.m.conv.head_size * s_.m.conv.width;
    way == Way::forward ? sum(width) : gather(width);
    if (!s_.on(site)) return;
    const std::int64_t row = s_.m.d_model * s_.element;
    if (s_.sequence_parallel) {
      const int rank = s_.at.cp * s_.mesh.tp + s_.at.tp;
      count("sequence", s_.cp * s_.tp, Collective::exchange, halo_rows(s_, s_.tp, rank, way) * row);
    } else {
      count("cp", s_.cp, Collective::exchange, halo_rows(s_, 1, s_.at.cp, way) * row);
    }
  }
  void keys_and_values(Way way) {
    const std::int64_t elements = s_.rows() * 2 * s_.m.kv_width() / s_.tp;
    if (way == Way::forward) {
      count("cp", s_.cp, Collective::all_gather, elements * s_.element);
    } else {
      count("cp", s_.cp, Collective::reduce_scatter, s_.cp * elements * s_.element);
    }
  }

  void gradients(const Parameters& bucket) {
    const std::int64_t size = bucket.size(s_.sharers()), part = size / s_.sharers();
    if (s_.invariant) {
      const std::int64_t first = s_.at.dp * s_.micro_batches;
      const std::int64_t nodes = tree_nodes(first, first + s_.micro_batches);
      gradient(Collective::exchange, nodes * (s_.sharers() - 1) * part);
      if (s_.zero == 0) gradient(Collective::all_gather, part);
    } else if (s_.zero == 0) {
      gradient(Collective::all_reduce, size);
    } else {
      const std::int64_t times = s_.zero == 1 ? 1 : s_.micro_batches;
      for (std::int64_t i = 0; i < times; ++i) gradient(Collective::reduce_scatter, size);
    }
  }

  // What tp ranks have shares of, of the part of the bucket that this rank updates.
  void shares(const Parameters& bucket) {
    const std::int64_t size = bucket.size(s_.sharers());
    const std::int64_t index = std::int64_t{s_.at.dp} * s_.cp + s_.at.cp;
    const std::int64_t part = s_.zero == 0 ? size : size / s_.sharers();
    const std::int64_t begin = s_.zero == 0 ? 0 : index * part;
    for (const auto& item : bucket.items) {
      const std::int64_t from = std::max(item.begin, begin);
      const std::int64_t to = std::min(item.begin + item.size, begin + part);
      if (item.share && from < to) tp(Collective::all_reduce, to - from);
    }
  }

  void weights(const Parameters& bucket, const Stage& stage) {
    if (s_.zero == 0 || bucket.second) return;
    const std::int64_t times = s_.zero == 3 ? gathers_of(s_, stage) : 1;
    for (std::int64_t i = 0; i < times; ++i) {
      gradient(Collective::all_gather, bucket.size(s_.sharers()) / s_.sharers());
    }
  }

  void pipeline() {
    const std::vector<Stage> stages = stages_of(s_);
    const std::int64_t message = s_.own_rows() * s_.m.d_model * s_.element;
    for (std::size_t i = 0; i + 1 < stages.size(); ++i) {
      const int from = stages[i].rank, to = stages[i + 1].rank;
      if (from == to || (from != s_.at.pp && to != s_.at.pp)) continue;
      for (std::int64_t j = 0; j < 2 * s_.micro_batches; ++j) {  // F and its gradient, j of each
        const int sender = j % 2 == 0 ? from : to;
        count("pp", s_.mesh.pp, Collective::exchange, sender == s_.at.pp ? message : 0);
      }
    }
    const int first = stages.front().rank, last = stages.back().rank;
    if (!s_.m.tie_embeddings || first == last) return;
    if (s_.at.pp != first && s_.at.pp != last) return;
    Parameters table;
    table.add(s_.vocabulary() * s_.m.d_model, false);
    const std::int64_t size = table.size(s_.sharers());
    count("pp", s_.mesh.pp, Collective::exchange,
          (s_.zero == 0 ? size : size / s_.sharers()) * s_.element);
  }

  Sizes s_;
  Traffic traffic_;
};

}  // namespace

Traffic expected_traffic(const RunConfig& config, const MeshShape& mesh, const MeshPosition& at) {
  return Table(Sizes{.config = config, .mesh = mesh, .at = at}).take();
}

}  // namespace convoy::test
