// Works on messages, one at a time, until there was none for a second: worker HOST:PORT QUEUE MILLISECONDS
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"stiqueue.example/connect"
	"stiqueue.example/queue"
)

const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
	patience     = 30 * time.Second
)

type worker struct {
	client queue.QueueServiceClient
	queue  string
	work   func(*queue.Message)
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: worker HOST:PORT QUEUE MILLISECONDS")
	}
	milliseconds, err := strconv.Atoi(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	connection, err := connect.Dial(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	w := worker{queue.NewQueueServiceClient(connection), os.Args[2], func(message *queue.Message) {
		time.Sleep(time.Duration(milliseconds) * time.Millisecond) // the work
		fmt.Println(string(message.Body))
	}}
	// SIGTERM ends the loop after the message under way.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := w.run(ctx); err != nil {
		log.Fatal(err)
	}
}

// run opens the stream again, with a growing pause, for as long as the server is away.
func (w *worker) run(ctx context.Context) error {
	pause := firstPause
	for {
		worked, err := w.consume(ctx)
		if ctx.Err() != nil || err == nil {
			return nil
		}
		if code := status.Code(err); code != codes.Unavailable && code != codes.DeadlineExceeded {
			return err // a wrong token, say: trying again would not help
		}
		if worked {
			pause = firstPause
		}
		log.Printf("the stream ended, trying again in %s: %v", pause, err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		pause = min(2*pause, longestPause)
	}
}

// consume works on the messages of one stream; it returns nil when none came for a second.
func (w *worker) consume(ctx context.Context) (worked bool, err error) {
	// The stream is the lease: what it holds when it ends, for whatever reason, goes back to its place in the queue.
	// So it must not end with ctx, before the message under way is acked.
	leases, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	deliveries, err := w.client.Deq(leases, &queue.DeqRequest{
		Queue:       w.queue,
		Prefetch:    10, // most unsettled messages at a time
		Concurrency: 1,  // of which one is worked on
		Wait:        durationpb.New(time.Second),
		Consumer:    "a worker in Go",
	})
	if err != nil {
		return false, err
	}
	for {
		delivery, err := deliveries.Recv()
		if errors.Is(err, io.EOF) {
			return worked, nil // idle for a second
		}
		if err != nil {
			return worked, err
		}
		for _, message := range delivery.Messages {
			if ctx.Err() != nil {
				return worked, nil
			}
			w.work(message)
			within, cancel := context.WithTimeout(leases, patience)
			wasHeld, err := w.settle(within, message)
			cancel()
			if err != nil {
				return worked, err
			}
			if !wasHeld {
				log.Printf("message %d was given to another worker meanwhile", message.Id)
			}
			worked = true
		}
	}
}

// settle acks a message that is done; it returns whether the lease was still held. If the message is a call, the answer
// and the ack are one step: however often it is delivered, one answer comes.
func (w *worker) settle(ctx context.Context, message *queue.Message) (bool, error) {
	leases := []string{message.LeaseId}
	replyTo := message.Headers["stiqueue-reply-to"]
	if !strings.HasPrefix(replyTo, "stiqueue-answers.") {
		answer, err := w.client.Ack(ctx, &queue.AckRequest{LeaseIds: leases})
		return len(answer.GetStaleLeaseIds()) == 0, err
	}
	id := message.Headers["stiqueue-correlation-id"]
	_, err := w.client.Enq(ctx, &queue.EnqRequest{
		Queue:       replyTo,
		Bodies:      [][]byte{message.Body},
		RequestId:   id,
		Ttl:         durationpb.New(time.Minute),
		Headers:     map[string]string{"stiqueue-correlation-id": id},
		AckLeaseIds: leases,
	})
	if status.Code(err) == codes.FailedPrecondition {
		return false, nil // the lease is gone: another worker answers
	}
	return true, err
}
