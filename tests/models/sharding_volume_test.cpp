// What one training pass sends, counted, against what the table "Who communicates when" says,
// computed here from sizes alone: no collective is hidden, none is missing, none is too wide.
#include <functional>

#include "parallel/instrumented_communicator.h"
#include "tests/models/sharding_harness.h"

namespace convoy::test {
namespace {

using Volume = std::map<std::pair<std::string, Collective>, std::int64_t>;  // elements given

struct Sizes {
  const ModelConfig& m;
  std::int64_t sequences, cp, tp;
  bool sequence_parallel;

  std::int64_t rows() const { return sequences * m.seq_len / cp; }
  std::int64_t own() const { return sequence_parallel ? rows() / tp : rows(); }
  std::int64_t before() const { return m.conv.width - 1; }
  bool on(ConvSite site) const { return m.conv.applies_to(site); }
  // Columns that a site's generator adds to a matmul whose outputs are whole.
  std::int64_t generated(ConvSite site) const {
    if (!on(site)) return 0;
    if (m.conv.kind == FilterKind::lowrank) return m.conv.rank;
    return m.conv.kind == FilterKind::headwise ? m.d_model / m.conv.head_size * m.conv.width : 0;
  }
};

// Which rank of a group has position t, by walking over the chunks of the zigzag.
std::vector<int> owners(const Sizes& s, std::int64_t tp) {
  const std::int64_t chunks = s.cp > 1 ? 2 * s.cp : 1, chunk = s.m.seq_len / chunks;
  std::vector<int> owner;
  for (std::int64_t t = 0; t < s.m.seq_len; ++t) {
    const std::int64_t c = t / chunk, place = c < s.cp ? c : chunks - 1 - c;
    owner.push_back(static_cast<int>(place * tp + t % chunk / (chunk / tp)));
  }
  return owner;
}

// Rows that rank `from` gives to others as halos, a sequence.
std::int64_t halo_rows(const Sizes& s, std::int64_t tp, int from, bool backward) {
  const std::vector<int> owner = owners(s, tp);
  const std::int64_t segment = s.m.seq_len / (s.cp > 1 ? 2 * s.cp : 1) / tp;
  std::int64_t rows = 0;
  for (std::int64_t begin = 0; begin < s.m.seq_len; begin += segment) {
    const int reader = owner[static_cast<std::size_t>(begin)];
    for (std::int64_t t = std::max<std::int64_t>(begin - s.before(), 0); t < begin; ++t) {
      const int has = owner[static_cast<std::size_t>(t)];
      if (has != reader && (backward ? reader : has) == from) ++rows;
    }
  }
  return rows * s.sequences;
}

class Table {
 public:
  Table(const Sizes& sizes, const MeshPosition& at) : s_(sizes), at_(at) {
    embedding_and_head();
    for (std::int64_t layer = 0; layer < s_.m.n_layers; ++layer) {
      column_split(s_.m.d_model, {ConvSite::q, ConvSite::k, ConvSite::v});
      row_split(ConvSite::o);
      column_split(s_.m.d_model, {ConvSite::gate, ConvSite::up});
      row_split(ConvSite::down);
      keys_and_values();
      shares_of_gradients();
    }
    if (s_.sequence_parallel) share(s_.m.d_model);  // of the final norm
  }
  Volume take() { return std::move(volume_); }

 private:
  void add(const char* group, std::int64_t size, Collective collective, std::int64_t elements) {
    if (size > 1 && elements > 0) volume_[{group, collective}] += elements;
  }
  void tp(Collective collective, std::int64_t elements) { add("tp", s_.tp, collective, elements); }
  // A sum over tp of [rows, width] of which a rank needs its own rows.
  void sum(std::int64_t width) {
    tp(s_.sequence_parallel ? Collective::reduce_scatter : Collective::all_reduce,
       s_.rows() * width);
  }
  void gather(std::int64_t width) {
    if (s_.sequence_parallel) tp(Collective::all_gather, s_.own() * width);
  }
  void share(std::int64_t elements) { tp(Collective::all_reduce, elements); }

