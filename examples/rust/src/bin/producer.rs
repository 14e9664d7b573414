//! Enqueues numbered messages: producer HOST:PORT QUEUE COUNT
use std::time::{SystemTime, UNIX_EPOCH};
use stiqueue_example::{arguments, connect, is_passing, longer, within, EnqRequest, Failure};

const TRIES: u32 = 6;

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
        let (mut tries, mut pause) = (1, None);
        while let Err(status) = client.enq(within(request.clone())).await {
            if tries == TRIES || !is_passing(&status) {
                return Err(status.into()); // not confirmed
            }
            tries += 1;
            let wait = longer(pause);
            pause = Some(wait);
            tokio::time::sleep(wait).await;
        }
    }
    println!("enqueued {count}");
    Ok(())
}
