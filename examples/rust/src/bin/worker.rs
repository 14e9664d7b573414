//! Works on messages, one at a time, until there was none for a second: worker HOST:PORT QUEUE MILLISECONDS
use std::time::Duration;
use stiqueue_example::{arguments, connect, AckRequest, DeqRequest, Failure};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (target, queue, milliseconds) = arguments("worker HOST:PORT QUEUE MILLISECONDS")?;
    let mut client = connect(&target)?;
    // The stream is the lease: what it holds when it ends, for whatever reason, goes back to its place in the queue.
    let request = DeqRequest {
        queue,
        prefetch: 10, // most unsettled messages at a time
        wait: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        consumer: "a worker in Rust".into(),
        ..Default::default()
    };
    let mut deliveries = client.deq(request).await?.into_inner();
    // None: idle for a second. An error: the connection broke; a real worker opens the stream again.
    while let Some(delivery) = deliveries.message().await? {
        for message in delivery.messages {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await; // the work
            println!("{}", String::from_utf8_lossy(&message.body));
            client
                .ack(AckRequest { lease_ids: vec![message.lease_id], ..Default::default() })
                .await?;
        }
    }
    Ok(())
}
