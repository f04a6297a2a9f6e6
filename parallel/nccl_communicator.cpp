#include "parallel/nccl_communicator.h"

#include <nccl.h>

#include <array>
#include <thread>
#include <utility>
#include <vector>

#include "core/cuda/cuda_backend.h"
#include "core/cuda/cuda_check.h"

#define NCCL_CHECK(call)                                                               \
  do {                                                                                 \
    const ncclResult_t nccl_status = (call);                                           \
    CHECK(nccl_status == ncclSuccess, "NCCL: ", ncclGetErrorString(nccl_status), "; ", \
          ncclGetLastError(nullptr), " (NCCL_DEBUG=WARN says more)");                  \
  } while (false)

namespace convoy {
namespace {

ncclDataType_t datatype_of(const Tensor& t) {
  switch (t.dtype()) {
    case DType::f64: return ncclFloat64;
    case DType::f32: return ncclFloat32;
    case DType::bf16: return ncclBfloat16;
    case DType::i32: return ncclInt32;
    case DType::u16: break;
  }
  CHECK(false, t.describe(), " is not reduced");
  return ncclUint8;
}

bool on_device(const Tensor& t) { return t.device() == DeviceKind::cuda; }

void check_sendable(const Tensor& t) {
  CHECK(t.contiguous(), "a strided ", t.describe(), " cannot be sent");
}

// One communicator's stream and the stream of the computation, and the events between them.
class Streams {
 public:
  explicit Streams(cudaStream_t compute) : compute_(compute) {
    int least = 0, greatest = 0;
    CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    CUDA_CHECK(cudaStreamCreateWithPriority(&transfers_, cudaStreamNonBlocking, greatest));
    CUDA_CHECK(cudaEventCreateWithFlags(&ready_, cudaEventDisableTiming));
  }
  ~Streams() {
    for (const cudaEvent_t event : free_) cudaEventDestroy(event);
    cudaEventDestroy(ready_);
    cudaStreamDestroy(transfers_);
  }
  Streams(const Streams&) = delete;
  Streams& operator=(const Streams&) = delete;

  cudaStream_t compute() const { return compute_; }
  cudaStream_t transfers() const { return transfers_; }

  // Transfers from here on come after the computation that was asked for so far.
  void follow_computation() {
    CUDA_CHECK(cudaEventRecord(ready_, compute_));
    CUDA_CHECK(cudaStreamWaitEvent(transfers_, ready_));
  }
  // The end of the transfers that were asked for so far.
  cudaEvent_t take_event() {
    cudaEvent_t event = nullptr;
    if (free_.empty()) {
      CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    } else {
      event = free_.back();
      free_.pop_back();
    }
    CUDA_CHECK(cudaEventRecord(event, transfers_));
    return event;
  }
  void give_back(cudaEvent_t event) { free_.push_back(event); }

 private:
  cudaStream_t compute_, transfers_ = nullptr;
  cudaEvent_t ready_ = nullptr;
  std::vector<cudaEvent_t> free_;
};

class OnStream final : public Work::Pending {
 public:
  explicit OnStream(std::shared_ptr<Streams> streams)
      : streams_(std::move(streams)), done_(streams_->take_event()) {}
  ~OnStream() override { streams_->give_back(done_); }
  OnStream(const OnStream&) = delete;
  OnStream& operator=(const OnStream&) = delete;

  bool test() override {
    const cudaError_t status = cudaEventQuery(done_);
    if (status == cudaErrorNotReady) return false;
    CUDA_CHECK(status);
    wait();  // what the backend does next comes after it in any case
    return true;
  }
  void wait() override { CUDA_CHECK(cudaStreamWaitEvent(streams_->compute(), done_)); }

