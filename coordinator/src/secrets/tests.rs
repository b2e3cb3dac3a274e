//! What a reader and a writer of the metadata store can do with what lies there.

use std::sync::Arc;

use ::store::{
    Commit, EmbeddedStore, ErrorKind, Guard, Keyspace, MetadataStore, ObjectKey, ObjectRecord, Spec, View,
    Write,
};
use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region};
use model::{CredentialSpec, ObjectId, SinkSpec, Timestamp};
use secrecy::SecretString;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;

const SECRET: &str = "hunter2-hunter2";

fn id(n: u64) -> ObjectId {
    ObjectId::from_parts(n, u128::from(n))
}

/// A sink with these options.
fn sink(n: u64, options: &[(&str, &str)]) -> ObjectRecord {
    let spec = SinkSpec {
        id: id(n),
        name: format!("sink{n}"),
        source: id(0),
        source_name: "in".to_owned(),
        query: None,
        columns: Vec::new(),
        connector: "kafka".to_owned(),
        options: options.iter().copied().collect(),
        primary_key: Vec::new(),
        format: None,
        on_error: model::OnError::Fail,
        distribution: model::Distribution::Split,
        paused: false,
        created_at: Timestamp(0),
        revision: 1,
        instance: 0,
    };
    record(Spec::Sink(Box::new(spec)))
}

fn credential(n: u64) -> ObjectRecord {
    let options = [("identity", "me"), ("secret", SECRET)].into_iter().collect();
    let (name, kind) = (format!("cred{n}"), "aws_access_key".to_owned());
    let (created_at, revision) = (Timestamp(0), 1);
    let spec = CredentialSpec { id: id(n), name, kind, options, created_at, revision, renewal_due: false };
    record(Spec::Credential(Box::new(spec)))
}

fn record(spec: Spec) -> ObjectRecord {
    serde_json::from_value(serde_json::json!({ "spec": spec })).unwrap()
}

/// With a password of its own, and the place that it is sent to.
fn guarded(n: u64) -> ObjectRecord {
    sink(
        n,
        &[
            ("properties.sasl.password", SECRET),
            ("properties.bootstrap.server", "good:1"),
            ("url", "x://u:hunter2-hunter2@h"),
        ],
    )
}

struct Bench {
    inner: Arc<EmbeddedStore>,
    keys: Keyspace,
    key: SecretString,
}

impl Bench {
    fn new() -> Self {
        let (inner, keys) = (Arc::new(EmbeddedStore::in_memory()), Keyspace::new("c"));
        Self { inner, keys, key: new_master_key().unwrap() }
    }

    async fn vault(&self) -> Vault {
        let config = SecretsConfig { master_key: Some(self.key.clone()), ..SecretsConfig::default() };
        Vault::open(&config, "c", false).await.unwrap()
    }

    fn sealed(&self, vault: Vault) -> SealedStore {
        SealedStore::new(self.inner.clone(), "c", vault)
    }

    async fn put(&self, store: &dyn MetadataStore, record: &ObjectRecord) {
        let write = self.keys.put::<ObjectKey>(&record.spec.id(), record);
        assert!(matches!(store.commit(&[], vec![write]).await.unwrap(), Commit::Done(_)));
    }

    /// What a reader of the store sees of an object.
    async fn raw(&self, n: u64) -> String {
        let key = self.keys.object(id(n));
        let snapshot = self.inner.list(&key).await.unwrap();
        String::from_utf8(snapshot.get(&key).unwrap().value.to_vec()).unwrap()
    }

    /// What a writer of the store puts there.
    async fn forge(&self, n: u64, value: &str) {
        let write = Write::Put(self.keys.object(id(n)), value.to_owned().into());
        self.inner.commit(&[], vec![write]).await.unwrap();
    }

    async fn records(&self, store: &dyn MetadataStore) -> Result<Vec<ObjectRecord>> {
        let view = View::decode(&self.keys, &store.list(&self.keys.all()).await?)?;
        Ok(view.objects.into_values().map(|object| object.value).collect())
    }
}

