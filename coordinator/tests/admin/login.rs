//! Callers of the admin API who show who they are, and coordinators that want to know.

use std::{net::SocketAddr, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use daemon::tls::{Guard, Incoming};
use proto::{
    StatusExt, Wire,
    v1::{self, admin_client::AdminClient, execute_reply::Answer},
};
use shardwright_coordinator::{Anonymous, AuthConfig, Config, Secret, Server, Site};
use store::MetadataStore;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, transport::Channel};

use crate::{
    fakes,
    setup::{Answers, Coordinator},
};

/// The password of the first administrator.
pub const ADMIN: &str = "correct horse battery";

/// Settings under which nobody is let in without a login, and `admin` is the first administrator.
pub fn strict() -> AuthConfig {
    AuthConfig {
        anonymous: Anonymous::Never,
        admin_password: Some(Secret::new(ADMIN)),
        ..AuthConfig::default()
    }
}

/// A coordinator with such settings.
pub async fn guarded(auth: AuthConfig) -> Coordinator {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let store = Arc::new(store::EmbeddedStore::in_memory());
    Coordinator::start_config(store, Config { auth, ..Config::default() }).await
}

/// A coordinator that takes its listener, which is on this machine, for this one.
pub async fn at(
    listener: SocketAddr,
    auth: AuthConfig,
    store: Arc<dyn MetadataStore>,
) -> (SocketAddr, CancellationToken) {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let config = Config { auth, advertise: Some(format!("http://{address}")), ..Config::default() };
    let incoming = Incoming::new(socket, Guard::asks(None), "coordinator");
    let site = Site { address: listener, incoming, wire: Wire::tcp() };
    let cancel = CancellationToken::new();
    drop(Server::start_on(site, config, fakes::registry(), store, cancel.clone()));
    (address, cancel)
}

/// What a caller shows.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A caller.
#[derive(Clone)]
pub struct Caller {
    pub client: AdminClient<Channel>,
    header: Option<String>,
}

impl Caller {
    /// Who shows this header.
    pub fn new(client: &AdminClient<Channel>, header: Option<String>) -> Self {
        Self { client: client.clone(), header }
    }

    /// Who shows this name and password.
    pub fn user(cluster: &Coordinator, user: &str, password: &str) -> Self {
        Self::new(&cluster.client, Some(basic(user, password)))
    }

    /// The first administrator.
    pub fn admin(cluster: &Coordinator) -> Self {
        Self::user(cluster, "admin", ADMIN)
    }

    /// Who shows this token.
    pub fn token(cluster: &Coordinator, token: &str) -> Self {
        Self::new(&cluster.client, Some(format!("Bearer {token}")))
    }

    /// Who shows nothing.
    pub fn nobody(cluster: &Coordinator) -> Self {
        Self::new(&cluster.client, None)
    }

    /// A request of this caller.
    pub fn asks<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(header) = &self.header {
            request.metadata_mut().insert("authorization", header.parse().unwrap());
        }
        request
    }

    /// Runs statements.
    pub async fn execute(&self, text: &str, request_id: &str) -> Result<Answers, Status> {
        let request = v1::ExecuteRequest { statement: text.to_owned(), request_id: request_id.to_owned() };
        let mut replies = self.client.clone().execute(self.asks(request)).await?.into_inner();
        let mut answers = Answers::default();
        while let Some(reply) = replies.next().await {
            match reply?.answer.expect("every reply answers") {
                Answer::Notice(text) => answers.notices.push(text),
                Answer::Tag(tag) => answers.tags.push(tag),
                Answer::Rows(set) => answers.rows.extend(set.rows.into_iter().map(|row| {
                    let value = |v: v1::Value| v.text.unwrap_or_else(|| "NULL".to_owned());
                    row.values.into_iter().map(value).collect::<Vec<_>>().join("|")
                })),
            }
        }
        Ok(answers)
    }

    /// Runs statements; panics if one is refused.
    pub async fn run(&self, text: &str) -> Answers {
        self.execute(text, "").await.unwrap_or_else(|status| panic!("{text}: {status:?}"))
    }

    /// Statements that are refused.
    pub async fn refused(&self, text: &str) -> Status {
        match self.execute(text, "").await {
            Err(status) => status,
            Ok(answers) => panic!("accepted: {text}: {answers:?}"),
        }
    }

    /// Refused for a missing privilege, which is named.
    pub async fn lacks(&self, text: &str, privilege: &str) {
        let status = self.refused(text).await;
        assert_eq!(status.code(), Code::PermissionDenied, "{text}: {status:?}");
        assert_eq!(status.reason().as_deref(), Some("42501"), "{text}: {status:?}");
        let wanted = format!("Permission denied: {privilege} is required");
        assert!(status.message().contains(&wanted), "{text}: {}", status.message());
    }

    /// Not let in; the message says why.
    pub async fn stays_out(&self, why: &str) {
        let status = self.refused("SHOW SOURCES").await;
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        assert!(status.message().contains(why), "{}", status.message());
    }
}
