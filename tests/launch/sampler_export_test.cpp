#include <bit>

#include "launch/checkpoint/safetensors.h"
#include "launch/sampler.h"
#include "tests/launch/checkpoint_fixture.h"
#include "tests/launch/process.h"

namespace convoy::test {
namespace {

TEST(DrawToken, ZeroTemperatureTakesTheMostLikely) {
  EXPECT_EQ(draw_token({0.1, 3, -2, 3}, 0, 0, 0.99), 1);
}

TEST(DrawToken, FollowsTheProbabilities) {
  const std::vector<double> logits = {std::log(1.0), std::log(2.0), std::log(5.0)};
  EXPECT_EQ(draw_token(logits, 1, 0, 0.0), 2);  // 5/8 of the line first, then 2/8, then 1/8
  EXPECT_EQ(draw_token(logits, 1, 0, 0.62), 2);
  EXPECT_EQ(draw_token(logits, 1, 0, 0.63), 1);
  EXPECT_EQ(draw_token(logits, 1, 0, 0.88), 0);
  EXPECT_EQ(draw_token(logits, 1, 2, 0.99), 1);  // only the two most likely
}

TEST(ExportedNames, AreThoseOfLlama) {
  EXPECT_EQ(exported_name("embedding.weight"), "model.embed_tokens.weight");
  EXPECT_EQ(exported_name("blocks.12.attention.q.weight"),
            "model.layers.12.self_attn.q_proj.weight");
  EXPECT_EQ(exported_name("blocks.0.mlp_norm.weight"),
            "model.layers.0.post_attention_layernorm.weight");
  EXPECT_EQ(exported_name("blocks.3.mlp.up.conv.U"), "model.layers.3.mlp.up_proj.conv.U");
  EXPECT_EQ(exported_name("blocks.3.attention.k_norm.weight"),
            "model.layers.3.self_attn.k_norm.weight");
  EXPECT_THROW(exported_name("optimizer.state"), Error);
}

struct Safetensors {
  nlohmann::json header;
  std::string data;

  explicit Safetensors(const std::filesystem::path& path) {
    const std::string file = read_text(path);
    std::uint64_t length = 0;
    for (int i = 7; i >= 0; --i)
      length = length << 8 | static_cast<unsigned char>(file[std::size_t(i)]);
    header = nlohmann::json::parse(file.substr(8, length));
    data = file.substr(8 + length);
  }
};

TEST(Export, WritesEveryParameterWithItsShapeAndBytes) {
  const TemporaryFolder folder;
  const auto backend = make_cpu_backend(NumericsMode::fast);
  std::vector<float> a(6), b(2);
  for (std::size_t i = 0; i < 6; ++i) a[i] = 1.25f * static_cast<float>(i);
  b = {-3, 1.0f + 0x1p-12f};
  {
    CheckpointWriter writer(*backend, {folder.path(), 2, false});
    writer.save(1, texts_of(1),
                {{"parameters/embedding.weight", {a.data(), DType::f32, DeviceKind::cpu, {2, 3}}},
                 {"parameters/final_norm.weight", {b.data(), DType::f32, DeviceKind::cpu, {2}}},
                 {"moment1/final_norm.weight", {b.data(), DType::f32, DeviceKind::cpu, {2}}}});
  }
  const auto checkpoint = Checkpoint::open(folder.path());
  export_safetensors(checkpoint, folder.path() / "m.safetensors", DType::f32);
  const Safetensors f32(folder.path() / "m.safetensors");
  EXPECT_EQ(f32.header.size(), 3u);  // two tensors and the metadata
  const auto& entry = f32.header.at("model.embed_tokens.weight");
  EXPECT_EQ(entry.at("dtype"), "F32");
  EXPECT_EQ(entry.at("shape"), (std::vector<int>{2, 3}));
  EXPECT_EQ(std::memcmp(f32.data.data() + entry.at("data_offsets")[0].get<int>(), a.data(), 24), 0);
  EXPECT_EQ(f32.data.size(), 32u);

  export_safetensors(checkpoint, folder.path() / "h.safetensors", DType::bf16);
  const Safetensors half(folder.path() / "h.safetensors");
  const auto offset = half.header.at("model.norm.weight").at("data_offsets")[0].get<std::size_t>();
  std::uint16_t word = 0;
  std::memcpy(&word, half.data.data() + offset + 2, 2);
  EXPECT_EQ(word, BF16(1.0f).bits);  // rounded
}

}  // namespace
}  // namespace convoy::test
