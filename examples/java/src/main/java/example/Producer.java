package example;

import com.google.protobuf.ByteString;
import io.grpc.ManagedChannel;
import io.stiqueue.v1.EnqRequest;
import io.stiqueue.v1.QueueServiceGrpc;
import java.util.UUID;
import java.util.concurrent.TimeUnit;

/** Enqueues numbered messages: Producer HOST:PORT QUEUE COUNT. */
public final class Producer {
  public static void main(String[] arguments) throws Exception {
    if (arguments.length != 3) {
      throw new IllegalArgumentException("usage: Producer HOST:PORT QUEUE COUNT");
    }
    ManagedChannel channel = Connection.open(arguments[0]);
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