  void embedding_and_head() {
    sum(s_.m.d_model);  // look-up
    gather(s_.m.d_model);
    gather(s_.m.d_model);                       // hidden rows
    tp(Collective::all_gather, s_.rows() * 3);  // maximum, sum, target's logit
    sum(s_.m.d_model);
  }
  void column_split(std::int64_t inputs, const std::vector<ConvSite>& sites) {
    gather(inputs);
    sum(inputs);  // dh, dz's part in it
    for (const ConvSite site : sites) {
      if (!s_.on(site)) continue;
      for (const bool backward : {false, true}) {
        add("cp", s_.cp, Collective::exchange,
            halo_rows(s_, 1, at_.cp, backward) * s_.m.channels_at(site) / s_.tp);
      }
      if (s_.m.conv.kind == FilterKind::lowrank) share(s_.m.conv.rank * inputs);  // dA
    }
  }
  void row_split(ConvSite site) {
    const std::int64_t width = s_.m.d_model + s_.generated(site);  // [y, z]
    sum(width);
    gather(width);
    if (!s_.on(site)) return;
    for (const bool backward : {false, true}) {
      if (s_.sequence_parallel) {
        add("sequence", s_.cp * s_.tp, Collective::exchange,
            halo_rows(s_, s_.tp, at_.cp * static_cast<int>(s_.tp) + at_.tp, backward) *
                s_.m.d_model);
      } else {
        add("cp", s_.cp, Collective::exchange, halo_rows(s_, 1, at_.cp, backward) * s_.m.d_model);
      }
    }
    if (!s_.sequence_parallel) return;
    share(s_.m.conv.width * s_.m.d_model);  // s
    if (s_.m.conv.kind == FilterKind::lowrank) {
      share(s_.m.conv.rank * s_.m.conv.width * s_.m.d_model);  // U
    }
  }
  void keys_and_values() {
    const std::int64_t width = 2 * s_.m.kv_width() / s_.tp;
    add("cp", s_.cp, Collective::all_gather, s_.rows() * width);
    add("cp", s_.cp, Collective::reduce_scatter, s_.cp * s_.rows() * width);
  }
  void shares_of_gradients() {
    if (s_.m.qk_norm) share(2 * s_.m.head_width());
    if (s_.sequence_parallel) share(2 * s_.m.d_model);  // the block's norms
  }

  Sizes s_;
  MeshPosition at_;
  Volume volume_;
};

Volume counted(const Task& task, const Splitting& splitting, Communicator& world,
               MeshPosition& position) {
  CommunicationLog log;
  const auto watched = instrument(world.split(0), "world", log);
  const Mesh mesh(*watched, splitting.mesh);
  position = mesh.position();
  RankPass pass(task, sharding_of(mesh, splitting.sequence_parallel, splitting.overlap));
  log.reset();
  pass.train();
  Volume volume;
  for (const auto& row : log.rows()) {
    if (row.count.bytes > 0) volume[{row.group, row.collective}] = row.count.bytes / 8;
  }
  return volume;
}

std::string described(const Volume& volume) {
  std::string text;
  for (const auto& [key, elements] : volume) {
    text += concat(key.first, ' ', name_of(key.second), ' ', elements, '\n');
  }
  return text;
}

TEST(ShardingVolume, EqualsTheTableOfWhoCommunicatesWhen) {
  using enum FilterKind;
  for (const FilterKind kind : {none, fixed, headwise, lowrank}) {
    ModelConfig m;
    m.vocab = 19;
    m.d_model = 32;
    m.n_layers = 2;
    m.n_heads = 8;
    m.n_kv_heads = 4;
    m.qk_norm = true;
    m.d_ff = 24;
    m.seq_len = 32;
    m.conv.kind = kind;
    m.conv.on = kAllSites;
    m.conv.rank = 5;
    m.conv.head_size = 2;
    const Task task{m, 2, {{3, 5, 1}}};
    for (const Splitting& splitting :
         std::vector<Splitting>{{{.tp = 2}, SequenceParallel::no},
                                {{.tp = 4}, SequenceParallel::yes},
                                {{.cp = 4}, SequenceParallel::no},
                                {{.cp = 2, .tp = 2}, SequenceParallel::no},
                                {{.cp = 4, .tp = 2}, SequenceParallel::yes}}) {
      SCOPED_TRACE(splitting.describe());
      run_on_threads(splitting.mesh.ranks(), [&](Communicator& world) {
        MeshPosition position;
        const Volume found = counted(task, splitting, world, position);
        const Sizes sizes{m, 2, splitting.mesh.cp, splitting.mesh.tp,
                          splitting.sequence_parallel == SequenceParallel::yes};
        EXPECT_EQ(described(found), described(Table(sizes, position).take()));
      });
    }
  }
}

}  // namespace
}  // namespace convoy::test
