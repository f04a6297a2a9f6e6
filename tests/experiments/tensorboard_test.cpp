// TensorBoard's event files, decoded again by a reader that knows only the formats' definitions.
#include "experiments/export/tensorboard.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "core/error.h"

namespace convoy {
namespace {

template <class T>
T take(std::string_view& bytes) {
  CHECK(bytes.size() >= sizeof(T), "the file ends early");
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  bytes.remove_prefix(sizeof(T));
  return value;
}

std::string_view take_bytes(std::string_view& bytes, std::size_t count) {
  CHECK(bytes.size() >= count, "the file ends early");
  const std::string_view part = bytes.substr(0, count);
  bytes.remove_prefix(count);
  return part;
}

std::uint64_t take_varint(std::string_view& bytes) {
  std::uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = take<std::uint8_t>(bytes);
    value |= std::uint64_t{byte & 127U} << shift;
    if (byte < 128) return value;
  }
}

// Undoes the mask as its definition says, and computes the sum bit by bit.
std::uint32_t plain_crc(std::uint32_t masked) {
  const std::uint32_t rotated = masked - 0xA282EAD8;
  return (rotated >> 17) | (rotated << 15);
}
std::uint32_t slow_crc32c(std::string_view bytes) {
  std::uint32_t sum = 0xFFFFFFFF;
  for (const char c : bytes) {
    sum ^= static_cast<std::uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) sum = (sum & 1) != 0 ? (sum >> 1) ^ 0x82F63B78 : sum >> 1;
  }
  return ~sum;
}

std::vector<std::string> records(std::string_view file) {
  std::vector<std::string> result;
  while (!file.empty()) {
    const std::string_view length_bytes = file.substr(0, 8);
    const auto length = take<std::uint64_t>(file);
    EXPECT_EQ(plain_crc(take<std::uint32_t>(file)), slow_crc32c(length_bytes));
    const std::string_view data = take_bytes(file, length);
    EXPECT_EQ(plain_crc(take<std::uint32_t>(file)), slow_crc32c(data));
    result.emplace_back(data);
  }
  return result;
}

struct Event {
  double wall_time = 0;
  std::uint64_t step = 0;
  std::string version;
  std::map<std::string, float> scalars;
};

void read_value(std::string_view bytes, Event& event) {
  std::string tag;
  while (!bytes.empty()) {
    const std::uint64_t key = take_varint(bytes);
    if (key == 1 * 8 + 2) tag = take_bytes(bytes, take_varint(bytes));
    if (key == 2 * 8 + 5) event.scalars[tag] = take<float>(bytes);
  }
}

Event read_event(std::string_view bytes) {
  Event event;
  while (!bytes.empty()) {
    const std::uint64_t key = take_varint(bytes);
    switch (key) {
      case 1 * 8 + 1: event.wall_time = take<double>(bytes); break;
      case 2 * 8 + 0: event.step = take_varint(bytes); break;
      case 3 * 8 + 2: event.version = take_bytes(bytes, take_varint(bytes)); break;
      case 5 * 8 + 2: {
        std::string_view summary = take_bytes(bytes, take_varint(bytes));
        while (!summary.empty()) {
          EXPECT_EQ(take_varint(summary), 1 * 8 + 2U);
          read_value(take_bytes(summary, take_varint(summary)), event);
        }
        break;
      }
      default: ADD_FAILURE() << "key " << key; return event;
    }
  }
  return event;
}

TEST(TensorBoard, TheChecksumHasItsPublishedValues) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283U);            // the check value of CRC-32C
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAU);  // RFC 3720, B.4
  EXPECT_EQ(plain_crc(masked_crc32c("convoy")), crc32c("convoy"));
}

TEST(TensorBoard, EventsComeBackAsTheyWereWritten) {
  const std::string file =
      tf_record(version_event(5)) +
      tf_record(scalar_event(2.5, 300, {{"train_loss", 1.25}, {"a_tag_of_some_length", -3e-4}})) +
      tf_record(scalar_event(3.5, 70000000000, {}));
  const auto found = records(file);
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(read_event(found[0]).version, "brain.Event:2");
  const Event event = read_event(found[1]);
  EXPECT_EQ(event.wall_time, 2.5);
  EXPECT_EQ(event.step, 300u);
  EXPECT_EQ(event.scalars, (std::map<std::string, float>{{"train_loss", 1.25F},
                                                         {"a_tag_of_some_length", -3e-4F}}));
  EXPECT_EQ(read_event(found[2]).step, 70000000000U);
}

}  // namespace
}  // namespace convoy
