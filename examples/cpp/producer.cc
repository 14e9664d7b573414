// Enqueues numbered messages: producer HOST:PORT QUEUE COUNT
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <chrono>
#include <exception>
#include <iostream>
#include <string>

#include "connection.h"
#include "stiqueue/v1/queue.grpc.pb.h"

using std::chrono::system_clock;

// Enqueues the messages; returns the program's exit code.
int Produce(const std::string& target, const std::string& queue, int count) {
  auto client = stiqueue::v1::QueueService::NewStub(Connect(target));
  const auto started = system_clock::now().time_since_epoch().count();
  const std::string run = std::to_string(getpid()) + "-" + std::to_string(started);  // unique for this run

  for (int number = 1; number <= count; number++) {
    stiqueue::v1::EnqRequest request;
    request.set_queue(queue);
    request.add_bodies(std::to_string(number));
    // A repetition under the same id enqueues nothing twice, so it is safe.
    request.set_request_id(run + "-" + std::to_string(number));
    grpc::ClientContext context;
    context.set_deadline(system_clock::now() + std::chrono::seconds(30));
    stiqueue::v1::EnqResponse response;
    const grpc::Status status = client->Enq(&context, request, &response);
    if (!status.ok()) {
      std::cerr << "not confirmed: " << status.error_message() << "\n";
      return 1;
    }
  }
  std::cout << "enqueued " << count << "\n";
  return 0;
}

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: producer HOST:PORT QUEUE COUNT\n";
    return 2;
  }
  try {
    return Produce(argv[1], argv[2], std::stoi(argv[3]));
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 2;
  }
}
