#include "parallel/mpi_communicator.h"

#include <algorithm>
#include <limits>
#include <set>
#include <string>
#include <utility>

namespace convoy {

void check_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  CHECK(false, call, ": ", std::string(text, static_cast<std::size_t>(length)));
}

namespace {

// bf16 travels as two bytes, and is not reduced: MPI knows no bf16, and a sum that rounds to 8 bits
// at each addition is worth nothing. Gradients are f32.
MPI_Datatype datatype_of(DType dtype) {
  switch (dtype) {
    case DType::f64: return MPI_DOUBLE;
    case DType::f32: return MPI_FLOAT;
    case DType::i32: return MPI_INT32_T;
    case DType::bf16:
    case DType::u16: return MPI_UINT16_T;
  }
  return MPI_DATATYPE_NULL;
}

void check_sendable(const Tensor& t) {
  CHECK(t.contiguous(), "a strided ", t.describe(), " cannot be sent");
  CHECK(t.device() == DeviceKind::cpu, t.describe(), " is not in host memory");
}

void check_reducible(const Tensor& t) {
  check_sendable(t);
  CHECK(t.dtype() != DType::bf16 && t.dtype() != DType::u16, t.describe(),
        " is not reduced between CPU ranks: each addition would round; reduce in f32");
}

int as_count(std::int64_t n) {
  CHECK(n >= 0 && n <= std::numeric_limits<int>::max(), n, " does not fit an MPI count");
  return static_cast<int>(n);
}

// `n` elements as one element of a larger type. MPI keeps a freed type until its operations are
// complete.
class LongType {
 public:
  LongType(DType dtype, std::int64_t n, std::int64_t largest) {
    const MPI_Datatype one = datatype_of(dtype);
    const std::int64_t pieces = n / largest, rest = n % largest;
    if (pieces == 0) {
      MPI_CHECK(MPI_Type_contiguous(as_count(rest), one, &type_));
    } else {
      MPI_Datatype piece;
      MPI_CHECK(MPI_Type_contiguous(as_count(largest), one, &piece));
      const int counts[] = {as_count(pieces), as_count(rest)};
      const auto bytes = static_cast<MPI_Aint>(pieces * largest) * MPI_Aint(size_of(dtype));
      const MPI_Aint offsets[] = {0, bytes};
      const MPI_Datatype types[] = {piece, one};
      MPI_CHECK(MPI_Type_create_struct(2, counts, offsets, types, &type_));
      MPI_CHECK(MPI_Type_free(&piece));
    }
    MPI_CHECK(MPI_Type_commit(&type_));
  }
  ~LongType() { MPI_Type_free(&type_); }
  LongType(const LongType&) = delete;
  LongType& operator=(const LongType&) = delete;
  operator MPI_Datatype() const { return type_; }

 private:
  MPI_Datatype type_ = MPI_DATATYPE_NULL;
};

// The requests in flight of one rank's communicator, so that progress() can touch them.
class PendingRequests;
using InFlight = std::set<PendingRequests*>;

class PendingRequests final : public Work::Pending {
 public:
  explicit PendingRequests(std::shared_ptr<InFlight> in_flight) : in_flight_(std::move(in_flight)) {
    in_flight_->insert(this);
  }
  ~PendingRequests() override { in_flight_->erase(this); }
  PendingRequests(const PendingRequests&) = delete;
  PendingRequests& operator=(const PendingRequests&) = delete;

  MPI_Request* add() { return &requests_.emplace_back(MPI_REQUEST_NULL); }
  // Counts and offsets live until their operation is complete.
  const int* keep(std::vector<int> numbers) {
    return numbers_.emplace_back(std::move(numbers)).data();
  }

