//! The way to a coordinator: the first of the given servers that answers, with deadlines on everything.
//!
//! A connection that stands says nothing yet: a process that is stopped, or a server of another kind, takes it too. So each
//! server is asked whether it lives before it is asked for anything.

use std::{error::Error, time::Duration};

use clap::Args;

use proto::v1::admin_client::AdminClient;
use tonic::{
    Code, Response, Status,
    transport::{Channel, ClientTlsConfig, Endpoint},
};

use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::failure::Failure;

/// The admin service of a coordinator.
pub type Admin = AdminClient<Channel>;

/// How long all servers together may take to show that one of them lives.
const CONNECT_DEADLINE: Duration = Duration::from_secs(4);

/// The least that one of many servers gets.
const SERVER_DEADLINE_MIN: Duration = Duration::from_secs(1);

/// What the transport says of an answer that is merely HTTP.
const NOT_GRPC: &str = "grpc-status header missing";

/// How long a call that only looks may take.
#[derive(Args, Clone, Copy, Debug)]
pub struct Patience {
    /// How long to wait for an answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = Self::default().timeout)]
    timeout: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { timeout: 5 }
    }
}

impl Patience {
    fn deadline(self) -> Duration {
        Duration::from_secs(self.timeout.max(1))
    }
}

/// Connects to the first of these servers (URLs, separated by commas) that lives.
pub async fn connect(servers: &str) -> Result<Admin, Failure> {
    let servers: Vec<&str> = servers.split(',').map(str::trim).filter(|server| !server.is_empty()).collect();
    let each = CONNECT_DEADLINE / u32::try_from(servers.len().max(1)).unwrap_or(u32::MAX);
    let mut refusals = Vec::new();
    for server in servers {
        match reach(&endpoint(server)?, each.max(SERVER_DEADLINE_MIN)).await {
            Ok(channel) => {
                let admin = AdminClient::new(channel);
                return Ok(admin
                    .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(proto::MESSAGE_BYTES_MAX));
            }
            Err(why) => refusals.push(format!("{server}: {why}")),
        }
    }
    if refusals.is_empty() {
        return Err(Failure::Usage("ERROR: no server given; say --server URL".to_owned()));
    }
    Err(Failure::Unreachable(format!(
        "cannot reach the server ({}); is a coordinator running there? --server URL asks another one, `shardwright standalone` starts one",
        refusals.join("; ")
    )))
}

/// A connection to a server that answers.
async fn reach(endpoint: &Endpoint, within: Duration) -> Result<Channel, String> {
    let reached = tokio::time::timeout(within, async {
        let channel = endpoint.connect().await.map_err(|error| innermost(&error))?;
        let request = HealthCheckRequest { service: String::new() };
        match HealthClient::new(channel.clone()).check(request).await {
            Ok(_) => Ok(channel),
            // It speaks the protocol, which is all that was asked.
            Err(status) if status.code() == Code::Unimplemented && !status.message().contains(NOT_GRPC) => {
                Ok(channel)
            }
            Err(status) => {
                let cause = status.source().map_or_else(|| status.message().to_owned(), innermost);
                Err(format!("no coordinator answers there, {cause}"))
            }
        }
    });
    reached.await.unwrap_or_else(|_| Err(format!("no answer within {} s", within.as_secs_f32())))
}

fn endpoint(server: &str) -> Result<Endpoint, Failure> {
    let url = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
    let wrong = |error: &dyn std::fmt::Display| {
        Failure::Usage(format!(
            "ERROR: `{server}` is no server URL ({error}); write it like http://127.0.0.1:7070"
        ))
    };
    let mut endpoint = Endpoint::from_shared(url.clone()).map_err(|error| wrong(&error))?;
    if endpoint.uri().host().is_none() {
        return Err(wrong(&"no host"));
    }
    if url.starts_with("https://") {
        let tls = ClientTlsConfig::new().with_enabled_roots();
        endpoint = endpoint.tls_config(tls).map_err(|error| wrong(&innermost(&error)))?;
    }
    Ok(endpoint
        .connect_timeout(CONNECT_DEADLINE)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true))
}

/// The error below all wrappings.
fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(inner) = error.source() {
        error = inner;
    }
    error.to_string()
}

/// The answer of a call that only looks, or its failure.
pub async fn ask<T>(
    patience: Patience,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    let answer = within(patience.deadline(), call).await;
    Ok(answer.map_err(|status| silent(&status))?.into_inner())
}

/// The failure of a call that only looks: if no answer came, nothing was done, and nobody was there.
pub fn silent(status: &Status) -> Failure {
    match status.code() {
        Code::DeadlineExceeded => Failure::Unreachable(format!(
            "server unavailable: no answer ({}); --timeout SECONDS waits longer",
            status.message()
        )),
        _ => Failure::of_status(status, None),
    }
}

/// As [`within`], for a look at a stream.
pub async fn look<E: From<Status>>(
    patience: Patience,
    call: impl Future<Output = Result<(), E>>,
) -> Result<(), E> {
    within(patience.deadline(), call).await
}

/// A call with a deadline of its own. The transport's deadline ends with the headers, this one covers streams too.
pub async fn within<T, E: From<Status>>(
    deadline: Duration,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match tokio::time::timeout(deadline, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Status::deadline_exceeded(format!("waited {} s", deadline.as_secs())).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_needs_no_scheme_and_nonsense_is_usage() {
        assert_eq!(endpoint("127.0.0.1:7").unwrap().uri().to_string(), "http://127.0.0.1:7/");
        assert_eq!(endpoint("ht tp://x").unwrap_err().exit_code(), 2);
        assert_eq!(endpoint("http://").unwrap_err().exit_code(), 2);
    }
}
