//! Precedence, and the errors that people read.

use std::{io::Write, path::PathBuf, time::Duration};

use serde::Deserialize;

use super::*;

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Whole {
    worker: Part,
    store: Store,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Part {
    name: String,
    capacity: u32,
    share: f64,
    checked: bool,
    coordinators: Vec<String>,
    timing: Timing,
}

impl Default for Part {
    fn default() -> Self {
        Self {
            name: "w".to_owned(),
            capacity: 8,
            share: 1.0,
            checked: true,
            coordinators: Vec::new(),
            timing: Timing::default(),
        }
    }
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Timing {
    #[serde(deserialize_with = "seconds")]
    heartbeat: Duration,
}

fn seconds<'de, D: serde::Deserializer<'de>>(data: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(data)?;
    let number = text.strip_suffix('s').and_then(|n| n.parse().ok());
    number
        .map(Duration::from_secs)
        .ok_or_else(|| serde::de::Error::custom("expected a duration such as `5s`"))
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Store {
    url: Option<String>,
    password: Option<String>,
}

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.toml");
    std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
    (directory, path)
}

fn of_file(text: &str) -> Result<Loaded<Whole>> {
    let (_directory, path) = file(text);
    load(&Layers { file: Some(&path), ..Layers::default() })
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn flag(key: &str, value: &str) -> Flag {
    Flag { key: key.to_owned(), value: value.to_owned(), written: format!("--set {key}") }
}

#[test]
fn the_type_is_the_list_of_settings() {
    let keys: Vec<String> = settings::<Whole>().iter().map(Setting::key).collect();
    let expected = [
        "worker.name",
        "worker.capacity",
        "worker.share",
        "worker.checked",
        "worker.coordinators",
        "worker.timing.heartbeat",
        "store.url",
        "store.password",
    ];
    assert_eq!(keys, expected);
    let heartbeat = &settings::<Whole>()[5];
    assert_eq!(heartbeat.variable(), "SHARDWRIGHT_WORKER_TIMING_HEARTBEAT");
    assert_eq!(heartbeat.kind, Kind::Text);
}

#[test]
fn flags_beat_variables_beat_the_file_beats_defaults() {
    let (_directory, path) =
        file("[worker]\nname = 'file'\ncapacity = 1\nshare = 0.5\n[worker.timing]\nheartbeat = '2s'\n");
    let layers = Layers {
        file: Some(&path),
        env: env(&[("SHARDWRIGHT_WORKER_NAME", "env"), ("SHARDWRIGHT_WORKER_CAPACITY", "2"), ("HOME", "/x")]),
        flags: vec![flag("worker.name", "flag"), flag("worker.coordinators", "http://a, http://b")],
        ..Layers::default()
    };
    let whole: Whole = load(&layers).unwrap().value;
    assert_eq!(whole.worker.name, "flag");
    assert_eq!(whole.worker.capacity, 2);
    assert!((whole.worker.share - 0.5).abs() < f64::EPSILON);
    assert!(whole.worker.checked);
    assert_eq!(whole.worker.coordinators, ["http://a", "http://b"]);
    assert_eq!(whole.worker.timing.heartbeat, Duration::from_secs(2));
}

#[test]
fn an_unknown_key_names_its_line_and_the_nearest() {
    let error = of_file("[worker]\nname = 'x'\n\ncapasity = 3\n").unwrap_err().to_string();
    assert!(error.contains("line 4: unknown key `worker.capasity`; did you mean `capacity`?"), "{error}");
    let error = of_file("[wroker]\nname = 'x'\n").unwrap_err().to_string();
    assert!(error.contains("line 1: unknown key `wroker`; did you mean `worker`?"), "{error}");
    let error = of_file("[store]\nheartbeat = '1s'\n").unwrap_err().to_string();
    assert!(error.contains("did you mean `worker.timing.heartbeat`?"), "{error}");
}

#[test]
fn a_wrong_value_says_where_it_stands() {
    let error = of_file("[worker]\nname = 'x'\ncapacity = 'many'\n").unwrap_err().to_string();
    assert!(
        error.contains("line 3: `worker.capacity`: invalid type: string \"many\", expected u32"),
        "{error}"
    );
    let error = of_file("[worker.timing]\nheartbeat = '5'\n").unwrap_err().to_string();
    assert!(error.contains("line 2: `worker.timing.heartbeat`: expected a duration"), "{error}");
    let error = of_file("worker = 3\n").unwrap_err().to_string();
    assert!(error.contains("`worker` is a section"), "{error}");
    let error = of_file("[worker\n").unwrap_err().to_string();
    assert!(error.contains("line 1:"), "{error}");
    let layers = Layers { env: env(&[("SHARDWRIGHT_WORKER_CAPACITY", "abc")]), ..Layers::default() };
    let error = load::<Whole>(&layers).unwrap_err().to_string();
    assert_eq!(error, "SHARDWRIGHT_WORKER_CAPACITY: expected a whole number, found `abc`");
    let layers = Layers { flags: vec![flag("worker.capacity", "-1")], ..Layers::default() };
    let error = load::<Whole>(&layers).unwrap_err().to_string();
    assert!(error.starts_with("--set worker.capacity: `worker.capacity`: invalid value"), "{error}");
}

#[test]
fn a_secret_comes_from_a_file_in_every_layer() {
    let (_directory, secret) = file("hunter2\n");
    let path = secret.to_str().unwrap();
    let from_file = of_file(&format!("[store]\npassword_file = '{path}'\n")).unwrap().value;
    assert_eq!(from_file.store.password.as_deref(), Some("hunter2"));
    let layers = Layers { env: env(&[("SHARDWRIGHT_STORE_PASSWORD_FILE", path)]), ..Layers::default() };
    assert_eq!(load::<Whole>(&layers).unwrap().value.store.password.as_deref(), Some("hunter2"));
    let layers = Layers { flags: vec![flag("store.password_file", path)], ..Layers::default() };
    assert_eq!(load::<Whole>(&layers).unwrap().value.store.password.as_deref(), Some("hunter2"));
    let error = of_file("[store]\npassword_file = '/nowhere/pw'\n").unwrap_err().to_string();
    assert!(error.contains("line 2: cannot read `/nowhere/pw`"), "{error}");
}

#[test]
fn a_refused_secret_is_not_printed() {
    let error = of_file("[store]\npassword = 42171\n").unwrap_err().to_string();
    assert!(error.contains("`store.password`") && !error.contains("42171"), "{error}");
}

#[test]
fn a_strange_variable_is_passed_over_with_a_line() {
    let layers = Layers {
        env: env(&[
            ("SHARDWRIGHT_WORKER_CAPACTY", "1"),
            ("SHARDWRIGHT_SERVER", "http://127.0.0.1:1"),
            ("SHARDWRIGHT_COORDINATOR_SERVICE_HOST", "10.0.0.1"),
            ("SHARDWRIGHT_PORT_7070_TCP_ADDR", "10.0.0.1"),
        ]),
        env_reserved: &["SHARDWRIGHT_SERVER"],
        ..Layers::default()
    };
    let passed_over = load::<Whole>(&layers).unwrap().passed_over;
    assert_eq!(passed_over.len(), 1, "{passed_over:?}");
    assert!(passed_over[0].contains("did you mean `SHARDWRIGHT_WORKER_CAPACITY`?"), "{passed_over:?}");
}

#[test]
fn a_missing_file_is_named() {
    let missing = PathBuf::from("/nowhere/s.toml");
    let error = load::<Whole>(&Layers { file: Some(&missing), ..Layers::default() }).unwrap_err().to_string();
    assert!(error.contains("cannot read config file `/nowhere/s.toml`"), "{error}");
}
