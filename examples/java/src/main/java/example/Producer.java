package example;

import com.google.protobuf.ByteString;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.stiqueue.v1.EnqRequest;
import io.stiqueue.v1.QueueServiceGrpc;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.TimeUnit;

/** Enqueues numbered messages: Producer HOST:PORT QUEUE COUNT. */
public final class Producer {
  /** Lets gRPC repeat a call while the server is away: each request has an id, so nothing is enqueued twice. */
  private static final Map<String, Object> RETRIES =
      Map.of(
          "methodConfig",
          List.of(
              Map.of(
                  "name", List.of(Map.of("service", "stiqueue.v1.QueueService", "method", "Enq")),
                  "retryPolicy",
                      Map.of(
                          "maxAttempts", 5.0,
                          "initialBackoff", "0.1s",
                          "maxBackoff", "1s",
                          "backoffMultiplier", 2.0,
                          "retryableStatusCodes", List.of("UNAVAILABLE")))));

  public static void main(String[] arguments) throws InterruptedException {
    if (arguments.length != 3) {
      throw new IllegalArgumentException("usage: Producer HOST:PORT QUEUE COUNT");
    }
    ManagedChannel channel =
        Grpc.newChannelBuilder(arguments[0], InsecureChannelCredentials.create())
            .defaultServiceConfig(RETRIES)
            .enableRetry()
            .build();
    var client = QueueServiceGrpc.newBlockingStub(channel).withWaitForReady();
    String run = UUID.randomUUID().toString();
    int count = Integer.parseInt(arguments[2]);
    for (int number = 1; number <= count; number++) {
      // Throws StatusRuntimeException when it is not confirmed.
      client
          .withDeadlineAfter(30, TimeUnit.SECONDS)
          .enq(
              EnqRequest.newBuilder()
                  .setQueue(arguments[1])
                  .addBodies(ByteString.copyFromUtf8(Integer.toString(number)))
                  .setRequestId(run + "-" + number)
                  .build());
    }
    System.out.println("enqueued " + count);
    channel.shutdown().awaitTermination(5, TimeUnit.SECONDS);
  }
}
