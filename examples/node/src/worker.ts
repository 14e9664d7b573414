// Works on messages, one at a time, until there was none for a second: node bin/worker.js HOST:PORT QUEUE MILLISECONDS
import { setTimeout } from "node:timers/promises";
import { call, connect, type Message } from "./queue.js";

const [target, queue, milliseconds] = process.argv.slice(2);
if (!target || !queue || !milliseconds) {
  throw new Error("usage: worker HOST:PORT QUEUE MILLISECONDS");
}
const client = connect(target);

// The stream is the lease: what it holds when it ends, for whatever reason, goes back to its place in the queue.
const deliveries = client.Deq({
  queue,
  prefetch: 10, // most unsettled messages at a time
  wait: { seconds: 1 },
  consumer: "a worker in Node",
});

// Ends when the queue was idle for a second; throws when the connection breaks (a real worker opens the stream again).
for await (const { messages } of deliveries as AsyncIterable<{ messages: Message[] }>) {
  for (const message of messages) {
    await setTimeout(Number(milliseconds)); // the work
    console.log(message.body.toString());
    await call(client, "Ack", { leaseIds: [message.leaseId] });
  }
}
client.close();
