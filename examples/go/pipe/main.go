// Enqueues numbered messages one after another over a pipe: pipe HOST:PORT QUEUE COUNT
//
// It does what the producer does, several times faster: a message and its answer on an open stream cost less than half
// of a call.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"stiqueue.example/connect"
	"stiqueue.example/queue"
)

const patience = 30 * time.Second

// Pipe sends one request at a time, and opens the stream again when it is lost.
type Pipe struct {
	client queue.PipeServiceClient
	stream grpc.BidiStreamingClient[queue.PipeRequest, queue.PipeResponse]
	number uint64
}

// Enq returns once the message is enqueued. It repeats a request without an answer under the same request id, so that
// it enqueues nothing twice.
func (p *Pipe) Enq(ctx context.Context, request *queue.EnqRequest) error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		response, err := p.ask(ctx, request)
		if err == nil {
			if refused := response.GetError(); refused == nil {
				return nil
			} else if err = status.Error(codes.Code(refused.Code), refused.Message); codes.Code(refused.Code) != codes.Unavailable {
				return err // nothing was enqueued
			}
		} else {
			p.stream = nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

func (p *Pipe) ask(ctx context.Context, request *queue.EnqRequest) (*queue.PipeResponse, error) {
	if p.stream == nil {
		stream, err := p.client.Pipe(ctx)
		if err != nil {
			return nil, err
		}
		p.stream = stream
	}
	p.number++
	err := p.stream.Send(&queue.PipeRequest{Number: p.number, Request: &queue.PipeRequest_Enq{Enq: request}})
	if err != nil {
		return nil, err
	}
	return p.stream.Recv() // the answer to this request: no other is under way
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: pipe HOST:PORT QUEUE COUNT")
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

	pipe := Pipe{client: queue.NewPipeServiceClient(connection)}
	run := fmt.Sprintf("%d-%d", os.Getpid(), time.Now().UnixNano()) // unique for this run
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for number := 1; number <= count; number++ {
		alarm := time.AfterFunc(patience, cancel) // ends the stream as well
		err := pipe.Enq(ctx, &queue.EnqRequest{
			Queue:     os.Args[2],
			Bodies:    [][]byte{[]byte(strconv.Itoa(number))},
			RequestId: fmt.Sprintf("%s-%d", run, number),
		})
		alarm.Stop()
		if err != nil {
			log.Fatal(err) // not confirmed
		}
	}
	fmt.Println("enqueued", count)
}