#[tokio::test]
async fn a_reader_of_the_store_finds_no_secret_and_the_coordinator_all() {
    let bench = Bench::new();
    let store = bench.sealed(bench.vault().await);
    let all = [guarded(1), credential(2), sink(3, &[("credential", "cred2")]), sink(4, &[("path", "/x")])];
    for record in &all {
        bench.put(&store, record).await;
    }
    for n in 1..=4 {
        let raw = bench.raw(n).await;
        assert!(!raw.contains(SECRET), "{raw}");
        // Who has no secrets and uses none is left as it is.
        assert_eq!(raw.starts_with("{\"sealed\":"), n < 4, "{raw}");
    }
    assert!(bench.raw(1).await.contains("good:1"), "what is no secret can be read");
    assert_eq!(bench.records(&store).await.unwrap(), all);
    // Another process has nothing but the key.
    let fresh = bench.sealed(bench.vault().await);
    assert_eq!(bench.records(&fresh).await.unwrap(), all);
    assert_eq!(fresh.plain(), 0);
    let debug = format!("{:?} {:?}", bench.vault().await, bench.records(&fresh).await.unwrap());
    assert!(!debug.contains(SECRET), "{debug}");
}

#[tokio::test]
async fn a_lost_commit_tells_plain_records() {
    let bench = Bench::new();
    let store = bench.sealed(bench.vault().await);
    bench.put(&store, &guarded(1)).await;
    let key = bench.keys.object(id(1));
    let Commit::Lost(present) = store.commit(&[Guard::Absent(key.clone())], vec![]).await.unwrap() else {
        panic!("the key is there");
    };
    let record: ObjectRecord = ::store::decode(&key, &present.get(&key).unwrap().value).unwrap();
    assert_eq!(record, guarded(1));
}

#[tokio::test]
async fn a_writer_of_the_store_can_neither_move_nor_change_what_holds_or_uses_a_secret() {
    let bench = Bench::new();
    let store = bench.sealed(bench.vault().await);
    for record in [guarded(1), guarded(2), sink(3, &[("credential", "cred2"), ("address", "good:1")])] {
        bench.put(&store, &record).await;
    }
    let (one, two, three) = (bench.raw(1).await, bench.raw(2).await, bench.raw(3).await);
    let parts = |raw: &str| {
        let at = raw.find(",\"record\":").unwrap();
        (raw[..at].to_owned(), raw[at..].to_owned())
    };
    let ((seal_one, record_one), (seal_two, _)) = (parts(&one), parts(&two));
    let forged = [
        (2, one.clone(), "a record at another object's key"),
        (1, format!("{seal_two}{record_one}"), "another object's secrets"),
        (1, one.replace("good:1", "evil:1"), "the place that a password is sent to"),
        (1, one.replace("good:1", "good:1 "), "a byte more"),
        (1, format!("{seal_one}{}", record_one.replace("\"paused\":false", "\"paused\":true")), "a flag"),
        (3, three.replace("good:1", "evil:1"), "the place that a credential is sent to"),
        (3, three.replace("cred2", "cred9"), "the credential that is used"),
    ];
    for (n, value, what) in forged {
        let before = bench.raw(n).await;
        assert_ne!(before, value, "{what}: nothing was changed");
        bench.forge(n, &value).await;
        let error = bench.records(&store).await.err().unwrap_or_else(|| panic!("{what}: nobody noticed"));
        assert_eq!(error.kind, ErrorKind::Config, "{what}: {error}");
        assert!(error.to_string().contains("somebody else has changed them"), "{what}: {error}");
        bench.forge(n, &before).await;
    }
    // The same bytes in a cluster of another name.
    let other = Keyspace::new("d");
    let write = Write::Put(other.object(id(1)), one.into());
    bench.inner.commit(&[], vec![write]).await.unwrap();
    let config = SecretsConfig { master_key: Some(bench.key.clone()), ..SecretsConfig::default() };
    let vault = Vault::open(&config, "d", false).await.unwrap();
    let elsewhere = SealedStore::new(bench.inner.clone(), "d", vault);
    assert_eq!(elsewhere.list(&other.all()).await.err().unwrap().kind, ErrorKind::Config);
}

