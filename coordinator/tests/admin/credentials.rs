//! Credentials over the admin API: created, used, changed and dropped; secrets sealed, rotated and never answered.

use std::sync::Arc;

use proto::v1;
use secrecy::ExposeSecret as _;
use shardwright_coordinator::{Plaintext, SecretsConfig, Vault, new_master_key};
use store::{EmbeddedStore, Keyspace, MetadataStore, ObjectKey, Spec};

use crate::setup::{Coordinator, sink, source};

const SECRET: &str = "hunter2";

fn create(name: &str) -> String {
    format!("CREATE CREDENTIAL {name} TYPE = 'pair', IDENTITY = 'me', SECRET = '{SECRET}'")
}

/// Everything that the store holds, as text.
async fn raw(store: &dyn MetadataStore) -> String {
    let keys = Keyspace::new("shardwright");
    let entries = store.list(&keys.all()).await.unwrap().entries;
    entries
        .iter()
        .map(|entry| format!("{} = {}\n", entry.key, String::from_utf8_lossy(&entry.value)))
        .collect()
}

async fn vault(key: &str, previous: &[&str], plaintext: Plaintext) -> Vault {
    let config = SecretsConfig {
        master_key: (!key.is_empty()).then(|| key.into()),
        previous_keys: previous.iter().map(|key| (*key).into()).collect(),
        plaintext,
        ..SecretsConfig::default()
    };
    Vault::open(&config, "shardwright", false).await.unwrap()
}

async fn rotate(cluster: &Coordinator, look: bool) -> v1::RotateSecretsReply {
    let request = v1::RotateSecretsRequest { look, all: false };
    cluster.client.clone().rotate_secrets(request).await.unwrap().into_inner()
}

/// The objects of the catalog as they are stored, secrets sealed.
async fn objects(cluster: &Coordinator) -> Vec<(String, serde_json::Value)> {
    let keys = Keyspace::new("shardwright").all_of::<ObjectKey>();
    let entries = cluster.store.list(&keys).await.unwrap().entries;
    let object = |entry: store::Entry| {
        let mut value: serde_json::Value = serde_json::from_slice(&entry.value).unwrap();
        let record = value.get_mut("record").map(serde_json::Value::take);
        (entry.key.to_string(), record.unwrap_or(value))
    };
    entries.into_iter().map(object).collect()
}

/// The revision of the spec of the sink or source of this name.
async fn revision(cluster: &Coordinator, name: &str) -> u64 {
    let objects = objects(cluster).await;
    let specs = objects.iter().flat_map(|(_, object)| object["spec"].as_object().unwrap().values());
    let mut named = specs.filter(|spec| spec["name"] == name);
    named.next().unwrap()["revision"].as_u64().unwrap()
}

#[tokio::test]
async fn a_credential_is_shown_without_its_secret() {
    let cluster = Coordinator::start().await;
    let answers = cluster.run(&create("c")).await;
    assert_eq!(answers.tags, ["CREATE CREDENTIAL"]);
    assert!(
        answers.notices[0].contains("are stored in plain text: no `secrets.master_key` is set"),
        "{answers:?}"
    );
    cluster.refuses(&create("c"), "42P07", "credential \"c\" already exists").await;
    let again = create("c").replace("CREDENTIAL c", "CREDENTIAL IF NOT EXISTS c");
    assert_eq!(cluster.run(&again).await.notices, ["credential \"c\" already exists, skipping"]);
    let ddl = "CREATE CREDENTIAL \"public\".\"c\"\nTYPE = 'pair',\nIDENTITY = 'me',\nSECRET = '********'";
    let shown = cluster.run("SHOW CREDENTIAL c").await;
    assert_eq!((shown.columns, shown.rows), (vec!["DDL".to_owned()], vec![ddl.to_owned()]));
    assert_eq!(cluster.run("SHOW CREATE CREDENTIAL c").await.rows, [format!("public.c|{ddl}")]);
    assert_eq!(cluster.run("DESCRIBE CREDENTIAL *").await.rows, ["public.c|pair|me|{}"]);
    assert_eq!(cluster.run("SHOW CREDENTIALS").await.rows, ["public.c|pair|me|plain text|"]);
    cluster.refuses("SHOW CREDENTIAL cc", "42P01", "credential \"cc\" does not exist").await;
}

