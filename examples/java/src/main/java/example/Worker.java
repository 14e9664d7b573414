package example;

import com.google.protobuf.Duration;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.stiqueue.v1.AckRequest;
import io.stiqueue.v1.DeqRequest;
import io.stiqueue.v1.Message;
import io.stiqueue.v1.QueueServiceGrpc;
import java.util.concurrent.TimeUnit;

/** Works on messages, one at a time, until there was none for a second: Worker HOST:PORT QUEUE MILLISECONDS. */
public final class Worker {
  public static void main(String[] arguments) throws InterruptedException {
    if (arguments.length != 3) {
      throw new IllegalArgumentException("usage: Worker HOST:PORT QUEUE MILLISECONDS");
    }
    ManagedChannel channel =
        Grpc.newChannelBuilder(arguments[0], InsecureChannelCredentials.create()).build();
    var client = QueueServiceGrpc.newBlockingStub(channel).withWaitForReady();
    int milliseconds = Integer.parseInt(arguments[2]);

    // The stream is the lease: what it holds when it ends, for whatever reason, goes back to its place in the queue.
    var deliveries =
        client.deq(
            DeqRequest.newBuilder()
                .setQueue(arguments[1])
                .setPrefetch(10) // most unsettled messages at a time
                .setWait(Duration.newBuilder().setSeconds(1))
                .setConsumer("a worker in Java")
                .build());
    // Ends when the queue was idle for a second; throws when the connection breaks (a real worker asks again).
    while (deliveries.hasNext()) {
      for (Message message : deliveries.next().getMessagesList()) {
        Thread.sleep(milliseconds); // the work
        System.out.println(message.getBody().toStringUtf8());
        client.ack(AckRequest.newBuilder().addLeaseIds(message.getLeaseId()).build());
      }
    }
    channel.shutdown().awaitTermination(5, TimeUnit.SECONDS);
  }
}
