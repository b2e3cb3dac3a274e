//! The way to a coordinator: the first of the given servers that answers, with deadlines on everything.

use std::{error::Error, time::Duration};

use proto::v1::admin_client::AdminClient;
use tonic::{
    Response, Status,
    transport::{Channel, ClientTlsConfig, Endpoint},
};

use crate::failure::Failure;

/// The admin service of a coordinator.
pub type Admin = AdminClient<Channel>;

/// How long a connection may take to come about.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// How long a call that only looks may take.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// Connects to the first of these servers (URLs, separated by commas) that is there.
pub async fn connect(servers: &str) -> Result<Admin, Failure> {
    let mut refusals = Vec::new();
    for server in servers.split(',').map(str::trim).filter(|server| !server.is_empty()) {
        match endpoint(server)?.connect().await {
            Ok(channel) => {
                let admin = AdminClient::new(channel);
                return Ok(admin
                    .max_decoding_message_size(proto::MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(proto::MESSAGE_BYTES_MAX));
            }
            Err(error) => refusals.push(format!("{server}: {}", innermost(&error))),
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
pub async fn ask<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
    let answer = within(CALL_DEADLINE, call).await.map_err(|status| Failure::of_status(&status, None))?;
    Ok(answer.into_inner())
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
