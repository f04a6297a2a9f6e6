// Data and batches of odd sizes, trained on layouts: windows of one token, halos longer than a
// shard, documents of one token, batches that are too small. Each equals one rank or is refused
// with the remedy.
#include <cmath>

#include "tests/launch/layout_lab.h"

namespace convoy::test {
namespace {

constexpr const char* kModel = R"(
[model]
d_model = 16
n_layers = 4
n_heads = 4
n_kv_heads = 2
d_ff = 24
qk_norm = true
[model.conv]
kind = "lowrank"
on = ["q", "k", "v", "o", "gate", "up", "down"]
rank = 3
init = "normal"
[train]
steps = 3
micro_batch = 2
precision = "f64"
[numerics]
mode = "invariant"
[optimizer]
eps = 1e-6  # of the size of gradients that are rounding alone, or larger
[eval]
batches = 2
[checkpoint]
async = false
)";

using Lengths = std::vector<std::size_t>;

// Letters in documents of these lengths, end-of-text included, over and over.
std::string token_file(const std::filesystem::path& path, const Lengths& lengths) {
  const ByteTokenizer tokenizer;
  TokenFileWriter writer(path.string(), tokenizer);
  const RandomStream random(5, "letters");
  for (std::size_t i = 0; i < 240; ++i) {
    std::vector<std::int32_t> tokens(lengths[i % lengths.size()], tokenizer.end_of_text());
    for (std::size_t j = 0; j + 1 < tokens.size(); ++j) {
      tokens[j] = static_cast<std::int32_t>(97 + random.bits(64 * i + j)[0] % 26);
    }
    writer.add_document(tokens);
  }
  writer.finish("sum");
  return path.string();
}

double norm_of(const std::vector<std::byte>& bytes, const std::vector<std::byte>* minus = nullptr) {
  const auto* values = reinterpret_cast<const double*>(bytes.data());
  const auto* others = minus == nullptr ? nullptr : reinterpret_cast<const double*>(minus->data());
  double sum = 0;
  for (std::size_t i = 0; i < bytes.size() / sizeof(double); ++i) {
    const double x = values[i] - (others == nullptr ? 0 : others[i]);
    sum += x * x;
  }
  return std::sqrt(sum);
}

// Within rounding of f64 over three steps. What is itself rounding alone (the gradient of a key
// where a window has one position) may differ by a few units of the largest terms that cancelled.
void expect_equal_but_for_rounding(const RunOutcome& many, const RunOutcome& one) {
  constexpr double kBound = 1e-12;
  for (const auto& [step, loss] : one.losses) {
    EXPECT_NEAR(many.losses.at(step), loss, kBound * std::abs(loss)) << "step " << step;
    EXPECT_NEAR(many.norms.at(step), one.norms.at(step), kBound * one.norms.at(step));
  }
  double gradients = 0;
  for (const auto& [name, bytes] : one.tensors) {
    if (name.starts_with("moment1/")) gradients = std::max(gradients, norm_of(bytes));
  }
  ASSERT_EQ(many.tensors.size(), one.tensors.size());
  for (const auto& [name, bytes] : one.tensors) {
    const double floor = 4 * std::numeric_limits<double>::epsilon() * gradients;
    EXPECT_LE(norm_of(bytes, &many.tensors.at(name)), kBound * norm_of(bytes) + floor) << name;
  }
}

class OddSizes : public testing::Test {
 protected:
  std::string file(const std::string& name, const Lengths& lengths) const {
    return token_file(lab_.folder(name + ".h5"), lengths);
  }

  RunConfig config(const LayoutCase& layout, const std::vector<std::string>& more,
                   const std::string& data) const {
    RunConfig run = lab_.config(layout, more);
    run.data.train = {data};
    run.data.val = data;
    return run;
  }

  RunOutcome train(const LayoutCase& layout, const std::vector<std::string>& more,
                   const std::string& data) {
    const RunConfig run = config(layout, more, data);
    require_trainable(run, layout.ranks());
    const std::string name = concat("run", runs_++);
    run_on_threads(layout.ranks(), [&](Communicator& world) {
      const auto backend = make_cpu_backend(run.numerics);
      Trainer(run, {lab_.folder(name), {}, {}}, *backend, world).run();
    });
    return lab_.outcome(name);
  }

  // tp and cp cut sums; other layouts change no bit.
  void expect_as_on_one_rank(const std::vector<LayoutCase>& layouts,
                             const std::vector<std::string>& more, const std::string& data) {
    const RunOutcome one = train({}, more, data);
    ASSERT_EQ(one.losses.size(), 3u);
    for (const auto& layout : layouts) {
      SCOPED_TRACE(layout.describe());
      const RunOutcome many = train(layout, more, data);
      if (layout.tp == 1 && layout.cp == 1) {
        expect_same_bits(many, one);
      } else {
        expect_equal_but_for_rounding(many, one);
      }
    }
  }

