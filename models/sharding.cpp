#include "models/sharding.h"

#include <numeric>

#include "parallel/null_communicator.h"

namespace convoy {

Sharding sharding_of(const Mesh& mesh, SequenceParallel sequence_parallel, Overlap overlap) {
  const bool splits = mesh.shape().tp > 1 && sequence_parallel == SequenceParallel::yes;
  return {mesh.tp(),       mesh.cp(),
          mesh.sequence(), splits ? SequenceParallel::yes : SequenceParallel::no,
          overlap,         mesh.shape(),
          mesh.position(), {}};
}

const Sharding& one_rank() {
  static const auto self = make_self_communicator();  // has no state
  static const Sharding alone{*self, *self, *self, SequenceParallel::no, Overlap::yes, {}, {}, {}};
  return alone;
}

SilentSharding::SilentSharding(const Sharding& like)
    : tp_(make_null_communicator(like.tp)),
      cp_(make_null_communicator(like.cp)),
      sequence_(make_null_communicator(like.sequence)),
      view_(like.on(*tp_, *cp_, *sequence_)) {}

std::int64_t length_multiple(const MeshShape& mesh, SequenceParallel sequence_parallel) {
  const std::int64_t chunks = mesh.cp > 1 ? 2 * mesh.cp : 1;
  return chunks * (sequence_parallel == SequenceParallel::yes ? mesh.tp : 1);
}

namespace {

// The largest tp, at most the wanted one, that divides `count`.
std::int64_t fitting(std::int64_t count, std::int64_t tp) {
  while (count % tp != 0) --tp;
  return tp;
}

class Problems {
 public:
  explicit Problems(std::int64_t tp) : tp_(tp) {}

  void divides(std::int64_t count, const std::string& what) {
    if (count % tp_ == 0) return;
    all_.push_back(concat("parallel.tp = ", tp_, " does not divide ", what, " = ", count,
                          ": set parallel.tp = ", fitting(count, tp_), ", or ", what,
                          " to a multiple of ", tp_));
  }
  void add(std::string text) { all_.push_back(std::move(text)); }
  std::vector<std::string> take() { return std::move(all_); }

 private:
  std::int64_t tp_;
  std::vector<std::string> all_;
};

// A group of H channels that share a head-wise filter lies on one rank. The outputs of o and down
// are whole on every rank, so nothing of theirs is cut.
void check_headwise(const ModelConfig& model, std::int64_t tp, Problems& problems) {
  if (model.conv.kind != FilterKind::headwise) return;
  for (const ConvSite site : model.conv.on) {
    if (site == ConvSite::o || site == ConvSite::down) continue;
    const std::int64_t channels = model.channels_at(site), head = model.conv.head_size;
    if (channels % tp != 0 || head < 1 || channels % head != 0) continue;  // named elsewhere
    if (channels / tp % head == 0) continue;
    problems.add(concat("model.conv.head_size = ", head, " does not divide the ", channels / tp,
                        " channels of ", kConvSiteNames[static_cast<std::size_t>(site)],
                        " that each of ", tp, " tp ranks has: set model.conv.head_size = ",
                        std::gcd(head, channels / tp), " or a smaller parallel.tp"));
  }
}

}  // namespace

std::vector<std::string> sharding_problems(const ModelConfig& model, const MeshShape& mesh,
                                           SequenceParallel sequence_parallel) {
  Problems problems(mesh.tp);
  problems.divides(model.n_heads, "model.n_heads");
  if (model.kv_heads() != model.n_heads) problems.divides(model.n_kv_heads, "model.n_kv_heads");
  problems.divides(model.d_ff, "model.d_ff");
  check_headwise(model, mesh.tp, problems);
  const std::int64_t multiple = length_multiple(mesh, sequence_parallel);
  if (model.seq_len % multiple != 0) {
    const std::int64_t below = model.seq_len / multiple * multiple;
    problems.add(concat(
        "model.seq_len = ", model.seq_len, " is not a multiple of ", multiple,
        mesh.cp > 1 ? " = 2 cp" : " =", sequence_parallel == SequenceParallel::yes ? " tp" : "",
        ": set model.seq_len = ", below > 0 ? concat(below, " or ") : "", below + multiple));
  }
  return problems.take();
}

}  // namespace convoy
