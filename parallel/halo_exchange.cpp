#include "parallel/halo_exchange.h"

#include <algorithm>

namespace convoy {

HaloExchange::HaloExchange(const Context& context, Communicator& ranks, const RowLayout& layout,
                           std::int64_t sequences, std::int64_t before)
    : context_(context),
      ranks_(ranks),
      layout_(layout),
      sequences_(sequences),
      before_(before),
      runs_(halo_runs(layout, before)) {
  CHECK(ranks.size() == layout.ranks(), ranks.size(), " ranks exchange the halos of ",
        layout.ranks());
  for (const HaloRun& run : runs_) {
    if (run.owner == ranks.rank() && run.reader == ranks.rank()) {
      own_.push_back(run);
    } else if (run.owner == ranks.rank()) {
      message_of(readers_, run.reader).runs.push_back(run);
    } else if (run.reader == ranks.rank()) {
      message_of(owners_, run.owner).runs.push_back(run);
    }
  }
}

HaloExchange::Message& HaloExchange::message_of(std::vector<Message>& messages, int peer) {
  const auto is_peers = [&](const Message& message) { return message.peer == peer; };
  const auto found = std::find_if(messages.begin(), messages.end(), is_peers);
  if (found != messages.end()) return *found;
  messages.push_back({peer, {}, {}});
  return messages.back();
}

void HaloExchange::provide(std::vector<Message>& messages, std::int64_t columns) {
  for (Message& message : messages) {
    std::int64_t rows = 0;
    for (const HaloRun& run : message.runs) rows += sequences_ * run.count;
    message.rows = context_.take({rows, columns});
  }
}

void HaloExchange::post(const std::vector<Message>& send, const std::vector<Message>& receive) {
  std::vector<Transfer> transfers;
  for (const Message& message : send) {
    transfers.push_back({Transfer::Kind::send, message.rows, message.peer});
  }
  for (const Message& message : receive) {
    transfers.push_back({Transfer::Kind::receive, message.rows, message.peer});
  }
  in_flight_ = ranks_.exchange(transfers);
}

Tensor HaloExchange::rows_of(const Tensor& x, const HaloRun& run, std::int64_t sequence) const {
  const std::int64_t segment = sequence * layout_.segments() + run.owner_segment;
  return x.row_range(segment * layout_.segment_length() + run.owner_row, run.count);
}

Tensor HaloExchange::halo_of(const Tensor& halo, const HaloRun& run, std::int64_t sequence) const {
  const std::int64_t segment = sequence * layout_.segments() + run.reader_segment;
  return halo.row_range(segment * before_ + run.halo_row, run.count);
}

template <class Function>
void HaloExchange::for_each_piece(const Message& message, Function function) const {
  std::int64_t row = 0;
  for (std::int64_t sequence = 0; sequence < sequences_; ++sequence) {
    for (const HaloRun& run : message.runs) {
      function(message.rows.row_range(row, run.count), run, sequence);
      row += run.count;
    }
  }
}

namespace {

// Calls function(columns of `wide`, part) for the parts that lie side by side in it.
template <class Function>
void for_each_part(const Tensor& wide, std::span<const Tensor> parts, Function function) {
  std::int64_t column = 0;
  for (const Tensor& part : parts) {
    function(wide.column_range(column, part.cols()), part);
    column += part.cols();
  }
}

}  // namespace

void HaloExchange::start(Tensor halo, std::span<const Tensor> parts) {
  if (empty()) return;
  provide(readers_, halo.cols());
  provide(owners_, halo.cols());
  for (const Message& message : readers_) {
    for_each_piece(message, [&](Tensor rows, const HaloRun& run, std::int64_t sequence) {
      for_each_part(rows, parts, [&](Tensor columns, Tensor x) {
        ops::copy(context_, columns, rows_of(x, run, sequence));
      });
    });
  }
  post(readers_, owners_);
  ops::fill(context_, halo, 0);
  for (const HaloRun& run : own_) {
    for (std::int64_t sequence = 0; sequence < sequences_; ++sequence) {
      for_each_part(halo_of(halo, run, sequence), parts, [&](Tensor columns, Tensor x) {
        ops::copy(context_, columns, rows_of(x, run, sequence));
      });
    }
  }
}

void HaloExchange::finish(Tensor halo) {
  in_flight_.wait();
  for (const Message& message : owners_) {
    for_each_piece(message, [&](Tensor rows, const HaloRun& run, std::int64_t sequence) {
      ops::copy(context_, halo_of(halo, run, sequence), rows);
    });
  }
}

void HaloExchange::start_return(Tensor dhalo) {
  if (empty()) return;
  provide(readers_, dhalo.cols());
  provide(owners_, dhalo.cols());
  for (const Message& message : owners_) {
    for_each_piece(message, [&](Tensor rows, const HaloRun& run, std::int64_t sequence) {
      ops::copy(context_, rows, halo_of(dhalo, run, sequence));
    });
  }
  post(owners_, readers_);
}

// In a fixed order: what others return by rank of the reader, then this rank's own.
void HaloExchange::finish_return(Tensor dhalo, std::span<const Tensor> dparts) {
  in_flight_.wait();
  for (const Message& message : readers_) {
    for_each_piece(message, [&](Tensor rows, const HaloRun& run, std::int64_t sequence) {
      for_each_part(rows, dparts, [&](Tensor columns, Tensor dx) {
        const Tensor target = rows_of(dx, run, sequence);
        ops::add(context_, target, target, columns);
      });
    });
  }
  for (const HaloRun& run : own_) {
    for (std::int64_t sequence = 0; sequence < sequences_; ++sequence) {
      for_each_part(halo_of(dhalo, run, sequence), dparts, [&](Tensor columns, Tensor dx) {
        const Tensor target = rows_of(dx, run, sequence);
        ops::add(context_, target, target, columns);
      });
    }
  }
}

}  // namespace convoy
