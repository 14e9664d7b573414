// Works on messages, one at a time, until there was none for a second: node bin/worker.js HOST:PORT QUEUE MILLISECONDS
import { setTimeout } from "node:timers/promises";
import { status } from "@grpc/grpc-js";
import { call, connect, type Message } from "./queue.js";

const [target, queue, milliseconds] = process.argv.slice(2);
if (!target || !queue || !milliseconds) {
  throw new Error("usage: worker HOST:PORT QUEUE MILLISECONDS");
}
const client = connect(target);
let stopping = false;
process.once("SIGTERM", () => (stopping = true)); // ends after the message under way

// Works on the messages of one stream until the queue was idle for a second; throws when the stream breaks.
async function consume(): Promise<void> {
  // The stream is the lease: what it holds when it ends, for whatever reason, goes back to its place in the queue.
  const deliveries = client.Deq({
    queue,
    prefetch: 10, // most unsettled messages at a time
    concurrency: 1, // of which one is worked on
    wait: { seconds: 1 },
    consumer: "a worker in Node",
  });
  for await (const { messages } of deliveries as AsyncIterable<{ messages: Message[] }>) {
    for (const message of messages) {
      if (stopping) return deliveries.cancel();
      await setTimeout(Number(milliseconds)); // the work
      console.log(message.body.toString());
      await settle(message);
    }
  }
}

// Acks a message that is done. If it is a call, the answer and the ack are one step: however often it is delivered, one
// answer comes.
async function settle(message: Message): Promise<void> {
  const replyTo = message.headers["stiqueue-reply-to"];
  if (!replyTo?.startsWith("stiqueue-answers.")) {
    await call(client, "Ack", { leaseIds: [message.leaseId] });
    return;
  }
  const id = message.headers["stiqueue-correlation-id"];
  try {
    await call(client, "Enq", {
      queue: replyTo,
      bodies: [message.body],
      requestId: id,
      ttl: { seconds: 60 },
      headers: { "stiqueue-correlation-id": id },
      ackLeaseIds: [message.leaseId],
    });
  } catch (error: any) {
    if (error.code !== status.FAILED_PRECONDITION) throw error; // the lease is gone: another worker answers
  }
}

// Opens the stream again, with a growing pause, for as long as the server is away.
for (let pause = 100; !stopping; pause = Math.min(2 * pause, 5_000)) {
  try {
    await consume();
    break;
  } catch (error: any) {
    // Anything else, a wrong token say, would not go away.
    if (error.code !== status.UNAVAILABLE && error.code !== status.DEADLINE_EXCEEDED) throw error;
    console.error(`the stream ended, trying again in ${pause} ms: ${error.details}`);
    await setTimeout(pause);
  }
}
client.close();
