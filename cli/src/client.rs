//! The way to a coordinator: the first of the given servers that answers, with deadlines on everything.
//!
//! A connection that stands says nothing yet: a process that is stopped, or a server of another kind, takes it too. So each
//! server is asked whether it lives before it is asked for anything.

use std::{error::Error, path::PathBuf, time::Duration};

use clap::Args;
use daemon::tls::{Tls, TlsClient, dial_plain};
use proto::{
    Io, Protocols, Wire,
    v1::{admin_client::AdminClient, versions_client::VersionsClient},
};
use tonic::{
    Code, Response, Status,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};

use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    failure::Failure,
    login::{Login, LoginArgs},
};

/// The admin service of a coordinator; every call shows who makes it.
pub type Admin = AdminClient<InterceptedService<Channel, Login>>;

/// How long all servers together may take to show that one of them lives.
const CONNECT_DEADLINE: Duration = Duration::from_secs(4);

/// The least that one of many servers gets.
const SERVER_DEADLINE_MIN: Duration = Duration::from_secs(1);

/// What the transport says of an answer that is merely HTTP.
const NOT_GRPC: &str = "grpc-status header missing";

/// Who is asked if nobody is named.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:7070";

/// Which coordinators are asked, and how they are spoken to.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// Coordinators to ask, separated by commas: the first that answers is taken
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "SHARDWRIGHT_SERVER",
        default_value = DEFAULT_SERVER
    )]
    pub server: String,
    /// PEM file with the authority of an https:// server's certificate; those of this machine if absent
    #[arg(long, global = true, value_name = "FILE", env = "SHARDWRIGHT_CA")]
    pub ca: Option<PathBuf>,
    /// PEM file with a certificate to show, and those between it and its authority
    #[arg(long, global = true, value_name = "FILE", env = "SHARDWRIGHT_CERT")]
    pub cert: Option<PathBuf>,
    /// PEM file with its private key
    #[arg(long, global = true, value_name = "FILE", env = "SHARDWRIGHT_KEY")]
    pub key: Option<PathBuf>,
    #[command(flatten)]
    pub login: LoginArgs,
    /// Speak TLS as the processes of the cluster do among themselves.
    #[arg(skip)]
    pub member: Option<Member>,
}

/// `[tls]` of a process of the cluster.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its identity.
    pub tls: Tls,
    /// The name that the other's certificate must bear, if it is not the host's.
    pub name: Option<String>,
}

impl Target {
    /// The way to one of the servers. Files are read each time: a prompt may stay open for longer than a certificate lives.
    fn way(&self, server: &str) -> Result<(Wire, Endpoint), Failure> {
        let wrong = |error: &dyn std::fmt::Display| {
            Failure::Usage(format!(
                "ERROR: `{server}` is no server URL ({error}); write it like http://127.0.0.1:7070"
            ))
        };
        let files = [("--ca", &self.ca), ("--cert", &self.cert), ("--key", &self.key)];
        let named = files.iter().find(|(_, path)| path.is_some());
        if let (Some((flag, _)), Some(rest)) = (named, server.strip_prefix("http://")) {
            let text =
                format!("ERROR: {flag} is for TLS, and `{server}` asks without: say --server https://{rest}");
            return Err(Failure::Usage(text));
        }
        let bare = !server.contains("://") && (named.is_some() || self.member.is_some());
        let secured = server.starts_with("https://") || bare;
        let wire = if let Some(member) = self.member.clone().filter(|_| secured) {
            Wire::secured(move |uri, _| {
                let Member { tls, name } = member.clone();
                async move { tls.dial(&uri, name.as_deref()).await }
            })
        } else if secured {
            let tls = TlsClient::open(self.ca.as_deref(), self.cert.as_deref(), self.key.as_deref())?;
            Wire::secured(move |uri, _| {
                let tls = tls.clone();
                async move { tls.dial(&uri).await }
            })
        } else {
            Wire::over(|uri| Box::pin(async move { Ok(Box::new(dial_plain(&uri).await?) as Io) }))
        };
        let endpoint = wire.endpoint(server).map_err(|error| wrong(&error))?;
        if endpoint.uri().host().is_none() {
            return Err(wrong(&"no host"));
        }
        let endpoint = endpoint
            .connect_timeout(CONNECT_DEADLINE)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true);
        Ok((wire, endpoint))
    }
}

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

