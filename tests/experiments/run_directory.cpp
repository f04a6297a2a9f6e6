#include "tests/experiments/run_directory.h"

#include <unistd.h>

#include <fstream>
#include <numbers>
#include <sstream>

#include "core/error.h"

namespace convoy::testing {

TemporaryDirectory::TemporaryDirectory() {
  std::string name = (std::filesystem::temp_directory_path() / "convoy_test_XXXXXX").string();
  CHECK(mkdtemp(name.data()) != nullptr, "cannot create ", name);
  path_ = name;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  CHECK(out.good(), "cannot write ", path);
}

std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  CHECK(in.good(), "cannot read ", path);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

std::string train_row(int attempt, int step, double loss, double tokens_per_s) {
  return concat(R"({"kind":"train","attempt":)", attempt, R"(,"step":)", step, R"(,"tokens":)",
                step * 1000, R"(,"flops":)", step * 1e9, R"(,"wall_s":)", step * 0.5,
                R"(,"train_loss":)", loss, R"(,"lr":0.001,"grad_norm":0.7,"tokens_per_s":)",
                tokens_per_s, R"(,"mfu":null,"exposed_comm":0.01,"skipped":false})", "\n");
}

std::string eval_row(int attempt, int step, double loss) {
  return concat(R"({"kind":"eval","attempt":)", attempt, R"(,"step":)", step, R"(,"tokens":)",
                step * 1000, R"(,"flops":)", step * 1e9, R"(,"wall_s":)", step * 0.5,
                R"(,"val_loss":)", loss, R"(,"val_bits_per_byte":)", loss / std::numbers::ln2,
                R"(,"targets":255,"bytes":255})", "\n");
}

std::filesystem::path write_run(const std::filesystem::path& root, const RunFiles& files) {
  const auto directory = root / files.name;
  std::filesystem::create_directories(directory);
  write_text(
      directory / "run.json",
      concat(R"({"name":")", files.name, R"(","status":")", files.status, R"(","arch":")",
             files.arch, R"(","seed":)", files.seed,
             R"(,"ranks":2,"parameters":793728,"device":"cpu","message":"","val_loss":)",
             files.val_loss, R"(,"val_bits_per_byte":)", files.val_loss / std::numbers::ln2, "}"));
  write_text(directory / "metrics.jsonl", files.metrics);
  write_text(directory / "config.toml", "[train]\nsteps = 10 # a < b & c\n");
  return directory;
}

}  // namespace convoy::testing
