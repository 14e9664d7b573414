//! Works on messages, one at a time, until there was none for a second: worker HOST:PORT QUEUE MILLISECONDS
use std::time::Duration;
use stiqueue_example::{
    arguments, connect, is_passing, longer, within, AckRequest, Client, DeqRequest, Failure, Message,
};
use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::watch;
use tonic::Status;

struct Worker {
    client: Client,
    queue: String,
    work: Duration,
    /// Becomes true at SIGTERM: the worker ends after the message under way.
    stopping: watch::Receiver<bool>,
    has_worked: bool,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (target, queue, milliseconds) = arguments("worker HOST:PORT QUEUE MILLISECONDS")?;
    let (stop, stopping) = watch::channel(false);
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        terminated.recv().await;
        stop.send_replace(true);
        std::future::pending::<()>().await // keeps `stop`, whose end would wake its receivers
    });
    let work = Duration::from_millis(milliseconds);
    let mut worker = Worker { client: connect(&target)?, queue, work, stopping, has_worked: false };
    worker.run().await.map_err(Failure::from)
}

impl Worker {
    /// Open the stream again, with a growing pause, for as long as the server is away.
    async fn run(&mut self) -> Result<(), Status> {
        let mut pause = None;
        while let Err(status) = self.consume().await {
            if !is_passing(&status) {
                return Err(status);
            }
            let wait = longer(pause.filter(|_| !self.has_worked));
            pause = Some(wait);
            eprintln!("the stream ended, trying again in {} ms: {}", wait.as_millis(), status.message());
            tokio::select! {
                _ = tokio::time::sleep(wait) => {}
                _ = self.stopping.changed() => return Ok(()),
            }
        }
        Ok(())
    }

    /// Work on the messages of one stream until the queue was idle for a second.
    async fn consume(&mut self) -> Result<(), Status> {
        self.has_worked = false;
        // The stream is the lease: what it holds when it ends, for whatever reason, goes back to its place in the queue.
        let request = DeqRequest {
            queue: self.queue.clone(),
            prefetch: 10,   // most unsettled messages at a time
            concurrency: 1, // of which one is worked on
            wait: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            consumer: "a worker in Rust".into(),
            ..Default::default()
        };
        let mut deliveries = self.client.deq(request).await?.into_inner();
        while let Some(delivery) = deliveries.message().await? {
            for message in delivery.messages {
                if *self.stopping.borrow() {
                    return Ok(());
                }
                tokio::time::sleep(self.work).await; // the work
                println!("{}", String::from_utf8_lossy(&message.body));
                self.settle(message).await?;
                self.has_worked = true;
            }
        }
        Ok(())
    }

    /// Ack a message that is done.
    async fn settle(&mut self, message: Message) -> Result<(), Status> {
        let ack = AckRequest { lease_ids: vec![message.lease_id], ..Default::default() };
        let answer = self.client.ack(within(ack)).await?.into_inner();
        if !answer.stale_lease_ids.is_empty() {
            eprintln!("message {} was given to another worker meanwhile", message.id);
        }
        Ok(())
    }
}