  std::string refusal(const LayoutCase& layout, const std::vector<std::string>& more) const {
    std::string text;
    for (const auto& problem : problems_of(lab_.config(layout, more), layout.ranks())) {
      text += problem + "\n";
    }
    return text;
  }

  LayoutLab lab_{kModel};
  int runs_ = 0;
};

void expect_says(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << text;
}

TEST_F(OddSizes, WindowsOfOneTokenTrainOnEveryLayoutThatDoesNotCutThem) {
  const std::string data = file("text", {7, 12, 3});
  const std::vector<LayoutCase> layouts = {{.dp = 2, .zero = 2},
                                           {.zero = 3, .pp = 2, .schedule = "zb-v"},
                                           {.tp = 2},
                                           {.dp = 2, .zero = 1, .pp = 2, .tp = 2}};
  for (const char* pack : {"stream", "documents"}) {
    expect_as_on_one_rank(
        layouts, {"model.seq_len=1", "train.batch_tokens=16", concat("data.pack=", pack)}, data);
  }
}

TEST_F(OddSizes, WindowsThatCannotBeCutAreRefusedWithTheNextLengthThatCan) {
  expect_says(refusal({.cp = 2}, {"model.seq_len=1", "train.batch_tokens=16"}),
              "model.seq_len = 1 is not a multiple of 4 = 2 cp: set model.seq_len = 4");
  expect_says(
      refusal({.tp = 2, .sequence_parallel = true}, {"model.seq_len=1", "train.batch_tokens=16"}),
      "model.seq_len = 1 is not a multiple of 2 = tp: set model.seq_len = 2");
  expect_says(refusal({.tp = 2, .cp = 2, .sequence_parallel = true},
                      {"model.seq_len=12", "train.batch_tokens=24"}),
              "model.seq_len = 12 is not a multiple of 8 = 2 cp tp: set model.seq_len = 8 or 16");
}

// Segments of one row: seven rows before each, from seven segments of several ranks.
TEST_F(OddSizes, AHaloMayBeLongerThanManySegments) {
  const std::string data = file("text", {7, 30, 3});
  expect_as_on_one_rank({{.cp = 4}, {.tp = 2, .cp = 2, .sequence_parallel = true}, {.tp = 2}},
                        {"model.seq_len=8", "train.batch_tokens=32", "model.conv.width=8"}, data);
  expect_as_on_one_rank({{.cp = 2}, {.dp = 2, .zero = 2, .cp = 2}},
                        {"model.seq_len=4", "train.batch_tokens=16", "model.conv.width=8"}, data);
}

TEST_F(OddSizes, DocumentsOfOneTokenAmongOthersTrainOnEveryLayout) {
  expect_as_on_one_rank({{.dp = 2, .zero = 3},
                         {.pp = 2, .schedule = "zb-h1"},
                         {.cp = 2},
                         {.tp = 2, .cp = 2, .sequence_parallel = true}},
                        {"model.seq_len=8", "train.batch_tokens=32"},
                        file("short", {1, 1, 4, 1, 2, 1, 1, 1, 9}));
}

TEST_F(OddSizes, DocumentsOfOneTokenAloneHaveNoTargetUnlessTheyAreAStream) {
  const std::string data = file("empty", {1});
  const std::vector<std::string> sizes = {"model.seq_len=8", "train.batch_tokens=32"};
  try {
    train({.dp = 2}, sizes, data);
    FAIL() << "trained on nothing";
  } catch (const Error& error) {
    expect_says(error.what(), "step 1 has no target that counts");
    expect_says(error.what(), "set data.pack = \"stream\"");
  }
  auto stream = sizes;
  stream.emplace_back("data.pack=stream");
  expect_as_on_one_rank({{.dp = 2}, {.cp = 2}}, stream, data);
}

TEST_F(OddSizes, ABatchWithoutAMicroBatchForEveryReplicaIsRefused) {
  const std::vector<std::string> one = {"model.seq_len=8", "train.batch_tokens=16"};
  EXPECT_EQ(refusal({}, one), "");
  for (const LayoutCase& layout : std::vector<LayoutCase>{{.dp = 4}, {.dp = 4, .zero = 3}}) {
    expect_says(
        refusal(layout, one),
        "train.batch_tokens 16 is not a multiple of 64 = seq_len 8 x micro_batch 2 x 4 data "
        "parallel ranks; use 64, or a smaller micro_batch or parallel.dp");
  }
}

}  // namespace
}  // namespace convoy::test
