// Every operation refuses tensors of a wrong shape, dtype or device, and says which tensor it is
// and what it found, before anything is written.
#include "tests/core/refusals.h"

namespace convoy::test {
namespace {

TEST(Refusals, OfNormsAndRotations) {
  Workbench bench, narrow(DType::f32);
  const Context run = bench.context();
  Tensor x = bench.random({4, 6}), rstd = bench.output({4, 2}), weight = bench.random({3});
  Tensor y = bench.output({4, 6}), short_y = bench.output({3, 6});
  const auto forward = [&](Tensor out, Tensor r, Tensor w) {
    return [=] { ops::rmsnorm_forward(run, out, r, x, w, 1e-5); };
  };
  expect_refusals({
      {"output of rmsnorm is f64[3, 6], expected 4 rows of 6", forward(short_y, rstd, weight)},
      {"output of rmsnorm is f32[4, 6]", forward(narrow.output({4, 6}), rstd, weight)},
      {"over groups of 4", forward(y, rstd, bench.random({4}))},
      {"rstd is f64[4, 1], expected 4 rows of 2", forward(y, bench.output({4, 1}), weight)},
      {"not on the device", forward(on_another_device(y), rstd, weight)},
      {"dx of rmsnorm is f64[3, 6]",
       [&] { ops::rmsnorm_backward_input(run, short_y, x, x, rstd, weight); }},
      {"dy of rmsnorm is f64[3, 6]",
       [&] { ops::rmsnorm_backward_input(run, y, short_y, x, rstd, weight); }},
      {"dy of rmsnorm is f64[3, 6]",
       [&] { ops::rmsnorm_backward_weight(run, weight, short_y, x, rstd); }},
      {"rope over heads of 3",
       [&] {
         ops::rope(run, x, bench.indices({0, 1, 2, 3}), 3, 1e4, RopeDirection::forward);
       }},
      {"rope over heads of 4",
       [&] {
         ops::rope(run, x, bench.indices({0, 1, 2, 3}), 4, 1e4, RopeDirection::forward);
       }},
      {"positions is f64[4]",
       [&] { ops::rope(run, x, bench.zeros({4}), 2, 1e4, RopeDirection::forward); }},
  });
  for (const double value : values(y)) EXPECT_TRUE(std::isnan(value)) << "written to";
}

TEST(Refusals, OfAttention) {
  Workbench bench, narrow(DType::f32);
  const Context run = bench.context();
  const AttentionShape shape{1, 5, 4, 2, 6};
  Tensor q = bench.random({5, 24}), k = bench.random({5, 12}), out = bench.output({5, 24});
  Tensor lse = bench.output({5, 4}), starts = bench.indices({0, 0, 0, 0, 0});
  Tensor wrong = bench.output({5, 11});
  const auto backward = [&](Tensor dq, Tensor dk, Tensor dv, Tensor dout) {
    return
        [=] { ops::attention_backward(run, dq, dk, dv, dout, q, k, k, out, lse, starts, shape); };
  };
  expect_refusals({
      {"3 query heads cannot share 2",
       [&] {
         ops::attention_forward(run, out, lse, q, k, k, starts, {1, 5, 3, 2, 6});
       }},
      {"q is f64[5, 12], expected 5 rows of 24",
       [&] { ops::attention_forward(run, out, lse, k, k, k, starts, shape); }},
      {"k is f64[5, 11]",
       [&] { ops::attention_forward(run, out, lse, q, wrong, k, starts, shape); }},
      {"v is f64[5, 11]",
       [&] { ops::attention_forward(run, out, lse, q, k, wrong, starts, shape); }},
      {"log_sum_exp is f64[5, 11]",
       [&] { ops::attention_forward(run, out, wrong, q, k, k, starts, shape); }},
      {"document_start is i32[4]",
       [&] {
         ops::attention_forward(run, out, lse, q, k, k, bench.indices({0, 0, 0, 0}), shape);
       }},
      {"output of attention is f32[5, 24]",
       [&] {
         ops::attention_forward(run, narrow.output({5, 24}), lse, q, k, k, starts, shape);
       }},
      {"dq is f64[5, 11]", backward(wrong, k, k, q)},
      {"dk is f64[5, 11]", backward(out, wrong, k, q)},
      {"dv is f64[5, 11]", backward(out, k, wrong, q)},
      {"dout is f64[5, 11]", backward(out, k, k, wrong)},
      {"not on the device", backward(on_another_device(out), k, k, q)},
  });
}

TEST(Refusals, OfSwigluEmbeddingAndLoss) {
  Workbench bench, narrow(DType::f32);
  const Context run = bench.context();
  Tensor x = bench.random({4, 6}), y = bench.output({4, 6}), other = bench.output({4, 5});
  Tensor tokens = bench.indices({0, 1, 2, 3}), few = bench.indices({0, 1, 2});
  Tensor statistics = bench.output({4, 3});
  expect_refusals({
      {"gate is f64[4, 5]", [&] { ops::swiglu_forward(run, y, other, x); }},
      {"up is f32[4, 6]",
       [&] {
         ops::swiglu_forward(run, y, x, narrow.random({4, 6}));
       }},
      {"dgate is f64[4, 5]", [&] { ops::swiglu_backward(run, other, y, x, x, x); }},
      {"dup is f64[4, 5]", [&] { ops::swiglu_backward(run, y, other, x, x, x); }},
      {"dy is f64[4, 5]", [&] { ops::swiglu_backward(run, y, y, other, x, x); }},
      {"tokens is i32[3]", [&] { ops::embedding_forward(run, y, x, few); }},
      {"output of embedding is f64[4, 5]", [&] { ops::embedding_forward(run, other, x, tokens); }},
      {"dy of embedding is f64[4, 5]", [&] { ops::embedding_backward(run, y, other, tokens); }},
      {"targets is i32[3]", [&] { ops::softmax_statistics(run, statistics, x, few, 0); }},
      {"softmax statistics is f64[4, 5]",
       [&] { ops::softmax_statistics(run, other, x, tokens, 0); }},
      {"losses are f64, not f32[4]",
       [&] { ops::cross_entropy_losses(run, narrow.output({4}), statistics, tokens); }},
      {"targets is i32[3]", [&] { ops::cross_entropy_backward(run, x, statistics, few, 0, 1); }},
      {"first addend is f64[4, 5]", [&] { ops::add(run, y, other, x); }},
      {"destination of copy is f64[4, 5]", [&] { ops::copy(run, other, x); }},
      {"is not on the device", [&] { ops::fill(run, on_another_device(y), 0); }},
  });
}

TEST(Errors, CarryTheRankAndWhatTheProgramWasDoing) {
  Workbench bench;
  set_error_rank(2);
  const Doing outer("step 7");
  std::string text;
  {
    const Doing inner("layer 3");
    text = message_of([&] { ops::add(bench.context(), bench.output({2, 2}), {}, {}); });
  }
  const std::string later = message_of([&] { CHECK(1 + 1 == 3, "sum of ", 2); });
  set_error_rank(-1);
  for (const char* part : {"core/op_checks.h:", "first addend is not given", "[rank 2]",
                           "[while: step 7 > layer 3]"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in " << text;
  }
  EXPECT_NE(later.find("CHECK(1 + 1 == 3) failed: sum of 2 [rank 2] [while: step 7]"),
            std::string::npos)
      << later;
}

// Tensors begin at whole alignments whatever was taken before them; a release below what is held
// is an error, and a released part is handed out again.
TEST(Arena, AlignsEveryTensorAndRefusesAMarkOfTheFuture) {
  const auto backend = make_cpu_backend(NumericsMode::fast);
  Arena arena(*backend, "activations", 8 * Arena::kAlignment);
  for (const std::int64_t size : {1, 64, 65}) {
    const Tensor t = arena.take(DType::f32, {size});
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(t.data()) % Arena::kAlignment, 0u) << size;
  }
  const Arena::Mark mark = arena.mark();
  EXPECT_EQ(mark, 4 * Arena::kAlignment);
  void* const first = arena.take(DType::f64, {3, 5}).data();
  arena.release(mark);
  EXPECT_EQ(arena.take(DType::bf16, {7}).data(), first);
  EXPECT_EQ(arena.high_water(), 5 * Arena::kAlignment);
  const std::string text = message_of([&] { arena.release(mark + 4096); });
  EXPECT_NE(text.find("arena 'activations'"), std::string::npos) << text;
  EXPECT_NO_THROW(arena.take(DType::f32, {3 * 64}));  // exactly to the end
  EXPECT_THROW(arena.take(DType::f32, {1}), Error);
}

}  // namespace
}  // namespace convoy::test
