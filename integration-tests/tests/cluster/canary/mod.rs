//! I9: a secret is never printed, logged, returned or stored in plain text.
//!
//! A canary of its own goes into every secret option that a connector or a kind of credential declares, into passwords and into
//! the master key. Statements succeed and fail with them, processes die, keys are rotated. Then everything that came out anywhere is
//! searched: answers, errors, events, metrics, spans, logs at level debug, the support bundle, etcd's keys and its files. That the
//! search would find one is proved by a control that is planted where anybody may see it.

mod collector;
mod search;

use std::{path::Path, process::Command, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use connector::{CredentialKind, OptionDef, OptionKind, Registry};
use proto::v1::{self, admin_client::AdminClient};
use shardwright_integration_tests::{
    cluster::{Cluster, Metadata},
    endpoint::{self, Endpoint},
    servers::Etcd,
};
use store::{Keyspace, StoreConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_stream::StreamExt as _;

use crate::trial::HEALS_WITHIN;
use collector::Collector;
use search::{Haul, Planted, canary};

/// A stream that is read, and one that is written.
const STREAMS: [&str; 2] = ["orders-in", "orders-out"];
/// The variable of a setting that is a secret.
const ADMIN_PASSWORD: &str = "SHARDWRIGHT_AUTH_ADMIN_PASSWORD";

struct Scene {
    cluster: Cluster,
    endpoint: Endpoint,
    etcd: Etcd,
    collector: Collector,
    planted: Planted,
    haul: Haul,
    dir: tempfile::TempDir,
    /// What is no part of what is searched: the file of the master key.
    aside: tempfile::TempDir,
}

async fn scene(test: &str) -> Option<Scene> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let (dir, aside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let etcd = Etcd::of_test(test, &dir.path().join("etcd")).await?;
    let endpoint = Endpoint::start(endpoint::quick()).await.unwrap();
    for stream in STREAMS {
        endpoint::create_stream(&endpoint.client(), stream, 2).await.unwrap();
    }
    let collector = Collector::start().await;
    let mut planted = Planted::default();
    // 32 bytes that are a canary: the key itself must not be seen either.
    let key = planted.plant("the master key");
    let key_file = aside.path().join("key");
    std::fs::write(&key_file, STANDARD.encode(format!("{key:X<32}").get(..32).unwrap())).unwrap();
    let mut cluster = Cluster::plan(dir.path(), Metadata::Etcd(etcd.url()), 2).unwrap();
    cluster.serve_telemetry();
    cluster.set_variable("SHARDWRIGHT_TELEMETRY_LOG", "debug");
    cluster.set_variable("SHARDWRIGHT_TELEMETRY_OTLP_ENDPOINT", &collector.url);
    cluster.set_variable("SHARDWRIGHT_TELEMETRY_TRACE_RATIO", "1.0");
    cluster.set_coordinator_variable("SHARDWRIGHT_SECRETS_MASTER_KEY_FILE", key_file.to_str().unwrap());
    cluster.set_coordinator_variable("SHARDWRIGHT_SECRETS_PLAINTEXT", "never");
    cluster.set_coordinator_variable(ADMIN_PASSWORD, &planted.plant("the first administrator's password"));
    for number in 0..2 {
        cluster.start_coordinator(number).await.unwrap();
    }
    for worker in ["worker-0", "worker-1"] {
        cluster.start_worker(worker).unwrap();
    }
    Some(Scene { cluster, endpoint, etcd, collector, planted, haul: Haul::default(), dir, aside })
}

/// Every connector and every kind of credential that there is.
fn registry() -> Registry {
    let mut registry = Registry::new();
    connectors::register_all(&mut registry);
    registry
}

/// The secret options of every connector, under each of their names: what is made (`SOURCE`, `SINK`), by which connector, the name.
fn secret_options(registry: &Registry) -> Vec<(&'static str, &'static str, &'static str)> {
    let (sources, sinks) = registry.names();
    let sources = sources.into_iter().map(|name| ("SOURCE", name, registry.source(name).unwrap().options));
    let sinks = sinks.into_iter().map(|name| ("SINK", name, registry.sink(name).unwrap().options));
    let secret = |def: &&OptionDef| def.secret;
    sources
        .chain(sinks)
        .flat_map(|(what, connector, defs)| {
            let names =
                defs.iter().filter(secret).flat_map(|def| std::iter::once(&def.name).chain(def.aliases));
            names.map(move |name| (what, connector, *name))
        })
        .collect()
}

impl Scene {
    /// Runs a text; whatever comes of it is kept. `true` if it was carried out.
    async fn run(&mut self, text: &str) -> bool {
        let answered = self.cluster.admin().try_execute(text).await;
        self.haul.add("answers", format!("{answered:?}"));
        answered.is_ok()
    }

    /// Runs a text that must be carried out.
    async fn must(&mut self, text: &str) {
        let deadline = tokio::time::Instant::now() + HEALS_WITHIN;
        while !self.run(text).await {
            assert!(tokio::time::Instant::now() < deadline, "{text}\n{}", self.cluster.tails());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Runs a text that must be refused.
    async fn fails(&mut self, text: &str) {
        assert!(!self.run(text).await, "accepted: {text}");
    }

    fn keys(&mut self, prefix: &str, used: &str) -> String {
        let (secret, token) = (
            self.planted.plant(&format!("{used}: secret key")),
            self.planted.plant(&format!("{used}: token")),
        );
        format!(
            "{prefix}aws.region = 'us-east-1', {prefix}endpoint = '{}', {prefix}aws.credentials.access_key_id = 'test', \
             {prefix}aws.credentials.secret_access_key = '{secret}', {prefix}aws.credentials.session_token = '{token}'",
            self.endpoint.url()
        )
    }

    /// `CREATE CREDENTIAL` with a canary in every secret part.
    fn credential(&mut self, kind: &CredentialKind, name: &str) -> String {
        let mut text = format!("CREATE CREDENTIAL {name} TYPE = '{}'", kind.name);
        let mut options = Vec::new();
        // Keys and a profile exclude each other.
        for part in kind.parts.iter().filter(|part| part.def.name != "profile") {
            let value = match part.def.kind {
                _ if part.def.secret => {
                    self.planted.plant(&format!("credential {}: {}", kind.name, part.def.name))
                }
                OptionKind::OneOf(words) => (*words.last().unwrap()).to_owned(),
                _ if part.def.name.contains("arn") => "arn:aws:iam::123456789012:role/none".to_owned(),
                _ => "nowhere".to_owned(),
            };
            match part.def.name {
                "identity" => text.push_str(&format!(", IDENTITY = '{value}'")),
                "secret" => text.push_str(&format!(", SECRET = '{value}'")),
                option => options.push(format!("'{option}' = '{value}'")),
            }
        }
        format!("{text} WITH OPTIONS ({})", options.join(", "))
    }

    /// What users get right: objects of every kind that hold or use secrets.
    async fn succeed(&mut self, control: &str) {
        for kind in registry().credentials() {
            let text = self.credential(kind, kind.name);
            self.must(&text).await;
        }
        let (columns, format) = ("(key VARCHAR, n BIGINT)", "FORMAT PLAIN ENCODE JSON");
        let [read, written] = STREAMS;
        let url = self.endpoint.url();
        self.must(&format!(
            "CREATE SOURCE orders {columns} WITH (connector = 'kinesis', stream = '{read}', aws.region = 'us-east-1', \
             endpoint = '{url}', credential = 'aws_access_key') {format}"
        ))
        .await;
        let keys = self.keys("", "inline of a source");
        self.must(&format!("CREATE SOURCE {control} {columns} WITH (connector = 'kinesis', stream = '{read}', {keys}) {format}"))
            .await;
        let (keys, dead) = (self.keys("", "inline of a sink"), self.keys("dead_letter.", "dead letters"));
        self.must(&format!(
            "CREATE SINK copy FROM orders WITH (connector = 'kinesis', stream = '{written}', primary_key = 'key', {keys}, \
             on_error = 'dead_letter', dead_letter.connector = 'kinesis', dead_letter.stream = '{written}', {dead}) {format}"
        ))
        .await;
        self.must(&format!("CREATE SINK {control} FROM {control} WITH (connector = 'blackhole')")).await;
        let broker = "connector = 'kafka', topic = 't', properties.bootstrap.server = '127.0.0.1:1', validate = 'false'";
        self.must(&format!("CREATE SINK by_name FROM orders WITH ({broker}, credential = 'kafka') {format}"))
            .await;
        let secrets: Vec<String> = secret_options(&registry())
            .into_iter()
            .filter(|(what, connector, _)| (*what, *connector) == ("SINK", "kafka"))
            .map(|(.., name)| {
                format!("{name} = '{}'", self.planted.plant(&format!("inline of a broken sink: {name}")))
            })
            .collect();
        self.must(&format!(
            "CREATE SINK broken FROM orders WITH ({broker}, properties.security.protocol = 'SASL_SSL', \
             properties.sasl.mechanism = 'PLAIN', properties.sasl.username = 'me', {}) {format}",
            secrets.join(", ")
        ))
        .await;
    }

    /// What users get wrong, with each secret option under each of its names.
    async fn fail(&mut self) {
        for (what, connector, name) in secret_options(&registry()) {
            let source = if what == "SINK" { " FROM orders" } else { " (a INT)" };
            let format = " FORMAT PLAIN ENCODE JSON";
            let mut plant = |how: &str| self.planted.plant(&format!("{connector} {what}, {name}: {how}"));
            let (alone, twice, typo, url) =
                (plant("alone"), plant("twice"), plant("typo"), plant("in a URL"));
            let (cut, nested, changed) = (plant("cut"), plant("of dead letters"), plant("changed"));
            let head = format!("CREATE {what} wrong{source} WITH (connector = '{connector}'");
            for text in [
                format!("{head}, {name} = '{alone}', nonsense = 'x'){format}"),
                format!("{head}, {name} = '{alone}'){format}"),
                format!("{head}, {name} = '{twice}', {name} = '{twice}'){format}"),
                format!("{head}, {}x = '{typo}'){format}", &name[..name.len() - 1]),
                format!("{head}, passphrase = '{typo}'){format}"),
                format!("{head}, endpoint = 'http://a:1,http://me:{url}@b:2/x'){format}"),
                format!(
                    "{head}, dead_letter.connector = '{connector}', dead_letter.{name} = '{nested}'){format}"
                ),
                format!("{head}, {name} = '{cut}' oops"),
                format!("{head}, {name} '{cut}'){format}"),
                format!("{head}, {name} = '{cut}"),
                // Other ways to quote, by habit or by mistake.
                format!("{head}, {name} = \"{cut}\"){format}"),
                format!("{head}, {name} = E'it\\'s {cut}', nonsense = 'x'){format}"),
                format!("{head}, {name} = $${cut}$$){format}"),
                format!("{head}, {name} = N'{cut}'){format}"),
                format!("ALTER {what} nobody SET ({name} = '{changed}')"),
                format!("ALTER {what} orders SET ({name} = '{changed}', nonsense = 'x')"),
            ] {
                self.fails(&text).await;
            }
            self.run(&format!(
                "EXPLAIN CREATE SINK wrong FROM orders WITH (connector = '{connector}', {name} = '{alone}')"
            ))
            .await;
        }
        for kind in registry().credentials() {
            let text = self.credential(kind, "wrong");
            self.fails(&format!("{} oops", &text)).await;
            self.fails(&text[..text.len() - 2]).await;
            self.fails(&text.replace(&format!("'{}'", kind.name), "'nonsense'")).await;
            self.fails(&text.replace("WITH OPTIONS (", "WITH OPTIONS (nonsense = 'x', ")).await;
            self.fails(&text.replace("CREDENTIAL wrong", &format!("CREDENTIAL {}", kind.name))).await;
            let secret = self.planted.plant(&format!("credential {}: changed", kind.name));
            self.fails(&format!("ALTER CREDENTIAL nobody SET PROPERTY secret = '{secret}'")).await;
            self.fails(&format!(
                "ALTER CREDENTIAL {} SET PROPERTY secret = '{secret}', nonsense = 'x'",
                kind.name
            ))
            .await;
            self.fails(&format!("ALTER CREDENTIAL {} SET PROPERTY secret '{secret}'", kind.name)).await;
        }
    }

    /// Users and their passwords, right and wrong.
    async fn log_in(&mut self) {
        let password = self.planted.plant("the password of a user");
        let changed = self.planted.plant("the changed password of a user");
        self.must(&format!("CREATE USER alice PASSWORD '{password}'")).await;
        self.fails(&format!("CREATE USER alice PASSWORD '{changed}'")).await;
        self.fails(&format!("CREATE USER bob PASSWORD '{changed}' oops")).await;
        self.fails(&format!("CREATE USER bob PASSWORD = '{changed}'")).await;
        self.must(&format!("ALTER USER alice PASSWORD '{changed}'")).await;
        let wrong = self.planted.plant("a wrong password");
        for (password, right) in [(changed, true), (password, false), (wrong, false)] {
            let header = format!("Basic {}", STANDARD.encode(format!("alice:{password}")));
            self.shows(header, right).await;
        }
        let token = self.planted.plant("a token");
        self.shows(format!("Bearer {token}"), false).await;
    }

    /// A call with this `authorization`, which is right or not.
    async fn shows(&mut self, authorization: String, right: bool) {
        let (statement, request_id) = ("SHOW SOURCES".to_owned(), "canary".to_owned());
        let mut request = tonic::Request::new(v1::ExecuteRequest { statement, request_id });
        request.metadata_mut().insert("authorization", authorization.parse().unwrap());
        let mut client = AdminClient::connect(self.cluster.urls().swap_remove(0)).await.unwrap();
        let answered = client.execute(request).await;
        assert_eq!(answered.is_ok(), right, "{answered:?}");
        if let Err(status) = answered {
            self.haul.add("answers", format!("{status:?}"));
        }
    }

    /// Records that flow, one of them bad.
    async fn load(&self) {
        for n in 0..20 {
            let text =
                if n == 7 { "no json".to_owned() } else { format!("{{\"key\": \"k{n}\", \"n\": {n}}}") };
            let put =
                self.endpoint.client().put_record().stream_name(STREAMS[0]).partition_key(format!("k{n}"));
            put.data(text.into_bytes().into()).send().await.unwrap();
        }
    }

    async fn reading(&self, source: &str) {
        let admin = self.cluster.admin();
        let waited = admin.wait("the sinks that can run do", HEALS_WITHIN, |status| {
            let mine = |split: &&v1::SplitStatus| {
                split.source == source && !["by_name", "broken"].contains(&split.sink.as_str())
            };
            let splits: Vec<_> = status.splits.iter().filter(mine).collect();
            match splits.iter().find(|split| split.state != "reading") {
                None if !splits.is_empty() => Ok(()),
                found => Err(format!("{found:?}")),
            }
        });
        if let Err(error) = waited.await {
            panic!("{error:#}\n{}", self.cluster.tails());
        }
    }

    /// The leader dies, then a worker; both come back.
    async fn crash(&mut self) {
        let leader = self.cluster.leader().await.unwrap();
        self.cluster.coordinator(leader).kill().await.unwrap();
        self.cluster.leader().await.unwrap();
        self.cluster.worker("worker-1").kill().await.unwrap();
        self.cluster.start_coordinator(leader).await.unwrap();
        self.cluster.start_worker("worker-1").unwrap();
        self.reading("orders").await;
    }

    /// The binary as a tool against this cluster.
    fn tool(&mut self, args: &[&str]) {
        let servers = self.cluster.urls().join(",");
        let output =
            Command::new(self.cluster.binary()).args(["--server", &servers]).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        self.haul.add("tools", [output.stdout, output.stderr].concat());
    }

    /// A copy of the store, and a look at all that the settings and the catalog name, some of which does not answer.
    fn copy_and_check(&mut self) {
        let (store, file) = (self.etcd.url(), self.aside.path().join("backup.jsonl").display().to_string());
        self.tool(&["backup", &file, "--store", &store]);
        self.haul.add("backup", std::fs::read(&file).unwrap());
        let password = self.planted.plant("the administrator's password of a check");
        let output = Command::new(self.cluster.binary())
            .args([
                "check",
                "--store",
                &store,
                "--server",
                &self.cluster.urls().join(","),
                "--skip",
                "limits",
            ])
            .env(ADMIN_PASSWORD, password)
            .env("SHARDWRIGHT_SECRETS_MASTER_KEY_FILE", self.aside.path().join("key"))
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("source orders"), "{output:?}");
        self.haul.add("tools", [output.stdout, output.stderr].concat());
    }

    /// Where each process serves its telemetry, as its log says.
    fn telemetry(&self) -> Vec<String> {
        let log = |process: &shardwright_integration_tests::process::Process| {
            std::fs::read_to_string(process.log()).unwrap()
        };
        let last = |text: String| {
            let (before, _) = text.rsplit_once("/metrics")?;
            Some(before.rsplit_once("http://")?.1.to_owned())
        };
        let found: Vec<String> = self.cluster.processes().filter_map(|process| last(log(process))).collect();
        assert_eq!(found.len(), 4, "not every process says where its telemetry is: {found:?}");
        found
    }

    /// Everything that can be had from the outside, and everything that was written.
    async fn gather(&mut self) {
        for text in [
            "SHOW SOURCES",
            "SHOW SINKS",
            "SHOW CREDENTIALS",
            "SHOW CREDENTIAL *",
            "DESCRIBE CREDENTIAL *",
            "SHOW CREATE CREDENTIAL kafka",
            "SHOW CREATE SOURCE orders",
            "SHOW CREATE SINK copy",
            "SHOW CREATE SINK broken",
            "SHOW SPLITS",
            "SHOW ERRORS FOR orders",
            "SHOW WORKERS",
            "SELECT * FROM orders_progress",
        ] {
            self.must(text).await;
        }
        for (name, number) in [("coordinator-0", 0), ("coordinator-1", 1)] {
            let mut client = AdminClient::connect(self.cluster.urls().swap_remove(number)).await.unwrap();
            self.haul.add(name, format!("{:?}", client.status(v1::StatusRequest {}).await));
            let events = client.watch_events(v1::WatchEventsRequest::default()).await.unwrap().into_inner();
            let events: Vec<_> = events.collect().await;
            self.haul.add("events", format!("{events:?}"));
        }
        let telemetry = self.telemetry();
        for address in &telemetry {
            for page in ["metrics", "debug/tasks", "readyz"] {
                self.haul.add(page, get(address, page).await);
            }
        }
        let (bundle, unpacked) = (self.aside.path().join("bundle.tar.gz"), self.aside.path().join("bundle"));
        let logs: Vec<String> =
            self.cluster.processes().map(|p| format!("--log={}", p.log().display())).collect();
        let pages: Vec<String> = telemetry.iter().map(|address| format!("--telemetry={address}")).collect();
        let output = format!("--output={}", bundle.display());
        let args: Vec<&str> = ["support-bundle", &output]
            .into_iter()
            .chain(logs.iter().chain(&pages).map(String::as_str))
            .collect();
        self.tool(&args);
        std::fs::create_dir(&unpacked).unwrap();
        let unpack = Command::new("tar").arg("xzf").arg(&bundle).arg("-C").arg(&unpacked).status().unwrap();
        assert!(unpack.success());
        self.haul.add_files("support bundle", &unpacked);
        self.haul.add("spans", self.collector.text());
        let store = store::connect(&StoreConfig::new(self.etcd.url())).await.unwrap();
        for entry in store.list(&Keyspace::new("shardwright").all()).await.unwrap().entries {
            self.haul.add("etcd's keys", [entry.key.as_str().as_bytes(), b" = ", &entry.value].concat());
        }
        let dir = self.dir.path().to_owned();
        self.haul.add_files("etcd's files", &dir.join("etcd"));
        for name in ["logs", "worker-0", "worker-1"] {
            self.haul.add_files(name, &dir.join(name));
        }
        for process in self.cluster.processes() {
            let shown = format!("/proc/{}/cmdline", process.pid().unwrap());
            self.haul.add("command lines", std::fs::read(Path::new(&shown)).unwrap_or_default());
        }
    }
}

async fn get(address: &str, page: &str) -> Vec<u8> {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET /{page} HTTP/1.0\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_comes_out_anywhere() {
    let Some(mut scene) = scene("no_secret_comes_out_anywhere").await else { return };
    let control = canary();
    scene.succeed(&control).await;
    scene.fail().await;
    scene.log_in().await;
    scene.reading("orders").await;
    scene.load().await;
    scene.crash().await;
    scene.load().await;
    scene.must(&format!("ALTER SINK {control} PAUSE; ALTER SINK {control} RESUME")).await;
    let secret = scene.planted.plant("a changed secret");
    scene.must(&format!("ALTER CREDENTIAL aws_access_key SET PROPERTY secret = '{secret}'")).await;
    scene.reading("orders").await;
    scene.tool(&["secrets", "rotate", "--all"]);
    scene.tool(&["secrets", "status"]);
    scene.tool(&["status"]);
    scene.copy_and_check();
    scene.must("ALTER SINK broken PAUSE; ALTER SINK broken RESUME; DROP SINK by_name").await;
    scene.gather().await;
    let found = scene.haul.found(&scene.planted);
    println!(
        "canaries: {} planted, {} MiB searched, {} found",
        scene.planted.len(),
        scene.haul.bytes() >> 20,
        found.len()
    );
    assert!(found.is_empty(), "{}", found.join("\n"));
    // The search is worth something only if it finds what lies open, in every kind of place.
    let open = scene.haul.places(&control);
    for place in [
        "answers",
        "coordinator-",
        "events",
        "metrics",
        "debug/tasks",
        "spans",
        "support bundle",
        "etcd's keys",
        "etcd's files",
        "logs: ",
        "tools",
    ] {
        assert!(
            open.iter().any(|found| found.starts_with(place)),
            "the control is not found in {place}: {open:?}"
        );
    }
}
