// Works on messages, one at a time, until there was none for a second: worker HOST:PORT QUEUE MILLISECONDS
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"stiqueue.example/queue"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: worker HOST:PORT QUEUE MILLISECONDS")
	}
	milliseconds, err := strconv.Atoi(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	client := queue.NewQueueServiceClient(connection)

	// The stream is the lease: what it holds when it ends, for whatever reason, goes back to its place in the queue.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	deliveries, err := client.Deq(ctx, &queue.DeqRequest{
		Queue:    os.Args[2],
		Prefetch: 10, // most unsettled messages at a time
		Wait:     durationpb.New(time.Second),
		Consumer: "a worker in Go",
	}, grpc.WaitForReady(true))
	if err != nil {
		log.Fatal(err)
	}
	for {
		delivery, err := deliveries.Recv()
		if errors.Is(err, io.EOF) {
			return // idle for a second
		}
		if err != nil {
			log.Fatal(err) // a real worker opens the stream again
		}
		for _, message := range delivery.Messages {
			time.Sleep(time.Duration(milliseconds) * time.Millisecond) // the work
			fmt.Println(string(message.Body))
			if _, err := client.Ack(ctx, &queue.AckRequest{LeaseIds: []string{message.LeaseId}}); err != nil {
				log.Fatal(err)
			}
		}
	}
}
