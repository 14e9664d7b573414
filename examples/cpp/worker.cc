// Works on messages, one at a time, until there was none for a second: worker HOST:PORT QUEUE MILLISECONDS
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <iostream>
#include <string>
#include <thread>

#include "stiqueue/v1/queue.grpc.pb.h"

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: worker HOST:PORT QUEUE MILLISECONDS\n";
    return 2;
  }
  auto client =
      stiqueue::v1::QueueService::NewStub(grpc::CreateChannel(argv[1], grpc::InsecureChannelCredentials()));
  const std::chrono::milliseconds work(std::stoi(argv[3]));

  // The stream is the lease: what it holds when it ends, for whatever reason, goes back to its place in the queue.
  stiqueue::v1::DeqRequest request;
  request.set_queue(argv[2]);
  request.set_prefetch(10);  // most unsettled messages at a time
  request.mutable_wait()->set_seconds(1);
  request.set_consumer("a worker in C++");
  grpc::ClientContext context;
  auto deliveries = client->Deq(&context, request);

  stiqueue::v1::DeqResponse delivery;
  while (deliveries->Read(&delivery)) {
    for (const auto& message : delivery.messages()) {
      std::this_thread::sleep_for(work);
      std::cout << message.body() << std::endl;
      stiqueue::v1::AckRequest ack;
      ack.add_lease_ids(message.lease_id());
      grpc::ClientContext call;
      stiqueue::v1::AckResponse answer;
      const grpc::Status status = client->Ack(&call, ack, &answer);
      if (!status.ok()) {
        std::cerr << status.error_message() << "\n";
        return 1;
      }
    }
  }
  // OK: idle for a second. Anything else: the connection broke; a real worker opens the stream again.
  const grpc::Status status = deliveries->Finish();
  if (!status.ok()) std::cerr << status.error_message() << "\n";
  return status.ok() ? 0 : 1;
}
