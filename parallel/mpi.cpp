#include "parallel/mpi.h"

#include <mpi.h>

#include <cstdlib>
#include <limits>
#include <string>

#define MPI_CHECK(call) ::convoy::check_mpi(call, #call)

namespace convoy {
namespace {

void check_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  CHECK(false, call, ": ", std::string(text, static_cast<std::size_t>(length)));
}

// bf16 travels as two bytes and is never reduced by MPI: gradients are f32.
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

int count_of(const Tensor& t) {
  CHECK(t.contiguous(), "a strided ", t.describe(), " cannot be sent");
  CHECK(t.size() <= std::numeric_limits<int>::max(), t.describe(), " is too large for one message");
  return static_cast<int>(t.size());
}

class PendingRequests final : public Work::Pending {
 public:
  explicit PendingRequests(std::vector<MPI_Request> requests) : requests_(std::move(requests)) {}

  bool test() override {
    int done = 0;
    MPI_CHECK(MPI_Testall(count(), requests_.data(), &done, MPI_STATUSES_IGNORE));
    return done != 0;
  }
  void wait() override { MPI_CHECK(MPI_Waitall(count(), requests_.data(), MPI_STATUSES_IGNORE)); }

 private:
  int count() const { return static_cast<int>(requests_.size()); }
  std::vector<MPI_Request> requests_;
};

Work pending(std::vector<MPI_Request> requests) {
  return Work(std::make_unique<PendingRequests>(std::move(requests)));
}

// The counts and displacements of an all-to-all must live until it is complete.
class PendingAllToAll final : public Work::Pending {
 public:
  PendingAllToAll(Tensor out, std::span<const std::int64_t> receive_rows, Tensor in,
                  std::span<const std::int64_t> send_rows, MPI_Comm comm)
      : receive_(receive_rows, out.cols()), send_(send_rows, in.cols()) {
    MPI_CHECK(MPI_Ialltoallv(in.data(), send_.counts.data(), send_.offsets.data(),
                             datatype_of(in.dtype()), out.data(), receive_.counts.data(),
                             receive_.offsets.data(), datatype_of(out.dtype()), comm, &request_));
  }
  bool test() override {
    int done = 0;
    MPI_CHECK(MPI_Test(&request_, &done, MPI_STATUS_IGNORE));
    return done != 0;
  }
  void wait() override { MPI_CHECK(MPI_Wait(&request_, MPI_STATUS_IGNORE)); }

 private:
  struct Parts {
    std::vector<int> counts, offsets;
    Parts(std::span<const std::int64_t> rows, std::int64_t columns) {
      int offset = 0;
      for (const auto row_count : rows) {
        counts.push_back(static_cast<int>(row_count * columns));
        offsets.push_back(offset);
        offset += counts.back();
      }
    }
  };
  Parts receive_, send_;
  MPI_Request request_ = MPI_REQUEST_NULL;
};

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(MPI_Comm comm, bool owned) : comm_(comm), owned_(owned) {
    MPI_CHECK(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN));
    MPI_CHECK(MPI_Comm_rank(comm_, &rank_));
    MPI_CHECK(MPI_Comm_size(comm_, &size_));
  }
  ~MpiCommunicator() override {
    if (owned_) MPI_Comm_free(&comm_);
  }
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;

  std::string_view name() const override { return "mpi"; }
  int rank() const override { return rank_; }
  int size() const override { return size_; }

  Work all_reduce(Tensor values, Reduction reduction) override {
    CHECK(values.dtype() != DType::bf16 && values.dtype() != DType::u16, "no reduction of ",
          values.describe(), " over MPI");
    MPI_Request request;
    MPI_CHECK(MPI_Iallreduce(MPI_IN_PLACE, values.data(), count_of(values),
                             datatype_of(values.dtype()),
                             reduction == Reduction::sum ? MPI_SUM : MPI_MAX, comm_, &request));
    return pending({request});
  }

  Work all_gather(Tensor out, Tensor in) override {
    CHECK(out.size() == in.size() * size_, in.describe(), " of ", size_, " ranks into ",
          out.describe());
    MPI_Request request;
    MPI_CHECK(MPI_Iallgather(in.data(), count_of(in), datatype_of(in.dtype()), out.data(),
                             count_of(in), datatype_of(out.dtype()), comm_, &request));
    return pending({request});
  }

  Work reduce_scatter(Tensor out, Tensor in) override {
    CHECK(in.size() == out.size() * size_, in.describe(), " over ", size_, " ranks into ",
          out.describe());
    MPI_Request request;
    MPI_CHECK(MPI_Ireduce_scatter_block(in.data(), out.data(), count_of(out),
                                        datatype_of(in.dtype()), MPI_SUM, comm_, &request));
    return pending({request});
  }

  Work all_to_all(Tensor out, std::span<const std::int64_t> receive_rows, Tensor in,
                  std::span<const std::int64_t> send_rows) override {
    return Work(std::make_unique<PendingAllToAll>(out, receive_rows, in, send_rows, comm_));
  }

  Work broadcast(Tensor values, int root) override {
    MPI_Request request;
    MPI_CHECK(MPI_Ibcast(values.data(), count_of(values), datatype_of(values.dtype()), root, comm_,
                         &request));
    return pending({request});
  }

  Work exchange(std::span<const Transfer> transfers) override {
    constexpr int kTag = 0;  // messages between two ranks keep their order
    std::vector<MPI_Request> requests(transfers.size(), MPI_REQUEST_NULL);
    for (std::size_t i = 0; i < transfers.size(); ++i) {
      const auto& [kind, tensor, peer] = transfers[i];
      const auto type = datatype_of(tensor.dtype());
      if (kind == Transfer::Kind::send) {
        MPI_CHECK(
            MPI_Isend(tensor.data(), count_of(tensor), type, peer, kTag, comm_, &requests[i]));
      } else {
        MPI_CHECK(
            MPI_Irecv(tensor.data(), count_of(tensor), type, peer, kTag, comm_, &requests[i]));
      }
    }
    return pending(std::move(requests));
  }

  void barrier() override { MPI_CHECK(MPI_Barrier(comm_)); }

  std::unique_ptr<Communicator> split(int colour) override {
    MPI_Comm part;
    MPI_CHECK(MPI_Comm_split(comm_, colour, rank_, &part));
    return std::make_unique<MpiCommunicator>(part, true);
  }

 private:
  MPI_Comm comm_;
  bool owned_;
  int rank_ = 0;
  int size_ = 1;
};

bool started_by_launcher() {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}) {
    if (std::getenv(variable) != nullptr) return true;
  }
  return false;
}

}  // namespace

MpiEnvironment::MpiEnvironment() : launched_(started_by_launcher()) {
  if (!launched_) return;
  int provided = 0;
  MPI_CHECK(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided));
  int rank = 0;
  MPI_CHECK(MPI_Comm_rank(MPI_COMM_WORLD, &rank));
  set_error_rank(rank);
}

MpiEnvironment::~MpiEnvironment() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (launched_ && finalized == 0) MPI_Finalize();
}

std::unique_ptr<Communicator> MpiEnvironment::world() const {
  if (!launched_) return make_self_communicator();
  return std::make_unique<MpiCommunicator>(MPI_COMM_WORLD, false);
}

void MpiEnvironment::abort(int code) const {
  if (launched_) MPI_Abort(MPI_COMM_WORLD, code);
  std::_Exit(code);
}

}  // namespace convoy
