//! Enqueues numbered messages: producer HOST:PORT QUEUE COUNT
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use stiqueue_example::{arguments, connect, EnqRequest, Failure};
use tonic::Code;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (target, queue, count) = arguments("producer HOST:PORT QUEUE COUNT")?;
    let mut client = connect(&target)?;
    let started = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let run = format!("{}-{started}", std::process::id()); // unique for this run
    for number in 1..=count {
        let request = EnqRequest {
            queue: queue.clone(),
            bodies: vec![number.to_string().into_bytes()],
            // A repetition under the same id enqueues nothing twice, so it is safe.
            request_id: format!("{run}-{number}"),
            ..Default::default()
        };
        let mut tries = 5;
        while let Err(status) = client.enq(request.clone()).await {
            tries -= 1;
            if tries == 0 || status.code() != Code::Unavailable {
                return Err(status.into()); // not confirmed
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    println!("enqueued {count}");
    Ok(())
}
