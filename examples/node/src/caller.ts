// Asks and waits for the answers, ten at a time: node bin/caller.js HOST:PORT QUEUE COUNT
import { randomUUID } from "node:crypto";
import { call, connect, type Message } from "./queue.js";

const SECONDS = 30;
const [target, queue, count] = process.argv.slice(2);
if (!target || !queue || !count) {
  throw new Error("usage: caller HOST:PORT QUEUE COUNT");
}
const client = connect(target);

// One queue for the answers to all calls of this process.
const replyTo = `stiqueue-answers.${randomUUID()}`;
const waiting = new Map<string, (answer: Message) => void>();
let acked: Promise<unknown> = Promise.resolve();
const answers = client.Deq({ queue: replyTo, prefetch: 100 });
answers.on("error", (error: Error) => {
  if (waiting.size) throw error; // a real caller opens the stream again
});
answers.on("data", ({ messages }: { messages: Message[] }) => {
  for (const message of messages) {
    waiting.get(message.headers["stiqueue-correlation-id"])?.(message); // or it came too late
  }
  acked = call(client, "Ack", { leaseIds: messages.map((message) => message.leaseId) });
});

async function ask(body: string): Promise<Message> {
  const id = randomUUID();
  const answered = new Promise<Message>((resolve, reject) => {
    waiting.set(id, resolve);
    setTimeout(() => reject(new Error(`no answer to ${body}`)), SECONDS * 1_000).unref();
  });
  try {
    await call(client, "Enq", {
      queue,
      bodies: [Buffer.from(body)],
      requestId: id,
      ttl: { seconds: SECONDS }, // when the time is up, nobody wants it done
      headers: { "stiqueue-reply-to": replyTo, "stiqueue-correlation-id": id },
    });
    const answer = await answered;
    const kind = answer.headers["stiqueue-error-type"];
    if (kind !== undefined) throw new Error(`${kind}: ${answer.body}`);
    return answer;
  } finally {
    waiting.delete(id);
  }
}

for (let number = 1; number <= Number(count); number += 10) {
  const numbers = Array.from({ length: Math.min(10, Number(count) - number + 1) }, (_, each) => String(number + each));
  for (const answer of await Promise.all(numbers.map(ask))) {
    console.log(answer.body.toString());
  }
}
await acked;
answers.cancel();
client.close();
