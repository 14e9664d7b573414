package example;

import com.google.protobuf.Duration;
import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.stiqueue.v1.AckRequest;
import io.stiqueue.v1.DeqRequest;
import io.stiqueue.v1.Message;
import io.stiqueue.v1.QueueServiceGrpc;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/** Works on messages, one at a time, until there was none for a second: Worker HOST:PORT QUEUE MILLISECONDS. */
public final class Worker {
  private static final long FIRST_PAUSE = 100;
  private static final long LONGEST_PAUSE = 5_000;

  private final QueueServiceGrpc.QueueServiceBlockingStub client;
  private final String queue;
  private final int milliseconds;
  /** Counted down by SIGTERM: the worker ends after the message under way. */
  private final CountDownLatch stopping = new CountDownLatch(1);
  private boolean worked;

  private Worker(ManagedChannel channel, String queue, int milliseconds) {
    this.client = QueueServiceGrpc.newBlockingStub(channel);
    this.queue = queue;
    this.milliseconds = milliseconds;
  }

  public static void main(String[] arguments) throws Exception {
    if (arguments.length != 3) {
      throw new IllegalArgumentException("usage: Worker HOST:PORT QUEUE MILLISECONDS");
    }
    ManagedChannel channel = Connection.open(arguments[0]);
    var worker = new Worker(channel, arguments[1], Integer.parseInt(arguments[2]));
    Thread main = Thread.currentThread();
    var hook = new Thread(() -> worker.stop(main));
    Runtime.getRuntime().addShutdownHook(hook);
    try {
      worker.run();
    } finally {
      channel.shutdown().awaitTermination(5, TimeUnit.SECONDS);
    }
  }

  /** Lets {@code run} end, and waits for it: the program exits when the hook that calls this returns. */
  private void stop(Thread main) {
    stopping.countDown();
    try {
      main.join(30_000);
    } catch (InterruptedException error) {
      Thread.currentThread().interrupt();
    }
  }

  /** Opens the stream again, with a growing pause, for as long as the server is away. */
  private void run() throws InterruptedException {
    long pause = FIRST_PAUSE;
    while (stopping.getCount() > 0) {
      worked = false;
      try {
        consume();
        return;
      } catch (StatusRuntimeException error) {
        switch (error.getStatus().getCode()) {
          case UNAVAILABLE, DEADLINE_EXCEEDED -> {}
          default -> throw error; // a wrong token, say: trying again would not help
        }
        if (worked) {
          pause = FIRST_PAUSE;
        }
        System.err.printf("the stream ended, trying again in %d ms: %s%n", pause, error.getMessage());
      }
      if (stopping.await(pause, TimeUnit.MILLISECONDS)) {
        return;
      }
      pause = Math.min(2 * pause, LONGEST_PAUSE);
    }
  }

  /** Works on the messages of one stream until the queue was idle for a second; throws when the stream breaks. */
  private void consume() throws InterruptedException {
    // The stream is the lease: what it holds when it ends, for whatever reason, goes back to its place in the queue.
    var leases = Context.current().withCancellation();
    var before = leases.attach();
    try {
      var deliveries =
          client.deq(
              DeqRequest.newBuilder()
                  .setQueue(queue)
                  .setPrefetch(10) // most unsettled messages at a time
                  .setConcurrency(1) // of which one is worked on
                  .setWait(Duration.newBuilder().setSeconds(1))
                  .setConsumer("a worker in Java")
                  .build());
      while (deliveries.hasNext()) {
        for (Message message : deliveries.next().getMessagesList()) {
          if (stopping.getCount() == 0) {
            return;
          }
          Thread.sleep(milliseconds); // the work
          System.out.println(message.getBody().toStringUtf8());
          settle(message);
          worked = true;
        }
      }
    } finally {
      leases.detach(before);
      leases.cancel(null);
    }
  }

  private void settle(Message message) {
    var ack = AckRequest.newBuilder().addLeaseIds(message.getLeaseId()).build();
    var answer = client.withWaitForReady().withDeadlineAfter(30, TimeUnit.SECONDS).ack(ack);
    if (answer.getStaleLeaseIdsCount() > 0) {
      System.err.printf("message %d was given to another worker meanwhile%n", message.getId());
    }
  }
}
