// Connects as production needs it: TLS, a token, pings and retries.
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>

// Lets gRPC repeat a call while the server is away: a repeated Enq or Ack changes nothing twice.
inline constexpr char kRetries[] = R"({"methodConfig": [{
  "name": [
    {"service": "stiqueue.v1.QueueService", "method": "Enq"},
    {"service": "stiqueue.v1.QueueService", "method": "Ack"}
  ],
  "waitForReady": true,
  "retryPolicy": {
    "maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"]
  }
}]})";

// Returns the credentials that the environment names, as for the command stiqueue: STIQUEUE_TLS_CA is a PEM file with the
// server's authority, STIQUEUE_TOKEN the token. Without the first, the connection is not encrypted, and a token is refused.
inline std::shared_ptr<grpc::ChannelCredentials> Credentials() {
  const char* authority = std::getenv("STIQUEUE_TLS_CA");
  const char* token = std::getenv("STIQUEUE_TOKEN");
  if (authority == nullptr) {
    if (token != nullptr) throw std::runtime_error("a token needs STIQUEUE_TLS_CA: it must not travel unencrypted");
    return grpc::InsecureChannelCredentials();
  }
  std::ifstream file(authority);
  if (!file) throw std::runtime_error(std::string("cannot read ") + authority);
  std::ostringstream pem;
  pem << file.rdbuf();
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = pem.str();
  auto encrypted = grpc::SslCredentials(options);
  return token == nullptr ? encrypted : grpc::CompositeChannelCredentials(encrypted, grpc::AccessTokenCredentials(token));
}

// Returns a channel to HOST:PORT.
inline std::shared_ptr<grpc::Channel> Connect(const std::string& target) {
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(kRetries);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 5'000);
  // Nothing else notices a server that vanished without a word.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 3'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  return grpc::CreateCustomChannel(target, Credentials(), arguments);
}
