// Works on messages, one at a time, until there was none for a second: worker HOST:PORT QUEUE MILLISECONDS
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <exception>
#include <iostream>
#include <memory>
#include <string>
#include <thread>

#include "connection.h"
#include "stiqueue/v1/queue.grpc.pb.h"

using std::chrono::milliseconds;
using std::chrono::system_clock;
using stiqueue::v1::QueueService;

namespace {

constexpr milliseconds kFirstPause(100);
constexpr milliseconds kLongestPause(5'000);

volatile std::sig_atomic_t stopping = 0;  // set by SIGTERM: the worker ends after the message under way

class Worker {
 public:
  Worker(const std::string& target, const std::string& queue, milliseconds work)
      : client_(QueueService::NewStub(Connect(target))), queue_(queue), work_(work) {}

  // Opens the stream again, with a growing pause, for as long as the server is away.
  grpc::Status Run() {
    milliseconds pause = kFirstPause;
    while (!stopping) {
      worked_ = false;
      const grpc::Status status = Consume();
      const auto code = status.error_code();
      if (stopping || status.ok()) return grpc::Status::OK;
      if (code != grpc::StatusCode::UNAVAILABLE && code != grpc::StatusCode::DEADLINE_EXCEEDED) {
        return status;  // a wrong token, say: trying again would not help
      }
      if (worked_) pause = kFirstPause;
      std::cerr << "the stream ended, trying again in " << pause.count() << " ms: " << status.error_message() << "\n";
      const auto until = system_clock::now() + pause;
      while (!stopping && system_clock::now() < until) std::this_thread::sleep_for(milliseconds(50));
      pause = std::min(2 * pause, kLongestPause);
    }
    return grpc::Status::OK;
  }

 private:
  // Works on the messages of one stream until the queue was idle for a second.
  grpc::Status Consume() {
    // The stream is the lease: what it holds when it ends, for whatever reason, goes back to its place in the queue.
    stiqueue::v1::DeqRequest request;
    request.set_queue(queue_);
    request.set_prefetch(10);    // most unsettled messages at a time
    request.set_concurrency(1);  // of which one is worked on
    request.mutable_wait()->set_seconds(1);
    request.set_consumer("a worker in C++");
    grpc::ClientContext context;
    auto deliveries = client_->Deq(&context, request);

    stiqueue::v1::DeqResponse delivery;
    grpc::Status settled;
    while (settled.ok() && !stopping && deliveries->Read(&delivery)) {
      for (const auto& message : delivery.messages()) {
        if (stopping) break;
        std::this_thread::sleep_for(work_);
        std::cout << message.body() << std::endl;
        settled = Settle(message);
        if (!settled.ok()) break;
        worked_ = true;
      }
    }
    if (!settled.ok() || stopping) context.TryCancel();
    const grpc::Status ended = deliveries->Finish();
    return settled.ok() ? ended : settled;
  }

  // Acks a message that is done.
  grpc::Status Settle(const stiqueue::v1::Message& message) {
    stiqueue::v1::AckRequest ack;
    ack.add_lease_ids(message.lease_id());
    grpc::ClientContext context;
    context.set_deadline(system_clock::now() + std::chrono::seconds(30));
    stiqueue::v1::AckResponse answer;
    const grpc::Status status = client_->Ack(&context, ack, &answer);
    if (status.ok() && answer.stale_lease_ids_size() > 0) {
      std::cerr << "message " << message.id() << " was given to another worker meanwhile\n";
    }
    return status;
  }

  std::unique_ptr<QueueService::Stub> client_;
  const std::string queue_;
  const milliseconds work_;
  bool worked_ = false;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: worker HOST:PORT QUEUE MILLISECONDS\n";
    return 2;
  }
  std::signal(SIGTERM, [](int) { stopping = 1; });
  try {
    const grpc::Status status = Worker(argv[1], argv[2], milliseconds(std::stoi(argv[3]))).Run();
    if (!status.ok()) std::cerr << status.error_message() << "\n";
    return status.ok() ? 0 : 1;
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 2;
  }
}
