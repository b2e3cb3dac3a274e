//! Coordinators under test, and calls that read as what they ask.

use std::{sync::Arc, time::Duration};

use proto::{
    StatusExt,
    v1::{self, admin_client::AdminClient, execute_reply::Answer},
};
use shardwright_coordinator::{Config, Server, Vault};
use store::{EmbeddedStore, Keyspace, MetadataStore, View};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, transport::Channel};

use crate::fakes;

/// How long anything may take: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One coordinator, and a client of its admin API.
pub struct Coordinator {
    pub server: Server,
    pub client: AdminClient<Channel>,
    pub store: Arc<dyn MetadataStore>,
    cancel: CancellationToken,
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// The answers of one call: notices, tags, and rows as `a|b|NULL`.
#[derive(Debug, Default, PartialEq)]
pub struct Answers {
    pub notices: Vec<String>,
    pub tags: Vec<String>,
    pub columns: Vec<String>,
    pub rows: Vec<String>,
}

impl Coordinator {
    /// A coordinator on a store of its own.
    pub async fn start() -> Self {
        Self::start_on(Arc::new(EmbeddedStore::in_memory())).await
    }

    /// A coordinator on this store.
    pub async fn start_on(store: Arc<dyn MetadataStore>) -> Self {
        Self::start_with(store, Vault::default()).await
    }

    /// A coordinator on this store, with these keys.
    pub async fn start_with(store: Arc<dyn MetadataStore>, vault: Vault) -> Self {
        Self::start_config(store, Config { vault, ..Config::default() }).await
    }

    /// A coordinator with these settings on a free port.
    pub async fn start_config(store: Arc<dyn MetadataStore>, config: Config) -> Self {
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..config };
        let cancel = CancellationToken::new();
        let server =
            Server::start(config, fakes::registry(), Arc::clone(&store), cancel.clone()).await.unwrap();
        let client = AdminClient::connect(format!("http://{}", server.local_addr())).await.unwrap();
        Self { server, client, store, cancel }
    }

    /// Stops it, and waits until it leads no more.
    pub async fn stop(self) {
        self.cancel.cancel();
        let (key, deadline) =
            (Keyspace::new(&Config::default().cluster).leader(), tokio::time::Instant::now() + PATIENCE);
        while self.store.list(&key).await.unwrap().get(&key).is_some() {
            assert!(tokio::time::Instant::now() < deadline, "it does not resign");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Why a coordinator on this store gives up.
    pub async fn never_leads(store: Arc<dyn MetadataStore>) -> String {
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::default() };
        let server = Server::start(config, fakes::registry(), store, CancellationToken::new()).await.unwrap();
        let ended = tokio::time::timeout(PATIENCE, server.join()).await.expect("it gives up");
        ended.expect_err("it cannot lead").to_string()
    }

    /// Runs statements; panics if one is refused.
    pub async fn run(&self, text: &str) -> Answers {
        self.execute(text, "").await.unwrap_or_else(|status| panic!("{text}: {status:?}"))
    }

    /// Runs statements with a request id.
    pub async fn execute(&self, text: &str, request_id: &str) -> Result<Answers, Status> {
        let request = v1::ExecuteRequest { statement: text.to_owned(), request_id: request_id.to_owned() };
        let mut replies = self.client.clone().execute(Request::new(request)).await?.into_inner();
        let mut answers = Answers::default();
        while let Some(reply) = replies.next().await {
            match reply?.answer.expect("every reply answers") {
                Answer::Notice(text) => answers.notices.push(text),
                Answer::Tag(tag) => answers.tags.push(tag),
                Answer::Rows(set) => {
                    answers.columns = set.columns.into_iter().map(|c| c.name).collect();
                    answers.rows.extend(set.rows.into_iter().map(|row| {
                        let value = |v: v1::Value| v.text.unwrap_or_else(|| "NULL".to_owned());
                        row.values.into_iter().map(value).collect::<Vec<_>>().join("|")
                    }));
                }
            }
        }
        Ok(answers)
    }

    /// Runs statements that are refused: reason and message.
    pub async fn refused(&self, text: &str) -> Status {
        match self.execute(text, "").await {
            Err(status) => status,
            Ok(answers) => panic!("accepted: {text}: {answers:?}"),
        }
    }

    /// Asserts reason and a part of the message.
    pub async fn refuses(&self, text: &str, reason: &str, wanted: &str) {
        let status = self.refused(text).await;
        assert_eq!(status.reason().as_deref(), Some(reason), "{text}: {status:?}");
        assert!(status.message().contains(wanted), "{text}: {}", status.message());
    }

    /// The whole store, decoded.
    pub async fn view(&self) -> View {
        let keys = Keyspace::new(&Config::default().cluster);
        View::decode(&keys, &self.store.list(&keys.all()).await.unwrap()).unwrap()
    }
}

/// The statement of a source `name`.
pub fn source(name: &str, options: &str) -> String {
    let comma = if options.is_empty() { "" } else { ", " };
    format!(
        "CREATE SOURCE {name} (id INT, name VARCHAR) WITH (connector = 'fake', stream = '2'{comma}{options}) \
         FORMAT PLAIN ENCODE JSON (on_error = 'skip')"
    )
}

/// The statement of a sink on a source.
pub fn sink(name: &str, from: &str, options: &str) -> String {
    let comma = if options.is_empty() { "" } else { ", " };
    format!("CREATE SINK {name} FROM {from} WITH (connector = 'fake', stream = '1'{comma}{options})")
}
