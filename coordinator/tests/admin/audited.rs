//! What the audit log says of calls that another coordinator passes on.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
};

use proto::v1::admin_client::AdminClient;
use shardwright_coordinator::{AuthConfig, Config};
use store::{EmbeddedStore, MetadataStore};
use tonic::transport::Endpoint;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::DefaultGuard,
};

use crate::{
    forwarded::Secured,
    login::{ADMIN, Caller, basic, strict},
    setup::Coordinator,
};

/// The fields of one event.
#[derive(Clone, Default, Debug)]
struct Told(BTreeMap<&'static str, String>);

impl Visit for Told {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

/// The audit log of everything that runs in this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Told>>>);

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "audit"
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut told = Told::default();
        event.record(&mut told);
        self.0.lock().unwrap().push(told);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

impl Log {
    fn begin() -> (Self, DefaultGuard) {
        let log = Self::default();
        let guard = tracing::subscriber::set_default(log.clone());
        (log, guard)
    }

    /// The newest event with this message, of a call.
    fn newest(&self, call: &str, message: &str) -> Told {
        let told = self.0.lock().unwrap();
        let wanted = |told: &&Told| told.0["call"] == call && told.0["message"] == message;
        told.iter().rev().find(wanted).unwrap_or_else(|| panic!("nothing is {message}: {told:#?}")).clone()
    }
}

#[tokio::test]
async fn the_audit_log_says_where_a_call_came_from_that_a_follower_took() {
    let (log, _guard) = Log::begin();
    let store: Arc<dyn MetadataStore> = Arc::new(EmbeddedStore::in_memory());
    let config = || Config { auth: strict(), ..Config::default() };
    let _leader = Coordinator::start_config(Arc::clone(&store), config()).await;
    let follower = Coordinator::start_config(store, config()).await;
    let address = follower.server.local_addr();
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let elsewhere = endpoint.local_address(Some("127.0.0.2".parse().unwrap())).connect().await.unwrap();
    Caller::new(&AdminClient::new(elsewhere), Some(basic("admin", ADMIN))).run("SHOW SOURCES").await;
    let passed_on = log.newest("Execute", "passed on");
    assert!(passed_on.0["from"].starts_with("127.0.0.2:"), "{passed_on:?}");
    let answered = log.newest("Execute", "answered");
    let said = |name: &str| answered.0[name].as_str();
    assert_eq!((said("user"), said("said_from")), ("admin", "127.0.0.2"));
    assert_eq!(said("passed_on_by"), format!("http://{address}"));
    assert!(said("from").starts_with("127.0.0.1:"), "nobody is believed without a name: {answered:?}");
}

#[tokio::test]
async fn the_audit_log_believes_a_coordinator_that_is_named_about_where_a_call_came_from() {
    let (log, _guard) = Log::begin();
    for believed in [false, true] {
        let scene = Secured::new();
        let peers = if believed { vec!["second".to_owned()] } else { Vec::new() };
        let _leader = scene.coordinator("first", AuthConfig { peers, ..strict() }).await;
        let follower = scene.coordinator("second", strict()).await;
        let caller = scene.caller(follower, None).await;
        Caller::new(&caller.client, Some(basic("admin", ADMIN))).run("SHOW SOURCES").await;
        let answered = log.newest("Execute", "answered");
        assert_eq!(answered.0["said_from"], "127.0.0.1");
        assert_eq!(answered.0["from"] == "127.0.0.1", believed, "{answered:?}");
    }
}
