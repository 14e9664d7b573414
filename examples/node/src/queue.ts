// The client of the service, made of the proto when the program starts.
import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { fileURLToPath } from "node:url";

export interface Message {
  id: string; // 64 bits: more than a number holds
  leaseId: string;
  body: Buffer;
  attempt: number;
}

const proto = fileURLToPath(new URL("../../../proto/stiqueue/v1/queue.proto", import.meta.url));
const root = fileURLToPath(new URL("../../../proto", import.meta.url));
const definition = loadSync(proto, { includeDirs: [root], longs: String, defaults: true });
const service = (grpc.loadPackageDefinition(definition) as any).stiqueue.v1.QueueService;

export type Client = InstanceType<typeof service>;

// Lets gRPC repeat an Enq while the server is away. Each request has an id, so a repetition enqueues nothing twice.
const retries = {
  methodConfig: [
    {
      name: [{ service: "stiqueue.v1.QueueService", method: "Enq" }],
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: "0.1s",
        maxBackoff: "1s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE"],
      },
    },
  ],
};

export function connect(target: string): Client {
  return new service(target, grpc.credentials.createInsecure(), {
    "grpc.service_config": JSON.stringify(retries),
  });
}

// Makes a unary call and waits for the answer, for up to 30 s.
export function call(client: Client, method: string, request: object): Promise<any> {
  const options = { deadline: Date.now() + 30_000 };
  return new Promise((resolve, reject) =>
    client[method](request, new grpc.Metadata({ waitForReady: true }), options, (error: Error | null, answer: any) =>
      error ? reject(error) : resolve(answer),
    ),
  );
}
