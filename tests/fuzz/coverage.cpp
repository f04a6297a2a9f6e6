#include "tests/fuzz/coverage.h"

namespace convoy::test {
namespace {

const char* name_of(FilterKind kind) {
  constexpr const char* kNames[] = {"none", "static", "headwise", "lowrank"};
  return kNames[static_cast<int>(kind)];
}

}  // namespace

void Coverage::add(const FuzzCase& fuzz) {
  const RunConfig& c = fuzz.config;
  const auto& p = c.parallel;
  const auto count = [&](const std::string& choice, const std::string& value) {
    ++counts_[choice][value];
  };
  const auto yes = [](bool b) { return b ? "yes" : "no"; };
  count("judged", fuzz.is_bitwise() ? "bit for bit" : "to 1e-12");
  count("ranks", concat(fuzz.ranks));
  count("filter", name_of(c.model.conv.kind));
  count("documents told apart", yes(c.data.pack == "documents"));
  count("grouped heads", yes(c.model.kv_heads() != c.model.n_heads));
  count("tied tables", concat(yes(c.model.tie_embeddings),
                              c.model.tie_embeddings && p.pp > 1 ? " on two stages" : ""));
  count("dp", concat(p.dp));
  count("pp", concat(p.pp));
  count("tp", concat(p.tp, p.sequence_parallel ? " with sequence parallelism" : ""));
  count("cp", concat(p.cp));
  count("schedule", p.pp > 1 ? p.schedule : "one stage");
  count("zero", p.dp * p.cp > 1 ? concat(p.zero) : "nothing to divide");
  count("recompute", p.recompute);
  count("numerics", c.numerics == NumericsMode::invariant ? "invariant" : "fast");
}

std::string Coverage::text() const {
  std::string lines;
  for (const auto& [choice, values] : counts_) {
    std::string line;
    for (const auto& [value, cases] : values) {
      line += concat(line.empty() ? "" : ", ", value, " ", cases);
    }
    lines += concat(choice, ": ", line, "\n");
  }
  return lines;
}

}  // namespace convoy::test
