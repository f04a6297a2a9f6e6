// What `convoy inspect` writes belongs together and to the runs that `convoy train` makes.
#include <cmath>
#include <cstring>
#include <fstream>

#include "core/dtype.h"
#include "tests/launch/tiny_run.h"

namespace convoy::test {
namespace {

class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path) : content_(read_text(path)) {
    std::uint64_t length = 0;
    std::memcpy(&length, content_.data(), sizeof(length));
    header_ = nlohmann::json::parse(content_.substr(sizeof(length), length));
    header_.erase("__metadata__");
    values_ = sizeof(length) + length;
  }

  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& [name, entry] : header_.items()) names.push_back(name);
    return names;
  }
  std::vector<std::int64_t> shape(const std::string& name) const {
    return header_.at(name).at("shape");
  }
  std::string bytes(const std::string& name) const {
    const auto& offsets = header_.at(name).at("data_offsets");
    const std::size_t begin = offsets[0], end = offsets[1];
    return content_.substr(values_ + begin, end - begin);
  }
  template <class T>
  std::vector<T> values(const std::string& name) const {
    const std::string raw = bytes(name);
    std::vector<T> values(raw.size() / sizeof(T));
    std::memcpy(values.data(), raw.data(), raw.size());
    return values;
  }

 private:
  std::string content_;
  nlohmann::json header_;
  std::size_t values_ = 0;
};

// Of one micro-batch a step, so that a step's gradients are those of a micro-batch.
const std::string kSettings =
    "--set train.batch_tokens=128 --set model.conv.init=normal --set train.steps=3 ";

class Inspect : public TinyRun {
 protected:
  SafetensorsFile inspect(const std::string& what, const std::string& source) const {
    const auto result = run_convoy("inspect " + what + " " + source + " --output " + path("seen"));
    EXPECT_EQ(result.code, 0) << result.output;
    return SafetensorsFile(path("seen"));
  }
  std::string fresh() const {
    return kSource +
           "/launch/configs/tiny.toml --set train.device=cpu --set data.train=" + path("text.h5") +
           " " + kSettings;
  }
};

TEST_F(Inspect, LossesAreThoseOfTheLogits) {
  const auto seen = inspect("gradients", fresh());
  EXPECT_EQ(seen.shape("logits"), (std::vector<std::int64_t>{2, 64, 257}));
  const auto logits = seen.values<float>("logits");
  const auto losses = seen.values<double>("losses");
  const auto targets = seen.values<std::int32_t>("targets");
  ASSERT_EQ(targets.size(), 128u);
  const std::size_t classes = 257;
  for (std::size_t row = 0; row < targets.size(); ++row) {
    const float* values = &logits[row * classes];
    double sum = 0;
    for (std::size_t i = 0; i < classes; ++i) sum += std::exp(static_cast<double>(values[i]));
    const double wanted =
        targets[row] < 0 ? 0 : std::log(sum) - values[static_cast<std::size_t>(targets[row])];
    const double bound = static_cast<double>(classes) * unit_roundoff(DType::f32);
    EXPECT_NEAR(losses[row], wanted, bound * (1 + std::abs(wanted))) << "row " << row;
  }
}

// In invariant mode, where a run's gradient norm is an exact sum.
TEST_F(Inspect, GradientsAreThoseOfTheFirstStep) {
  const std::string invariant = "--set numerics.mode=invariant ";
  const auto seen = inspect("gradients", fresh() + invariant);
  ASSERT_EQ(train("run", kSettings + invariant).code, 0);
  double squares = 0, elements = 0;
  for (const auto& name : seen.names()) {
    if (!name.starts_with("gradient.")) continue;
    for (const float g : seen.values<float>(name)) {
      squares += static_cast<double>(g) * g;
      elements += 1;
    }
  }
  const double norm = column(folder_.path() / "run", "train", "grad_norm").at(1);
  EXPECT_NEAR(std::sqrt(squares), norm, elements * unit_roundoff(DType::f64) * norm);
}

TEST_F(Inspect, ACheckpointIsInspectedWithItsOwnWeights) {
  ASSERT_EQ(train("run", kSettings).code, 0);
  const auto exported =
      run_convoy("checkpoint export " + path("run") + " --output " + path("exported"));
  ASSERT_EQ(exported.code, 0) << exported.output;
  const SafetensorsFile wanted(path("exported"));
  const auto seen = inspect("gradients", path("run"));
  const auto untrained = inspect("gradients", fresh());
  for (const auto& name : wanted.names()) {
    EXPECT_EQ(seen.bytes(name), wanted.bytes(name)) << name;
    EXPECT_NE(untrained.bytes(name), wanted.bytes(name)) << name;
  }
}

TEST_F(Inspect, BatchesBeginWithTheOneOfTheFirstStep) {
  const auto seen = inspect("gradients", fresh());
  const auto batches = inspect("batches", fresh() + "--steps 5");
  for (const std::string name : {"tokens", "targets", "document_start"}) {
    EXPECT_EQ(batches.shape(name), (std::vector<std::int64_t>{5, 2, 64}));
    EXPECT_TRUE(batches.bytes(name).starts_with(seen.bytes(name))) << name;
  }
  const auto second = inspect("gradients", fresh() + "--sample 2");
  EXPECT_EQ(
      batches.bytes("tokens").substr(seen.bytes("tokens").size(), seen.bytes("tokens").size()),
      second.bytes("tokens"));
}

TEST_F(Inspect, RefusesWhatCouldNotBeTrained) {
  const auto result = run_convoy("inspect gradients " + kSource +
                                 "/launch/configs/tiny.toml --output " + path("seen"));
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.output.find("data.train is missing"), std::string::npos) << result.output;
}

}  // namespace
}  // namespace convoy::test
