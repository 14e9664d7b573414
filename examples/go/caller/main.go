// Asks and waits for the answers, one after another: caller HOST:PORT QUEUE COUNT
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"stiqueue.example/connect"
	"stiqueue.example/queue"
)

const patience = 30 * time.Second

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: caller HOST:PORT QUEUE COUNT")
	}
	count, err := strconv.Atoi(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	connection, err := connect.Dial(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	client := queue.NewQueueServiceClient(connection)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	// One queue for the answers to all calls of this process.
	run := fmt.Sprintf("%x", random())
	replyTo := "stiqueue-answers." + run
	answers, err := client.Deq(ctx, &queue.DeqRequest{Queue: replyTo, Prefetch: 100}, grpc.WaitForReady(true))
	if err != nil {
		log.Fatal(err)
	}
	for number := 1; number <= count; number++ {
		id := fmt.Sprintf("%s-%d", run, number)
		_, err := client.Enq(ctx, &queue.EnqRequest{
			Queue:     os.Args[2],
			Bodies:    [][]byte{[]byte(strconv.Itoa(number))},
			RequestId: id,
			Ttl:       durationpb.New(patience), // when the time is up, nobody wants it done
			Headers:   map[string]string{"stiqueue-reply-to": replyTo, "stiqueue-correlation-id": id},
		})
		if err != nil {
			log.Fatal(err)
		}
		late := time.AfterFunc(patience, cancel)
		answer := await(ctx, client, answers, id)
		late.Stop()
		if kind, failed := answer.Headers["stiqueue-error-type"]; failed {
			log.Fatalf("%s: %s", kind, answer.Body)
		}
		fmt.Println(string(answer.Body))
	}
}

// await returns the answer to one call, and drops others: those that came too late for an earlier one.
func await(ctx context.Context, client queue.QueueServiceClient, answers queue.QueueService_DeqClient, id string) *queue.Message {
	for {
		delivery, err := answers.Recv()
		if err != nil {
			log.Fatal(err) // a real caller opens the stream again
		}
		var found *queue.Message
		leases := []string{}
		for _, message := range delivery.Messages {
			leases = append(leases, message.LeaseId)
			if message.Headers["stiqueue-correlation-id"] == id {
				found = message
			}
		}
		if _, err := client.Ack(ctx, &queue.AckRequest{LeaseIds: leases}); err != nil {
			log.Fatal(err)
		}
		if found != nil {
			return found
		}
	}
}

func random() []byte {
	bytes := make([]byte, 16)
	if _, err := rand.Read(bytes); err != nil {
		log.Fatal(err)
	}
	return bytes
}