 private:
  std::shared_ptr<Streams> streams_;
  cudaEvent_t done_;
};

// An ncclComm_t that never blocks the host for longer than a deadline.
class Handle {
 public:
  Handle(Communicator& host, std::chrono::seconds deadline) : deadline_(deadline) {
    ncclUniqueId id{};
    if (host.rank() == 0) NCCL_CHECK(ncclGetUniqueId(&id));
    static_assert(sizeof(id) % 2 == 0);
    host.broadcast(Tensor(&id, DType::u16, DeviceKind::cpu, {sizeof(id) / 2}), 0).wait();
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    const ncclResult_t started =
        ncclCommInitRankConfig(&comm_, host.size(), id, host.rank(), &config);
    finish(started, "setting up a communicator");
  }
  ~Handle() {
    if (comm_ == nullptr) return;
    if (failed_ || std::uncaught_exceptions() > 0) {  // the peers may be gone
      ncclCommAbort(comm_);
      return;
    }
    ncclResult_t state = ncclCommFinalize(comm_);
    while (state == ncclInProgress) ncclCommGetAsyncError(comm_, &state);
    ncclCommDestroy(comm_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  ncclComm_t get() const { return comm_; }

  // Waits until what was started has been handed to the device; throws what went wrong.
  void finish(ncclResult_t started, const char* doing) {
    const auto end = std::chrono::steady_clock::now() + deadline_;
    ncclResult_t state = started;
    while (state == ncclInProgress) {
      if (std::chrono::steady_clock::now() > end) {
        failed_ = true;
        throw Error(concat("NCCL: ", doing, " took more than ", deadline_.count(),
                           " s; is every rank alive, and does each have a GPU of its own? "
                           "NCCL_DEBUG=INFO shows the connections"));
      }
      std::this_thread::yield();
      ncclCommGetAsyncError(comm_, &state);
    }
    failed_ = failed_ || state != ncclSuccess;
    NCCL_CHECK(state);
  }

  // An error that a transfer met since.
  void check() {
    ncclResult_t state = ncclSuccess;
    NCCL_CHECK(ncclCommGetAsyncError(comm_, &state));
    failed_ = failed_ || (state != ncclSuccess && state != ncclInProgress);
    CHECK(!failed_, "NCCL: a transfer failed: ", ncclGetErrorString(state),
          "; another rank may have ended");
  }

 private:
  std::chrono::seconds deadline_;
  ncclComm_t comm_ = nullptr;
  bool failed_ = false;
};

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(std::unique_ptr<Communicator> host, CudaBackend& backend,
                   const NcclOptions& options)
      : host_(std::move(host)),
        backend_(backend),
        options_(options),
        streams_(std::make_shared<Streams>(backend.stream())) {
    if (size() > 1) handle_ = std::make_unique<Handle>(*host_, options.deadline);
  }
  ~NcclCommunicator() override { cudaStreamSynchronize(streams_->transfers()); }
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  std::string_view name() const override { return "nccl"; }
  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  bool in_order() const override { return true; }

  Work all_reduce(Tensor values, Reduction reduction) override {
    if (!on_device(values)) return host_->all_reduce(values, reduction);
    check_sendable(values);
    if (size() == 1) return {};
    const ncclRedOp_t op = reduction == Reduction::sum ? ncclSum : ncclMax;
    return start([&](ncclComm_t comm, cudaStream_t stream) {
      return ncclAllReduce(values.data(), values.data(), count(values), datatype_of(values), op,
                           comm, stream);
    });
  }

  Work all_gather(Tensor out, Tensor in) override {
    if (!on_device(in)) return host_->all_gather(out, in);
    check_sendable(out);
    check_sendable(in);
    CHECK(out.size() == in.size() * size() && out.dtype() == in.dtype(), in.describe(), " of ",
          size(), " ranks into ", out.describe());
    if (size() == 1) return copy(out, in);
    return start([&](ncclComm_t comm, cudaStream_t stream) {
      return ncclAllGather(in.data(), out.data(), in.bytes(), ncclUint8, comm, stream);
    });
  }

  Work reduce_scatter(Tensor out, Tensor in) override {
    if (!on_device(in)) return host_->reduce_scatter(out, in);
    check_sendable(out);
    check_sendable(in);
    CHECK(in.size() == out.size() * size() && in.dtype() == out.dtype(), in.describe(), " over ",
          size(), " ranks into ", out.describe());
    if (size() == 1) return copy(out, in);
    return start([&](ncclComm_t comm, cudaStream_t stream) {
      return ncclReduceScatter(in.data(), out.data(), count(out), datatype_of(in), ncclSum, comm,
                               stream);
    });
  }

  Work all_to_all(Tensor out, std::span<const std::int64_t> receive_rows, Tensor in,
                  std::span<const std::int64_t> send_rows) override {
    if (!on_device(in)) return host_->all_to_all(out, receive_rows, in, send_rows);
    check_sendable(out);
    check_sendable(in);
    CHECK(std::ssize(receive_rows) == size() && std::ssize(send_rows) == size(),
          receive_rows.size(), " and ", send_rows.size(), " row counts for ", size(), " ranks");
    if (size() == 1) return copy(out, in);
    std::vector<Transfer> transfers;
    std::int64_t sent = 0, received = 0;
    for (int peer = 0; peer < size(); ++peer) {
      const auto p = static_cast<std::size_t>(peer);
      transfers.push_back({Transfer::Kind::send, in.row_range(sent, send_rows[p]), peer});
      transfers.push_back(
          {Transfer::Kind::receive, out.row_range(received, receive_rows[p]), peer});
      sent += send_rows[p];
      received += receive_rows[p];
    }
    CHECK(sent == in.rows() && received == out.rows(), sent, " rows of ", in.describe(), " and ",
          received, " of ", out.describe());
    return exchange(transfers);
  }

  Work broadcast(Tensor values, int root) override {
    if (!on_device(values)) return host_->broadcast(values, root);
    check_sendable(values);
    if (size() == 1) return {};
    return start([&](ncclComm_t comm, cudaStream_t stream) {
      return ncclBroadcast(values.data(), values.data(), values.bytes(), ncclUint8, root, comm,
                           stream);
    });
  }

  Work exchange(std::span<const Transfer> transfers) override {
    if (transfers.empty()) return {};
    if (!on_device(transfers.front().tensor)) return host_->exchange(transfers);
    CHECK(size() > 1, "a lone rank has no peer ", transfers.front().peer);
    for (const Transfer& transfer : transfers) check_sendable(transfer.tensor);
    return start([&](ncclComm_t comm, cudaStream_t stream) {
      NCCL_CHECK(ncclGroupStart());  // whose end reports what went wrong in it
      for (const auto& [kind, tensor, peer] : transfers) {
        kind == Transfer::Kind::send
            ? ncclSend(tensor.data(), tensor.bytes(), ncclUint8, peer, comm, stream)
            : ncclRecv(tensor.data(), tensor.bytes(), ncclUint8, peer, comm, stream);
      }
      return ncclGroupEnd();
    });
  }

  void barrier() override { host_->barrier(); }
  void progress() override { host_->progress(); }

  std::unique_ptr<Communicator> split(int colour) override {
    return std::make_unique<NcclCommunicator>(host_->split(colour), backend_, options_);
  }

 private:
  static std::size_t count(const Tensor& t) { return static_cast<std::size_t>(t.size()); }

  template <class Operation>
  Work start(Operation&& operation) {
    handle_->check();
    streams_->follow_computation();
    handle_->finish(operation(handle_->get(), streams_->transfers()), "starting a transfer");
    return Work(std::make_unique<OnStream>(streams_));
  }

  Work copy(const Tensor& out, const Tensor& in) {
    if (out.data() != in.data()) backend_.copy(out, in);
    return {};
  }

  std::unique_ptr<Communicator> host_;
  CudaBackend& backend_;
  NcclOptions options_;
  std::shared_ptr<Streams> streams_;
  std::unique_ptr<Handle> handle_;  // none for a lone rank
};

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> host,
                                                     Backend& backend, const NcclOptions& options) {
  auto* cuda = dynamic_cast<CudaBackend*>(&backend);
  CHECK(cuda != nullptr, "NCCL with the backend ", backend.name());
  return std::make_unique<NcclCommunicator>(std::move(host), *cuda, options);
}

std::string nccl_version() {
  int version = 0;
  NCCL_CHECK(ncclGetVersion(&version));
  return concat(version / 10000, '.', version / 100 % 100, '.', version % 100);
}

}  // namespace convoy