#[tokio::test]
async fn who_has_lost_the_key_may_go_on_without_the_secrets() {
    let bench = Bench::new();
    let store = bench.sealed(bench.vault().await);
    let user = sink(3, &[("credential", "cred2"), ("address", "good:1")]);
    for record in [guarded(1), credential(2), user, sink(4, &[("path", "/x")])] {
        bench.put(&store, &record).await;
    }
    let lost = async |unreadable| {
        let config = SecretsConfig {
            master_key: Some(new_master_key().unwrap()),
            unreadable,
            ..SecretsConfig::default()
        };
        bench.records(&bench.sealed(Vault::open(&config, "c", false).await.unwrap())).await
    };
    assert!(lost(Unreadable::Refuse).await.is_err());
    let records = lost(Unreadable::Forget).await.unwrap();
    assert_eq!(records.len(), 4);
    // Nor is a credential sent where nobody vouches for.
    assert_eq!(records[0], sink(1, &[("properties.bootstrap.server", "good:1")]));
    assert_eq!(records[2], sink(3, &[("address", "good:1")]));
    assert!(!format!("{records:?}").contains("secret"), "{records:?}");
    // What can be opened is.
    let config = SecretsConfig {
        master_key: Some(bench.key.clone()),
        unreadable: Unreadable::Forget,
        ..SecretsConfig::default()
    };
    let store = bench.sealed(Vault::open(&config, "c", false).await.unwrap());
    assert_eq!(bench.records(&store).await.unwrap()[0], guarded(1));
}

/// What docs/adr/0013 says is not promised: nothing outside the store remembers which version was the last.
#[tokio::test]
async fn an_older_version_of_the_same_object_is_taken_for_the_present_one() {
    let bench = Bench::new();
    let store = bench.sealed(bench.vault().await);
    bench.put(&store, &guarded(1)).await;
    let old = bench.raw(1).await;
    bench.put(&store, &sink(1, &[("properties.sasl.password", "new")])).await;
    bench.forge(1, &old).await;
    assert_eq!(bench.records(&store).await.unwrap(), [guarded(1)]);
}

#[tokio::test]
async fn what_a_previous_key_sealed_is_read_and_what_no_key_opens_is_named() {
    let bench = Bench::new();
    let vault = bench.vault().await;
    bench.put(&bench.sealed(vault.clone()), &guarded(1)).await;
    let config = SecretsConfig {
        master_key: Some(new_master_key().unwrap()),
        previous_keys: vec![bench.key.clone()],
        ..SecretsConfig::default()
    };
    let newer = Vault::open(&config, "c", false).await.unwrap();
    let store = bench.sealed(newer.clone());
    assert_eq!(bench.records(&store).await.unwrap(), [guarded(1)]);
    assert_eq!(store.kept(id(1)), Some(Kept::Sealed(vault.key().unwrap().to_owned())));
    // Written again, the new key protects it, and the old one is not needed any more.
    bench.put(&store, &guarded(1)).await;
    assert_eq!(store.kept(id(1)), Some(Kept::Sealed(newer.key().unwrap().to_owned())));
    let config = SecretsConfig { previous_keys: Vec::new(), ..config };
    let alone = Vault::open(&config, "c", false).await.unwrap();
    assert_eq!(bench.records(&bench.sealed(alone)).await.unwrap(), [guarded(1)]);
    for without in [vault, Vault::default()] {
        let error = bench.records(&bench.sealed(without)).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::Config);
        let text = error.to_string();
        let named = text.contains(newer.key().unwrap()) && text.contains(&id(1).to_string());
        assert!(named && text.contains("neither `secrets.master_key` nor among"), "{text}");
    }
}

#[tokio::test]
async fn plain_records_of_before_are_read_unless_they_must_not_be() {
    let bench = Bench::new();
    bench.put(&bench.sealed(Vault::default()), &guarded(1)).await;
    assert!(bench.raw(1).await.contains(SECRET));
    let store = bench.sealed(bench.vault().await);
    assert_eq!(bench.records(&store).await.unwrap(), [guarded(1)]);
    assert_eq!((store.kept(id(1)), store.plain()), (Some(Kept::Plain), 1));
    assert!(store.warning().unwrap().contains("secrets of 1 object(s) are stored in plain text"));
    let config = SecretsConfig {
        master_key: Some(bench.key.clone()),
        plaintext: Plaintext::Never,
        ..SecretsConfig::default()
    };
    let strict = bench.sealed(Vault::open(&config, "c", true).await.unwrap());
    let error = bench.records(&strict).await.err().unwrap().to_string();
    assert!(error.contains("sink \"sink1\" is stored in plain text"), "{error}");
    assert!(!error.contains(SECRET));
    // Who uses a credential could send it elsewhere.
    bench
        .forge(1, &serde_json::to_string(&sink(1, &[("credential", "c"), ("address", "evil:1")])).unwrap())
        .await;
    assert!(bench.records(&strict).await.is_err());
    bench.forge(1, &serde_json::to_string(&sink(1, &[("path", "/x")])).unwrap()).await;
    assert_eq!(bench.records(&strict).await.unwrap().len(), 1);
}