#[tokio::test]
async fn who_is_used_is_not_dropped_and_names_its_users() {
    let cluster = Coordinator::start().await;
    cluster.run(&format!("{}; {}", create("c"), create("d"))).await;
    cluster.run(&source("s", "credential = 'c'")).await;
    cluster.run(&sink("k", "s", "credential = 'c'")).await;
    let status = cluster.refused("DROP CREDENTIAL c").await;
    assert!(status.message().contains("credential \"c\" is still used by"), "{status:?}");
    assert!(
        status.message().contains("source \"s\"") && status.message().contains("sink \"k\""),
        "{status:?}"
    );
    // All or none.
    cluster.refuses("DROP CREDENTIAL *", "2BP01", "credential \"c\" is still used by").await;
    assert_eq!(cluster.run("SHOW CREDENTIALS LIKE 'd'").await.rows.len(), 1);
    cluster.run("DROP CREDENTIAL d").await;
    assert_eq!(
        cluster.run("DROP CREDENTIAL IF EXISTS d").await.notices,
        ["credential \"d\" does not exist, skipping"]
    );
    cluster.run("DROP SOURCE s CASCADE").await;
    cluster.run("DROP CREDENTIAL *").await;
    let view = cluster.view().await;
    assert!(view.names.is_empty(), "{view:#?}");
    assert!(!view.objects.values().any(|object| matches!(object.value.spec, Spec::Credential(_))));
}

#[tokio::test]
async fn what_does_not_fit_together_is_refused() {
    let cluster = Coordinator::start().await;
    cluster.run(&create("c")).await;
    let other = "CREATE CREDENTIAL o TYPE = 'other', IDENTITY = 'me', SECRET = 'hunter2'";
    cluster.run(other).await;
    cluster.refuses(&source("s", "credential = 'x'"), "22023", "credential \"x\" does not exist").await;
    let wrong = "credential type other cannot be used with connector fake";
    cluster.refuses(&source("s", "credential = 'o'"), "22023", wrong).await;
    let both = "credential and password are mutually exclusive";
    cluster.refuses(&source("s", "credential = 'c', password = 'hunter2'"), "22023", both).await;
    cluster.run(&source("s", "credential = 'c'")).await;
    cluster.refuses("ALTER CREDENTIAL c SET PROPERTY type = 'other'", "22023", wrong).await;
    let replaced = other.replace("CREDENTIAL o", "OR REPLACE CREDENTIAL c");
    cluster.refuses(&replaced, "22023", wrong).await;
    cluster
        .refuses("ALTER CREDENTIAL c SET PROPERTY secrt = 'hunter2'", "22023", "unknown credential option")
        .await;
    // What was refused has left nothing behind.
    assert_eq!(cluster.run("SHOW SOURCES").await.rows.len(), 2);
}

#[tokio::test]
async fn a_changed_credential_gives_its_users_a_new_revision() {
    let cluster = Coordinator::start().await;
    cluster.run(&create("c")).await;
    cluster.run(&format!("{}; {}", source("s", "credential = 'c'"), source("other", ""))).await;
    cluster.run(&format!("{}; {}", sink("k", "other", "credential = 'c'"), sink("l", "other", ""))).await;
    for name in ["s", "other", "k", "l"] {
        assert_eq!(revision(&cluster, name).await, 1, "{name}");
    }
    cluster.run("ALTER CREDENTIAL c SET PROPERTY secret = 'hunter3'").await;
    cluster.run(&create("c").replace("CREATE", "CREATE OR REPLACE")).await;
    for (name, wanted) in [("s", 3), ("other", 1), ("k", 3), ("l", 1)] {
        assert_eq!(revision(&cluster, name).await, wanted, "{name}");
    }
    // A credential that cannot be reached through is no reason to refuse it: its users are not asked.
    cluster.run("ALTER CREDENTIAL c SET PROPERTY reach = 'never'").await;
    cluster.refuses("ALTER SINK k SET (in_flight = 2)", "08001", "nobody is there").await;
    cluster.run("ALTER CREDENTIAL c SET PROPERTY reach = ''").await;
    cluster.run("ALTER SINK k SET (in_flight = 2)").await;
}

