// Enqueues numbered messages: producer HOST:PORT QUEUE COUNT
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"stiqueue.example/queue"
)

// retries lets gRPC repeat a call while the server is away. Each request has an id, so a repetition enqueues nothing
// twice.
const retries = `{"methodConfig": [{
	"name": [{"service": "stiqueue.v1.QueueService", "method": "Enq"}],
	"waitForReady": true,
	"retryPolicy": {
		"maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE"]
	}
}]}`

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: producer HOST:PORT QUEUE COUNT")
	}
	count, err := strconv.Atoi(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	connection, err := grpc.NewClient(os.Args[1],
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(retries))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	client := queue.NewQueueServiceClient(connection)

	run := fmt.Sprintf("%d-%d", os.Getpid(), time.Now().UnixNano()) // unique for this run
	for number := 1; number <= count; number++ {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		_, err := client.Enq(ctx, &queue.EnqRequest{
			Queue:     os.Args[2],
			Bodies:    [][]byte{[]byte(strconv.Itoa(number))},
			RequestId: fmt.Sprintf("%s-%d", run, number),
		})
		cancel()
		if err != nil {
			log.Fatal(err) // not confirmed
		}
	}
	fmt.Println("enqueued", count)
}