#[tokio::test]
async fn settings_that_contradict_each_other_or_hold_no_key_are_refused_in_words() {
    let refused =
        async |config: SecretsConfig| Vault::open(&config, "c", true).await.err().unwrap().to_string();
    let both = SecretsConfig {
        master_key: Some(new_master_key().unwrap()),
        kms_key: Some("alias/x".to_owned()),
        ..SecretsConfig::default()
    };
    assert!(refused(both).await.contains("`secrets.previous_keys` (a key of KMS as `kms:NAME`)"));
    let wrong = SecretsConfig { previous_keys: vec!["hunter2".into()], ..SecretsConfig::default() };
    let text = refused(wrong).await;
    assert!(
        text.contains("`secrets.previous_keys` is not the base64 of 32 bytes") && !text.contains("hunter2")
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    let absent = SecretsConfig { previous_keys_file: Some(path.clone()), ..SecretsConfig::default() };
    assert!(refused(absent.clone()).await.contains("cannot read"));
    let key = new_master_key().unwrap();
    std::fs::write(&path, format!("{}\n\n", key.expose_secret())).unwrap();
    assert_eq!(previous_keys(&absent).unwrap().len(), 1);
}

/// A KMS that keeps the key material in its ciphertexts: `key|context|material`.
struct FakeKms {
    url: String,
    calls: Arc<Lock<Vec<String>>>,
    /// What every call is refused with.
    refuses: Arc<Lock<Option<&'static str>>>,
}

impl FakeKms {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (calls, refuses) = (Arc::new(Lock::new(Vec::new())), Arc::new(Lock::new(None)));
        let (told, refused) = (Arc::clone(&calls), Arc::clone(&refuses));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (told, refused) = (Arc::clone(&told), Arc::clone(&refused));
                tokio::spawn(async move {
                    let (target, body) = request(stream).await;
                    told.lock().unwrap().push(target.0.clone());
                    let answer = match *refused.lock().unwrap() {
                        Some(code) => Err(code),
                        None => Self::answer(&target.0, &body),
                    };
                    respond(target.1, answer).await;
                });
            }
        });
        Self { url, calls, refuses }
    }

    fn answer(target: &str, body: &serde_json::Value) -> Result<serde_json::Value, &'static str> {
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let context = body["EncryptionContext"]["shardwright:cluster"].as_str().unwrap_or_default();
        let (key, known) = (text("KeyId"), format!("{}|{context}|", text("KeyId")));
        match target {
            "TrentService.GenerateDataKey" => {
                assert_eq!(text("KeySpec"), "AES_256");
                let material = [u8::try_from(key.len()).unwrap(); 32];
                let blob = [known.as_bytes(), &material].concat();
                Ok(serde_json::json!({
                    "KeyId": key,
                    "Plaintext": STANDARD.encode(material),
                    "CiphertextBlob": STANDARD.encode(blob),
                }))
            }
            "TrentService.Decrypt" => {
                let blob = STANDARD.decode(text("CiphertextBlob")).unwrap();
                match blob.strip_prefix(known.as_bytes()) {
                    Some(material) => {
                        Ok(serde_json::json!({ "KeyId": key, "Plaintext": STANDARD.encode(material) }))
                    }
                    None if blob.starts_with(key.as_bytes()) => Err("InvalidCiphertextException"),
                    None => Err("IncorrectKeyException"),
                }
            }
            other => panic!("{other}"),
        }
    }

    fn key(&self, name: &str, cluster: &str) -> Arc<dyn MasterKey> {
        let config = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"))
            .retry_config(aws_config::retry::RetryConfig::disabled())
            .credentials_provider(Credentials::new("AKIA", "test", None, None, "test"))
            .endpoint_url(&self.url)
            .build();
        Arc::new(KmsKey::over(aws_sdk_kms::Client::from_conf(config), name, cluster))
    }
}

