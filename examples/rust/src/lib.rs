//! The client of the service, made of the proto by build.rs, and how to connect it.
tonic::include_proto!("stiqueue.v1");

use queue_service_client::QueueServiceClient;
use std::{env, fs, time::Duration};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::{interceptor::InterceptedService, Interceptor};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

pub type Client = QueueServiceClient<InterceptedService<Channel, Bearer>>;
pub type Failure = Box<dyn std::error::Error>;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Sends the token, if there is one, with each call.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// Connect to HOST:PORT, lazily. The environment says how, as for the command stiqueue: STIQUEUE_TLS_CA is a PEM file
/// with the server's authority, STIQUEUE_TOKEN the token. Without the first, the connection is not encrypted, and a
/// token is refused.
pub fn connect(target: &str) -> Result<Client, Failure> {
    let authority = env::var("STIQUEUE_TLS_CA").ok();
    let token = env::var("STIQUEUE_TOKEN").ok();
    if token.is_some() && authority.is_none() {
        return Err("a token needs STIQUEUE_TLS_CA: it must not travel unencrypted".into());
    }
    let scheme = if authority.is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{target}"))?
        .connect_timeout(Duration::from_secs(5))
        // Nothing else notices a server that vanished without a word.
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(3))
        .keep_alive_while_idle(true);
    if let Some(file) = authority {
        let trusted = Certificate::from_pem(fs::read(file)?);
        endpoint = endpoint.tls_config(ClientTlsConfig::new().ca_certificate(trusted))?;
    }
    let token = token.map(|token| format!("Bearer {token}").parse()).transpose()?;
    Ok(QueueServiceClient::with_interceptor(endpoint.connect_lazy(), Bearer(token)))
}

/// Whether a call may succeed if it is repeated later. Others, with a wrong token say, would fail again.
pub fn is_passing(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded)
        || status.code() == Code::Unknown && std::error::Error::source(status).is_some() // the connection broke
}

/// Return the pause after the `pause` before.
pub fn longer(pause: Option<Duration>) -> Duration {
    pause.map_or(FIRST_PAUSE, |pause| (2 * pause).min(LONGEST_PAUSE))
}

/// Return `body` as the request of a call that may take 30 seconds.
pub fn within<T>(body: T) -> Request<T> {
    let mut request = Request::new(body);
    request.set_timeout(Duration::from_secs(30));
    request
}

/// Return the three arguments of a program.
pub fn arguments(usage: &str) -> Result<(String, String, u64), Failure> {
    let mut given = env::args().skip(1);
    match (given.next(), given.next(), given.next()) {
        (Some(target), Some(queue), Some(number)) => Ok((target, queue, number.parse()?)),
        _ => Err(format!("usage: {usage}").into()),
    }
}
