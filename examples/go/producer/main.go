// Enqueues numbered messages: producer HOST:PORT QUEUE COUNT
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"stiqueue.example/connect"
	"stiqueue.example/queue"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: producer HOST:PORT QUEUE COUNT")
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
