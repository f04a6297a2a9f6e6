// What a rank has communicated: for each group ("tp") and each kind of operation how often, how
// many bytes, and for how long it was blocked in wait(). One log per rank, written by that rank.
//
// Bytes are the payload that this rank gives, whatever an algorithm sends:
//   all_reduce      its values                     broadcast  its values on the root, else nothing
//   all_gather      its part (`in`)                exchange   the tensors it sends
//   reduce_scatter  its whole `in`                 barrier    nothing
//   all_to_all      its whole `in`, own rows too   split      nothing
// An exchange of several messages is one operation. Groups of one rank communicate nothing.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace convoy {

enum class Collective : std::uint8_t {
  all_reduce,
  all_gather,
  reduce_scatter,
  all_to_all,
  broadcast,
  exchange,
  barrier,
  split,
};
inline constexpr int kCollectives = 8;
std::string_view name_of(Collective collective);

struct CommunicationCount {
  std::int64_t operations = 0;
  std::int64_t bytes = 0;
  double wait_s = 0;
  CommunicationCount& operator+=(const CommunicationCount& other);
};

class CommunicationLog {
 public:
  using Counts = std::array<CommunicationCount, kCollectives>;
  struct Row {
    std::string group;
    Collective collective;
    CommunicationCount count;
  };

  Counts& counts_of(std::string_view group);  // stays where it is
  CommunicationCount total() const;
  CommunicationCount total(std::string_view group) const;
  CommunicationCount count(std::string_view group, Collective collective) const;
  std::vector<Row> rows() const;  // of what happened, by group
  void reset();                   // all counts to 0

 private:
  std::map<std::string, Counts, std::less<>> groups_;
};

}  // namespace convoy
