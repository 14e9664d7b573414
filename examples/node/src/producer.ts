// Enqueues numbered messages: node bin/producer.js HOST:PORT QUEUE COUNT
import { randomUUID } from "node:crypto";
import { call, connect } from "./queue.js";

const [target, queue, count] = process.argv.slice(2);
if (!target || !queue || !count) {
  throw new Error("usage: producer HOST:PORT QUEUE COUNT");
}
const client = connect(target);
const run = randomUUID();

for (let number = 1; number <= Number(count); number++) {
  // Throws when it is not confirmed.
  await call(client, "Enq", { queue, bodies: [Buffer.from(String(number))], requestId: `${run}-${number}` });
}
console.log("enqueued", count);
client.close();
