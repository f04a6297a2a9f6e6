#include "experiments/export/tensorboard.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "launch/files.h"

namespace convoy {
namespace {

static_assert(std::endian::native == std::endian::little, "the formats here are little-endian");

template <class T>
std::string raw(T value) {
  std::string bytes(sizeof(value), '\0');
  std::memcpy(bytes.data(), &value, sizeof(value));
  return bytes;
}

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  constexpr std::uint32_t kPolynomial = 0x82F63B78;  // Castagnoli, bits reversed
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? kPolynomial : 0);
    table[i] = value;
  }
  return table;
}

// Protocol buffers: a field is a key (number, wire type) and a value.
enum class Wire : std::uint8_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 128; value >>= 7) bytes += static_cast<char>(value % 128 + 128);
  return bytes + static_cast<char>(value);
}

std::string field(std::uint64_t number, Wire wire, const std::string& value) {
  return varint(number * 8 + static_cast<std::uint64_t>(wire)) + value;
}

std::string message(std::uint64_t number, const std::string& content) {
  return field(number, Wire::bytes, varint(content.size()) + content);
}

std::string wall_time_field(double wall_time) { return field(1, Wire::fixed64, raw(wall_time)); }

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  static constexpr auto kTable = make_crc_table();
  std::uint32_t sum = ~std::uint32_t{0};
  for (const char c : bytes) sum = (sum >> 8) ^ kTable[(sum ^ static_cast<std::uint8_t>(c)) & 0xFF];
  return ~sum;
}

std::uint32_t masked_crc32c(std::string_view bytes) {
  constexpr std::uint32_t kMask = 0xA282EAD8;
  return std::rotr(crc32c(bytes), 15) + kMask;
}

std::string tf_record(std::string_view data) {
  const std::string length = raw(std::uint64_t{data.size()});
  return length + raw(masked_crc32c(length)) + std::string(data) + raw(masked_crc32c(data));
}

std::string version_event(double wall_time) {
  return wall_time_field(wall_time) + message(3, "brain.Event:2");
}

std::string scalar_event(double wall_time, std::int64_t step,
                         const std::vector<std::pair<std::string, double>>& scalars) {
  std::string summary;
  for (const auto& [tag, value] : scalars) {
    const auto single = static_cast<float>(value);
    summary += message(1, message(1, tag) + field(2, Wire::fixed32, raw(single)));
  }
  return wall_time_field(wall_time) +
         field(2, Wire::varint, varint(static_cast<std::uint64_t>(step))) + message(5, summary);
}

void write_tensorboard(const SweepPlan& plan, const Table& curves,
                       const std::filesystem::path& folder) {
  if (curves.rows() == 0) return;
  const auto& ids = curves.texts("run_id");
  const auto& steps = curves.integers("step");
  const auto& times = curves.reals("wall_s");
  for (std::size_t row = 0; row < ids.size();) {
    const std::string& id = ids[row];
    std::string file = tf_record(version_event(0));
    for (; row < ids.size() && ids[row] == id; ++row) {
      std::vector<std::pair<std::string, double>> scalars;
      for (const char* name :
           {"train_loss", "val_loss", "lr", "grad_norm", "tokens_per_s", "mfu", "flops"}) {
        const double value = curves.reals(name)[row];
        if (std::isfinite(value)) scalars.emplace_back(name, value);
      }
      file += tf_record(scalar_event(times[row], steps[row], scalars));
    }
    const auto place = folder / plan.find(id)->name;
    std::filesystem::create_directories(place);
    replace_text(place / "events.out.tfevents.0.convoy", file);
  }
}

}  // namespace convoy
