// The client of the service, made of the proto when the program starts.
import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

export interface Message {
  id: string; // 64 bits: more than a number holds
  leaseId: string;
  body: Buffer;
  attempt: number;
  headers: Record<string, string>;
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

// The environment says how to connect, as for the command stiqueue: STIQUEUE_TLS_CA is a PEM file with the server's
// authority, STIQUEUE_TOKEN the token. Without the first, the connection is not encrypted, and a token is refused.
function credentials(): grpc.ChannelCredentials {
  const { STIQUEUE_TLS_CA: authority, STIQUEUE_TOKEN: token } = process.env;
  if (!authority) {
    if (token) throw new Error("a token needs STIQUEUE_TLS_CA: it must not travel unencrypted");
    return grpc.credentials.createInsecure();
  }
  const encrypted = grpc.credentials.createSsl(readFileSync(authority));
  if (!token) return encrypted;
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${token}`);
  const bearer = grpc.credentials.createFromMetadataGenerator((_, done) => done(null, metadata));
  return grpc.credentials.combineChannelCredentials(encrypted, bearer);
}

export function connect(target: string): Client {
  return new service(target, credentials(), {
    "grpc.service_config": JSON.stringify(retries),
    // Nothing else notices a server that vanished without a word.
    "grpc.keepalive_time_ms": 10_000,
    "grpc.keepalive_timeout_ms": 3_000,
    "grpc.keepalive_permit_without_calls": 1,
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
