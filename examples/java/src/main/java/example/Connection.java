package example;

import io.grpc.CallCredentials;
import io.grpc.ChannelCredentials;
import io.grpc.CompositeChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.TlsChannelCredentials;
import java.io.File;
import java.io.IOException;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;

/** Connects as production needs it: TLS, a token, pings and retries. */
final class Connection {
  /** Lets gRPC repeat a call while the server is away: a repeated Enq or Ack changes nothing twice. */
  private static final Map<String, Object> RETRIES =
      Map.of(
          "methodConfig",
          List.of(
              Map.of(
                  "name",
                      List.of(
                          Map.of("service", "stiqueue.v1.QueueService", "method", "Enq"),
                          Map.of("service", "stiqueue.v1.QueueService", "method", "Ack")),
                  "retryPolicy",
                      Map.of(
                          "maxAttempts", 5.0,
                          "initialBackoff", "0.1s",
                          "maxBackoff", "1s",
                          "backoffMultiplier", 2.0,
                          "retryableStatusCodes", List.of("UNAVAILABLE")))));

  private Connection() {}

  /**
   * Returns a channel to HOST:PORT. The environment says how, as for the command stiqueue: STIQUEUE_TLS_CA is a PEM file
   * with the server's authority, STIQUEUE_TOKEN the token. Without the first, the connection is not encrypted, and a
   * token is refused.
   */
  static ManagedChannel open(String target) throws IOException {
    return Grpc.newChannelBuilder(target, credentials())
        .defaultServiceConfig(RETRIES)
        .enableRetry()
        // Nothing else notices a server that vanished without a word.
        .keepAliveTime(10, TimeUnit.SECONDS)
        .keepAliveTimeout(3, TimeUnit.SECONDS)
        .keepAliveWithoutCalls(true)
        .build();
  }

  private static ChannelCredentials credentials() throws IOException {
    String authority = System.getenv("STIQUEUE_TLS_CA");
    String token = System.getenv("STIQUEUE_TOKEN");
    if (authority == null) {
      if (token != null) {
        throw new IllegalStateException("a token needs STIQUEUE_TLS_CA: it must not travel unencrypted");
      }
      return InsecureChannelCredentials.create();
    }
    var encrypted = TlsChannelCredentials.newBuilder().trustManager(new File(authority)).build();
    return token == null ? encrypted : CompositeChannelCredentials.create(encrypted, new Bearer(token));
  }

  private static final class Bearer extends CallCredentials {
    private static final Metadata.Key<String> KEY =
        Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
    private final Metadata metadata = new Metadata();

    Bearer(String token) {
      metadata.put(KEY, "Bearer " + token);
    }

    @Override
    public void applyRequestMetadata(RequestInfo request, Executor executor, MetadataApplier applier) {
      applier.apply(metadata);
    }
  }
}
