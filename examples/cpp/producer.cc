// Enqueues numbered messages: producer HOST:PORT QUEUE COUNT
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <string>
#include <thread>

#include "stiqueue/v1/queue.grpc.pb.h"

using std::chrono::system_clock;

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: producer HOST:PORT QUEUE COUNT\n";
    return 2;
  }
  auto client =
      stiqueue::v1::QueueService::NewStub(grpc::CreateChannel(argv[1], grpc::InsecureChannelCredentials()));
  const auto started = system_clock::now().time_since_epoch().count();
  const std::string run = std::to_string(getpid()) + "-" + std::to_string(started);  // unique for this run
  const int count = std::stoi(argv[3]);

  for (int number = 1; number <= count; number++) {
    stiqueue::v1::EnqRequest request;
    request.set_queue(argv[2]);
    request.add_bodies(std::to_string(number));
    // A repetition under the same id enqueues nothing twice, so it is safe.
    request.set_request_id(run + "-" + std::to_string(number));
    grpc::Status status;
    for (int tries = 0; tries < 5; tries++) {
      grpc::ClientContext context;
      context.set_deadline(system_clock::now() + std::chrono::seconds(30));
      stiqueue::v1::EnqResponse response;
      status = client->Enq(&context, request, &response);
      if (status.error_code() != grpc::StatusCode::UNAVAILABLE) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(500));
    }
    if (!status.ok()) {
      std::cerr << "not confirmed: " << status.error_message() << "\n";
      return 1;
    }
  }
  std::cout << "enqueued " << count << "\n";
}