/// Connects to the first of the servers that lives.
pub async fn connect(target: &Target) -> Result<Admin, Failure> {
    let servers: Vec<&str> =
        target.server.split(',').map(str::trim).filter(|server| !server.is_empty()).collect();
    let each = CONNECT_DEADLINE / u32::try_from(servers.len().max(1)).unwrap_or(u32::MAX);
    let mut refusals = Vec::new();
    for server in servers {
        match reach(target.way(server)?, each.max(SERVER_DEADLINE_MIN)).await {
            Ok(channel) => {
                agree(server, channel.clone()).await?;
                let admin = AdminClient::with_interceptor(channel, target.login.login(server)?);
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
async fn reach((wire, endpoint): (Wire, Endpoint), within: Duration) -> Result<Channel, String> {
    let reached = tokio::time::timeout(within, async {
        let channel = wire.connect(&endpoint).await.map_err(|error| innermost(&error))?;
        let request = HealthCheckRequest { service: String::new() };
        match HealthClient::new(channel.clone()).check(request).await {
            Ok(_) => Ok(channel),
            // It speaks the protocol, which is all that was asked.
            Err(status) if status.code() == Code::Unimplemented && !status.message().contains(NOT_GRPC) => {
                Ok(channel)
            }
            Err(status) => Err(wire.complaint().unwrap_or_else(|| {
                let cause = status.source().map_or_else(|| status.message().to_owned(), innermost);
                format!("no coordinator answers there, {cause}")
            })),
        }
    });
    reached.await.unwrap_or_else(|_| Err(format!("no answer within {} s", within.as_secs_f32())))
}

/// Whether we understand each other: releases may be one minor version apart.
async fn agree(server: &str, channel: Channel) -> Result<(), Failure> {
    let refused = |why: &str| Failure::Refused(format!("ERROR: {why} (asked {server})"));
    match VersionsClient::new(channel).agree(Protocols::OURS.ask()).await {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::FailedPrecondition => {
            let (release, said) = (env!("CARGO_PKG_VERSION"), status.message());
            Err(refused(&format!("{said}; the caller is this tool, release {release}")))
        }
        // Before there was a way to ask, there was one protocol.
        Err(status) if status.code() == Code::Unimplemented => {
            let us = concat!("this tool (release ", env!("CARGO_PKG_VERSION"), ")");
            let agreed = Protocols::OURS.agree(Protocols::said(0, 0), (us, "the coordinator"));
            agreed.map(drop).map_err(|why| refused(&why))
        }
        // Whatever else is wrong, the call that follows says it better.
        Err(_) => Ok(()),
    }
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

    fn target(server: &str, ca: Option<&str>) -> Target {
        Target {
            server: server.to_owned(),
            ca: ca.map(PathBuf::from),
            cert: None,
            key: None,
            login: LoginArgs::default(),
            member: None,
        }
    }

    fn uri(server: &str) -> Result<String, Failure> {
        target(server, None).way(server).map(|(_, endpoint)| endpoint.uri().to_string())
    }

    #[test]
    fn a_server_needs_no_scheme_and_nonsense_is_usage() {
        assert_eq!(uri("127.0.0.1:7").unwrap(), "http://127.0.0.1:7/");
        assert_eq!(uri("ht tp://x").unwrap_err().exit_code(), 2);
        assert_eq!(uri("http://").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn files_for_tls_and_a_server_without_do_not_go_together() {
        let refused = target("http://c:1", Some("ca.pem")).way("http://c:1").unwrap_err();
        assert_eq!(refused.exit_code(), 2);
        assert!(refused.to_string().contains("--server https://c:1"), "{refused}");
    }

    #[test]
    fn an_authority_that_is_not_there_is_named() {
        for server in ["https://c:1", "c:1"] {
            let refused = target(server, Some("/absent/ca.pem")).way(server).unwrap_err();
            assert_eq!(refused.exit_code(), 2);
            assert!(refused.to_string().contains("`/absent/ca.pem` (--ca) does not exist"), "{refused}");
        }
    }
}
