//! The client of the service, made of the proto by build.rs.
tonic::include_proto!("stiqueue.v1");

use queue_service_client::QueueServiceClient;
use tonic::transport::{Channel, Endpoint};

pub type Client = QueueServiceClient<Channel>;
pub type Failure = Box<dyn std::error::Error>;

/// Connect to HOST:PORT, lazily.
pub fn connect(target: &str) -> Result<Client, Failure> {
    let channel = Endpoint::from_shared(format!("http://{target}"))?.connect_lazy();
    Ok(QueueServiceClient::new(channel))
}

/// Return the three arguments of a program.
pub fn arguments(usage: &str) -> Result<(String, String, u64), Failure> {
    let mut given = std::env::args().skip(1);
    match (given.next(), given.next(), given.next()) {
        (Some(target), Some(queue), Some(number)) => Ok((target, queue, number.parse()?)),
        _ => Err(format!("usage: {usage}").into()),
    }
}
