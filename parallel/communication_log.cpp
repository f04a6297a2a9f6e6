#include "parallel/communication_log.h"

namespace convoy {

std::string_view name_of(Collective collective) {
  switch (collective) {
    case Collective::all_reduce: return "all_reduce";
    case Collective::all_gather: return "all_gather";
    case Collective::reduce_scatter: return "reduce_scatter";
    case Collective::all_to_all: return "all_to_all";
    case Collective::broadcast: return "broadcast";
    case Collective::exchange: return "exchange";
    case Collective::barrier: return "barrier";
    case Collective::split: return "split";
  }
  return "?";
}

CommunicationCount& CommunicationCount::operator+=(const CommunicationCount& other) {
  operations += other.operations;
  bytes += other.bytes;
  wait_s += other.wait_s;
  return *this;
}

CommunicationLog::Counts& CommunicationLog::counts_of(std::string_view group) {
  return groups_.try_emplace(std::string(group)).first->second;
}

CommunicationCount CommunicationLog::total() const {
  CommunicationCount sum;
  for (const auto& [group, counts] : groups_) sum += total(group);
  return sum;
}

CommunicationCount CommunicationLog::total(std::string_view group) const {
  CommunicationCount sum;
  for (int i = 0; i < kCollectives; ++i) sum += count(group, static_cast<Collective>(i));
  return sum;
}

CommunicationCount CommunicationLog::count(std::string_view group, Collective collective) const {
  const auto place = groups_.find(group);
  if (place == groups_.end()) return {};
  return place->second[static_cast<std::size_t>(collective)];
}

std::vector<CommunicationLog::Row> CommunicationLog::rows() const {
  std::vector<Row> rows;
  for (const auto& [group, counts] : groups_) {
    for (std::size_t i = 0; i < counts.size(); ++i) {
      if (counts[i].operations == 0) continue;
      rows.push_back({group, static_cast<Collective>(i), counts[i]});
    }
  }
  return rows;
}

void CommunicationLog::reset() {
  for (auto& [group, counts] : groups_) counts.fill({});
}

}  // namespace convoy