#[tokio::test]
async fn hundreds_of_users_get_their_revision_too() {
    let cluster = Coordinator::start().await;
    cluster.run(&format!("{}; {}", create("c"), source("s", ""))).await;
    let sinks: Vec<String> = (0..150).map(|n| sink(&format!("k{n}"), "s", "credential = 'c'")).collect();
    cluster.run(&sinks.join(";")).await;
    cluster.run("ALTER CREDENTIAL c SET PROPERTY secret = 'hunter3'").await;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let view = cluster.view().await;
        let done = view.objects.values().all(|object| match &object.value.spec {
            Spec::Sink(spec) => spec.revision == 2,
            Spec::Credential(spec) => !spec.renewal_due,
            Spec::Source(_) => true,
        });
        if done {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "some sinks go on with the old secret");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn with_a_key_nothing_secret_reaches_the_store() {
    let key = new_master_key().unwrap();
    let store: Arc<dyn MetadataStore> = Arc::new(EmbeddedStore::in_memory());
    let vault = vault(key.expose_secret(), &[], Plaintext::Never).await;
    let cluster = Coordinator::start_with(Arc::clone(&store), vault).await;
    let answers = cluster.run(&format!("{}; {}", create("c"), source("s", "password = 'hunter2'"))).await;
    assert!(answers.notices.is_empty(), "{answers:?}");
    cluster.run(&sink("k", "s", "credential = 'c'")).await;
    cluster
        .run("ALTER CREDENTIAL c SET PROPERTY secret = 'hunter2more'; ALTER SINK k SET (in_flight = 2)")
        .await;
    let stored = raw(&*store).await;
    assert!(!stored.contains(SECRET), "{stored}");
    assert_eq!(stored.matches("{\"sealed\":").count(), 3, "{stored}");
    assert_eq!(cluster.run("SHOW CREDENTIALS").await.rows, ["public.c|pair|me|encrypted|sink k"]);
    let standing = rotate(&cluster, true).await;
    assert_eq!((standing.rewritten, standing.current, standing.previous, standing.plain), (0, 3, 0, 0));
}

#[tokio::test]
async fn rotation_seals_what_was_plain_and_what_an_older_key_sealed_and_may_be_repeated() {
    let (old, new) = (new_master_key().unwrap(), new_master_key().unwrap());
    let store: Arc<dyn MetadataStore> = Arc::new(EmbeddedStore::in_memory());
    {
        let cluster =
            Coordinator::start_with(Arc::clone(&store), vault("", &[], Plaintext::Always).await).await;
        cluster.run(&create("plain")).await;
        let status =
            cluster.client.clone().rotate_secrets(v1::RotateSecretsRequest::default()).await.unwrap_err();
        assert!(status.message().contains("there is no key to encrypt with"), "{status:?}");
        cluster.stop().await;
    }
    assert!(raw(&*store).await.contains(SECRET));
    {
        let vault = vault(old.expose_secret(), &[], Plaintext::Loopback).await;
        let cluster = Coordinator::start_with(Arc::clone(&store), vault).await;
        cluster.run(&create("sealed")).await;
        let notice = cluster.run("SHOW CREATE CREDENTIAL plain").await.notices;
        assert_eq!(notice, ["secrets are stored in plain text until `shardwright secrets rotate` has run"]);
        let standing = rotate(&cluster, true).await;
        assert_eq!((standing.current, standing.plain), (1, 1));
        cluster.stop().await;
    }
    let vault = vault(new.expose_secret(), &[old.expose_secret()], Plaintext::Loopback).await;
    let cluster = Coordinator::start_with(Arc::clone(&store), vault).await;
    cluster.run(&format!("{}; {}", source("s", "credential = 'plain'"), sink("k", "s", ""))).await;
    let before = revision(&cluster, "s").await;
    let standing = rotate(&cluster, false).await;
    assert_eq!((standing.rewritten, standing.current, standing.previous, standing.plain), (2, 3, 0, 0));
    assert!(!raw(&*store).await.contains(SECRET));
    assert_eq!(revision(&cluster, "s").await, before, "nobody is restarted by a rotation");
    assert_eq!(rotate(&cluster, false).await.rewritten, 0);
    cluster.stop().await;
    // The old key is not needed any more.
    let alone =
        Coordinator::start_with(store, self::vault(new.expose_secret(), &[], Plaintext::Never).await).await;
    assert_eq!(alone.run("SHOW CREDENTIALS").await.rows.len(), 2);
}

#[tokio::test]
async fn without_a_key_a_store_elsewhere_gets_no_secret_unless_told() {
    let store: Arc<dyn MetadataStore> = Arc::new(EmbeddedStore::in_memory());
    let remote = vault("", &[], Plaintext::Loopback).await;
    let cluster = Coordinator::start_with(store, remote).await;
    for text in [create("c"), source("s", "password = 'hunter2'")] {
        cluster.refuses(&text, "22023", "would be stored in plain text, where others may read it").await;
    }
    cluster.run(&source("s", "")).await;
    cluster
        .refuses("ALTER SOURCE s SET (password = 'hunter2')", "22023", "would be stored in plain text")
        .await;
    assert!(cluster.view().await.objects.len() == 1);
}

#[tokio::test]
async fn a_repeated_request_is_known_though_its_text_is_not_kept() {
    let cluster = Coordinator::start().await;
    let first = cluster.execute(&create("c"), "id-1").await.unwrap();
    assert_eq!(cluster.execute(&create("c"), "id-1").await.unwrap(), first);
    let status = cluster.execute(&create("d"), "id-1").await.unwrap_err();
    assert!(status.message().contains("this request id was used for other statements"), "{status:?}");
}

#[tokio::test]
async fn a_key_that_is_missing_stops_the_coordinator_with_its_name() {
    let key = new_master_key().unwrap();
    let store: Arc<dyn MetadataStore> = Arc::new(EmbeddedStore::in_memory());
    let sealing = vault(key.expose_secret(), &[], Plaintext::Loopback).await;
    let name = sealing.key().unwrap().to_owned();
    let cluster = Coordinator::start_with(Arc::clone(&store), sealing).await;
    cluster.run(&create("c")).await;
    let (stored_at, _) = objects(&cluster).await.remove(0);
    cluster.stop().await;
    let error = Coordinator::never_leads(store).await;
    assert!(error.contains(&name) && error.contains(&stored_at), "{error}");
}