  bool test() override {
    int done = 0;
    MPI_CHECK(MPI_Testall(count(), requests_.data(), &done, MPI_STATUSES_IGNORE));
    return done != 0;
  }
  void wait() override { MPI_CHECK(MPI_Waitall(count(), requests_.data(), MPI_STATUSES_IGNORE)); }
  // Leaves the requests as they are, complete or not.
  void progress() const {
    for (const MPI_Request request : requests_) {
      int done = 0;
      MPI_CHECK(MPI_Request_get_status(request, &done, MPI_STATUS_IGNORE));
      if (done == 0) return;
    }
  }

 private:
  int count() const { return static_cast<int>(requests_.size()); }
  std::shared_ptr<InFlight> in_flight_;
  std::vector<MPI_Request> requests_;
  std::vector<std::vector<int>> numbers_;
};

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(MPI_Comm comm, std::int64_t largest) : comm_(comm), largest_(largest) {
    MPI_CHECK(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN));
    MPI_CHECK(MPI_Comm_rank(comm_, &rank_));
    MPI_CHECK(MPI_Comm_size(comm_, &size_));
  }
  ~MpiCommunicator() override {
    if (comm_ != MPI_COMM_WORLD) MPI_Comm_free(&comm_);
  }
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;

  std::string_view name() const override { return "mpi"; }
  int rank() const override { return rank_; }
  int size() const override { return size_; }

  Work all_reduce(Tensor values, Reduction reduction) override {
    check_reducible(values);
    const MPI_Op op = reduction == Reduction::sum ? MPI_SUM : MPI_MAX;
    return in_pieces(values, [&](void* data, int count, MPI_Datatype type, MPI_Request* request) {
      MPI_CHECK(MPI_Iallreduce(MPI_IN_PLACE, data, count, type, op, comm_, request));
    });
  }

  Work all_gather(Tensor out, Tensor in) override {
    check_sendable(out);
    check_sendable(in);
    CHECK(out.size() == in.size() * size_ && out.dtype() == in.dtype(), in.describe(), " of ",
          size_, " ranks into ", out.describe());
    const LongType part(in.dtype(), in.size(), largest_);
    auto pending = start();
    MPI_CHECK(MPI_Iallgather(in.data(), 1, part, out.data(), 1, part, comm_, pending->add()));
    return Work(std::move(pending));
  }

  Work reduce_scatter(Tensor out, Tensor in) override {
    check_reducible(in);
    check_sendable(out);
    CHECK(in.size() == out.size() * size_ && in.dtype() == out.dtype(), in.describe(), " over ",
          size_, " ranks into ", out.describe());
    if (out.size() > largest_) return reduce_to_each(out, in);
    auto pending = start();
    MPI_CHECK(MPI_Ireduce_scatter_block(in.data(), out.data(), as_count(out.size()),
                                        datatype_of(in.dtype()), MPI_SUM, comm_, pending->add()));
    return Work(std::move(pending));
  }

  Work all_to_all(Tensor out, std::span<const std::int64_t> receive_rows, Tensor in,
                  std::span<const std::int64_t> send_rows) override {
    check_sendable(out);
    check_sendable(in);
    CHECK(out.cols() == in.cols() && out.dtype() == in.dtype(), in.describe(), " to ",
          out.describe());
    const LongType row(in.dtype(), in.cols(), largest_);
    auto pending = start();
    const auto [send_counts, send_offsets] = counts_and_offsets(send_rows, in);
    const auto [receive_counts, receive_offsets] = counts_and_offsets(receive_rows, out);
    const int* counts[] = {pending->keep(send_counts), pending->keep(receive_counts)};
    const int* offsets[] = {pending->keep(send_offsets), pending->keep(receive_offsets)};
    MPI_CHECK(MPI_Ialltoallv(in.data(), counts[0], offsets[0], row, out.data(), counts[1],
                             offsets[1], row, comm_, pending->add()));
    return Work(std::move(pending));
  }

  Work broadcast(Tensor values, int root) override {
    check_sendable(values);
    return in_pieces(values, [&](void* data, int count, MPI_Datatype type, MPI_Request* request) {
      MPI_CHECK(MPI_Ibcast(data, count, type, root, comm_, request));
    });
  }

  Work exchange(std::span<const Transfer> transfers) override {
    constexpr int kTag = 0;  // messages between two ranks keep their order
    auto pending = start();
    for (const auto& [kind, tensor, peer] : transfers) {
      check_sendable(tensor);
      const LongType whole(tensor.dtype(), tensor.size(), largest_);
      MPI_Request* request = pending->add();
      if (kind == Transfer::Kind::send) {
        MPI_CHECK(MPI_Isend(tensor.data(), 1, whole, peer, kTag, comm_, request));
      } else {
        MPI_CHECK(MPI_Irecv(tensor.data(), 1, whole, peer, kTag, comm_, request));
      }
    }
    return Work(std::move(pending));
  }

  void barrier() override { MPI_CHECK(MPI_Barrier(comm_)); }

  std::unique_ptr<Communicator> split(int colour) override {
    MPI_Comm part;
    MPI_CHECK(MPI_Comm_split(comm_, colour, rank_, &part));
    return make_mpi_communicator(part, largest_);
  }

  void progress() override {
    for (const PendingRequests* pending : *in_flight_) pending->progress();
  }

 private:
  std::unique_ptr<PendingRequests> start() const {
    return std::make_unique<PendingRequests>(in_flight_);
  }

  // Calls start_piece(data, count, type, request) for consecutive pieces that fit an MPI count.
  template <class StartPiece>
  Work in_pieces(const Tensor& t, StartPiece&& start_piece) {
    auto pending = start();
    auto* data = static_cast<std::byte*>(t.data());
    for (std::int64_t begin = 0; begin < t.size(); begin += largest_) {
      start_piece(data + static_cast<std::size_t>(begin) * size_of(t.dtype()),
                  as_count(std::min(largest_, t.size() - begin)), datatype_of(t.dtype()),
                  pending->add());
    }
    return Work(std::move(pending));
  }

  // A reduce-scatter too long for MPI's: a reduction to each rank, piece by piece.
  Work reduce_to_each(const Tensor& out, const Tensor& in) {
    const std::size_t bytes = size_of(in.dtype());
    auto pending = start();
    for (int root = 0; root < size_; ++root) {
      for (std::int64_t begin = 0; begin < out.size(); begin += largest_) {
        const auto* from = static_cast<const std::byte*>(in.data()) +
                           static_cast<std::size_t>(root * out.size() + begin) * bytes;
        auto* to = static_cast<std::byte*>(out.data()) + static_cast<std::size_t>(begin) * bytes;
        MPI_CHECK(MPI_Ireduce(from, to, as_count(std::min(largest_, out.size() - begin)),
                              datatype_of(in.dtype()), MPI_SUM, root, comm_, pending->add()));
      }
    }
    return Work(std::move(pending));
  }

  std::pair<std::vector<int>, std::vector<int>> counts_and_offsets(
      std::span<const std::int64_t> rows, const Tensor& t) const {
    CHECK(std::ssize(rows) == size_, rows.size(), " row counts for ", size_, " ranks");
    std::vector<int> counts, offsets;
    std::int64_t offset = 0;
    for (const std::int64_t n : rows) {
      counts.push_back(as_count(n));
      offsets.push_back(as_count(offset));
      offset += n;
    }
    CHECK(offset == t.rows(), offset, " rows of ", t.describe());
    return {counts, offsets};
  }

  MPI_Comm comm_;
  std::int64_t largest_;
  int rank_ = 0;
  int size_ = 1;
  std::shared_ptr<InFlight> in_flight_ = std::make_shared<InFlight>();
};

}  // namespace

std::unique_ptr<Communicator> make_mpi_communicator(MPI_Comm comm, std::int64_t largest) {
  return std::make_unique<MpiCommunicator>(comm, largest);
}

}  // namespace convoy
