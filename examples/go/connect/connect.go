// Package connect dials a server as production needs it: TLS, a token, pings and retries.
package connect

import (
	"context"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// retries lets gRPC repeat a call while the server is away. Each Enq has a request id, so a repetition enqueues nothing
// twice; a repeated Ack settles nothing twice.
const retries = `{"methodConfig": [{
	"name": [
		{"service": "stiqueue.v1.QueueService", "method": "Enq"},
		{"service": "stiqueue.v1.QueueService", "method": "Ack"}
	],
	"waitForReady": true,
	"retryPolicy": {
		"maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE"]
	}
}]}`

// Dial returns a connection to target. The environment says how, as for the command stiqueue: STIQUEUE_TLS_CA is a PEM
// file with the server's authority, STIQUEUE_TOKEN the token. Without the first, the connection is not encrypted, and a
// token is refused.
func Dial(target string) (*grpc.ClientConn, error) {
	transport := insecure.NewCredentials()
	if authority := os.Getenv("STIQUEUE_TLS_CA"); authority != "" {
		var err error
		if transport, err = credentials.NewClientTLSFromFile(authority, ""); err != nil {
			return nil, err
		}
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(retries),
		// Nothing else notices a server that vanished without a word.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 10 * time.Second, Timeout: 3 * time.Second, PermitWithoutStream: true,
		}),
	}
	if token := os.Getenv("STIQUEUE_TOKEN"); token != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer(token)))
	}
	return grpc.NewClient(target, options...)
}

type bearer string

func (token bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(token)}, nil
}

func (bearer) RequireTransportSecurity() bool { return true }