async fn request(mut stream: TcpStream) -> ((String, TcpStream), serde_json::Value) {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let header = |name: &str| {
                let line =
                    head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
                line.map(|line| line[name.len() + 1..].trim().to_owned()).unwrap_or_default()
            };
            let length: usize = header("content-length").parse().unwrap_or(0);
            if body.len() >= length {
                return ((header("x-amz-target"), stream), serde_json::from_str(body).unwrap());
            }
        }
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "the request breaks off");
    }
}

async fn respond(mut stream: TcpStream, answer: Result<serde_json::Value, &'static str>) {
    let (status, body) = match answer {
        Ok(body) => ("200 OK", body),
        Err(code) => ("400 Bad Request", serde_json::json!({ "__type": code, "message": "no" })),
    };
    let (body, kind) = (body.to_string(), "application/x-amz-json-1.1");
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n", body.len());
    stream.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes()).await.unwrap();
}

#[tokio::test]
async fn a_key_of_kms_seals_and_opens_and_is_asked_once() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let (bench, kms) = (Bench::new(), FakeKms::start().await);
    let vault = |name: &str| Vault::of(Some(kms.key(name, "c")), Vec::new(), Plaintext::Loopback, false);
    let store = bench.sealed(vault("alias/a"));
    bench.put(&store, &guarded(1)).await;
    bench.put(&store, &credential(2)).await;
    assert!(!bench.raw(1).await.contains(SECRET) && !bench.raw(2).await.contains(SECRET));
    assert_eq!(*kms.calls.lock().unwrap(), ["TrentService.GenerateDataKey"]);
    let fresh = bench.sealed(vault("alias/a"));
    for _ in 0..3 {
        assert_eq!(bench.records(&fresh).await.unwrap().len(), 2);
    }
    assert_eq!(*kms.calls.lock().unwrap(), ["TrentService.GenerateDataKey", "TrentService.Decrypt"]);
    // A key that the settings do not name opens nothing, whoever may use it.
    let error = bench.records(&bench.sealed(vault("alias/b"))).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Config);
    assert!(error.to_string().contains("IncorrectKeyException"), "{error}");
    // Nor does the key for another cluster.
    let other = Vault::of(Some(kms.key("alias/a", "d")), Vec::new(), Plaintext::Loopback, false);
    assert_eq!(bench.records(&bench.sealed(other)).await.err().unwrap().kind, ErrorKind::Config);
    // From a key of the settings to one of KMS and back: the other is a previous one.
    let local = Arc::new(LocalKey::parse(&bench.key, "c", "k").unwrap());
    let moved = Vault::of(Some(local), vec![kms.key("alias/a", "c")], Plaintext::Loopback, false);
    assert_eq!(bench.records(&bench.sealed(moved)).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_kms_that_is_away_is_waited_for_and_one_that_refuses_is_named() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let (bench, kms) = (Bench::new(), FakeKms::start().await);
    let store =
        bench.sealed(Vault::of(Some(kms.key("alias/a", "c")), Vec::new(), Plaintext::Loopback, false));
    let write = || bench.keys.put::<ObjectKey>(&id(1), &guarded(1));
    for (code, kind) in [
        ("KMSInternalException", ErrorKind::Unavailable),
        ("AccessDeniedException", ErrorKind::Denied),
        ("NotFoundException", ErrorKind::Config),
    ] {
        *kms.refuses.lock().unwrap() = Some(code);
        let error = store.commit(&[], vec![write()]).await.unwrap_err();
        assert_eq!((error.kind, error.ambiguous), (kind, false), "{error}");
        assert!(error.to_string().contains("AWS KMS cannot make a data key with key `alias/a`"), "{error}");
    }
    *kms.refuses.lock().unwrap() = None;
    assert!(matches!(store.commit(&[], vec![write()]).await.unwrap(), Commit::Done(_)));
}
