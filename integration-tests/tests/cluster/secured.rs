//! A cluster in which everybody shows a certificate: it works as one without, and its files can be changed while it works.
//!
//! Who is not let in has tests of its own, closer to the code: `daemon/tests/tls.rs`, `coordinator/tests/cluster/secured.rs`,
//! `worker/tests/exchange.rs`.

use std::{process::Stdio, time::Duration};

use shardwright_integration_tests::{
    admin, cluster,
    pki::{Authority, Issued},
};
use tokio::process::Command;

use crate::trial::{COPY, Trial, kinesis_options, secured};

/// Both kinds of sinks: `copy` goes through the exchange between the workers.
async fn create(trial: &Trial) {
    trial
        .wait("every worker has joined", |status| {
            let live = |name: &str| status.workers.iter().any(|w| w.name == name && w.state == "live");
            trial
                .names
                .iter()
                .find(|name| !live(name))
                .map_or(Ok(()), |name| Err(format!("{name} is missing")))
        })
        .await;
    trial.create_source("").await;
    let keys = kinesis_options(&trial.endpoint.url());
    trial
        .sql(&format!(
            "CREATE SINK copy FROM orders WITH (connector = 'kinesis', stream = '{COPY}', primary_key = 'key', \
             distribution = 'key(4)', {keys}) FORMAT PLAIN ENCODE JSON"
        ))
        .await;
    trial.create_archive().await;
    trial.reading().await;
}

/// What the command line says to these arguments: its exit code and its output.
async fn shardwright(arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(cluster::binary().unwrap());
    command.args(arguments).stdin(Stdio::null()).env_clear();
    let output = command.output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_under_mutual_tls_loses_nothing_when_processes_and_certificates_change() {
    let name = "a_cluster_under_mutual_tls_loses_nothing_when_processes_and_certificates_change";
    let Some(mut trial) = secured(name, 2, 3, 4).await else { return };
    create(&trial).await;
    trial.start_load();
    trial.records(400).await;
    across(&trial).await;

    // New certificates for all: those that stand live on, those that are made from now on use them.
    let authority = trial.cluster.authority();
    for process in ["coordinator-0", "coordinator-1", "worker-0", "worker-1", "worker-2"] {
        authority.issue_with(process, process, |params| params.serial_number = Some(77.into())).unwrap();
    }
    for process in trial.cluster.processes() {
        let read =
            || std::fs::read_to_string(process.log()).unwrap().contains("the certificate was read again");
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while !read() {
            assert!(tokio::time::Instant::now() < deadline, "not read again\n{}", process.tail());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    trial.records(400).await;

    // Another leader, another process of a worker: all of their connections are new.
    let leader = trial.cluster.leader().await.unwrap();
    trial.cluster.coordinator(leader).kill().await.unwrap();
    trial.cluster.worker("worker-1").kill().await.unwrap();
    trial.cluster.start_worker("worker-1").unwrap();
    trial.cluster.start_coordinator(leader).await.unwrap();
    trial.reading().await;
    trial.records(400).await;
    forwarded(&trial).await;
    trial.ledger().await;
}

/// Some partition is written elsewhere than the splits are read: its rows have crossed the exchange.
async fn across(trial: &Trial) {
    let status = trial.admin().status().await.unwrap();
    let workers = |partition: bool| {
        let mut workers: Vec<&str> = status
            .splits
            .iter()
            .filter(|task| task.sink == "copy" && task.split.starts_with("partition") == partition)
            .map(|task| task.worker.as_str())
            .collect();
        workers.sort_unstable();
        workers.dedup();
        workers
    };
    let (read, written) = (workers(false), workers(true));
    assert!(read.len() > 1 || written.len() > 1, "{read:?} {written:?}: nothing has crossed");
}

/// Each coordinator answers: one of them leads, the other asks it.
async fn forwarded(trial: &Trial) {
    for url in trial.cluster.urls() {
        let admin = admin::Admin::new(vec![url]).secured(trial.cluster.authority().client());
        admin.execute("SHOW SOURCES").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_says_what_is_wrong_with_a_certificate() {
    let name = "the_command_line_says_what_is_wrong_with_a_certificate";
    let Some(trial) = secured(name, 1, 0, 1).await else { return };
    let url = trial.cluster.urls().remove(0);
    let port = url.rsplit(':').next().unwrap();
    let (ours, dir) = (trial.cluster.authority(), tempfile::tempdir().unwrap());
    let theirs = Authority::new(dir.path()).unwrap();
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (ca, other) = (path(&ours.ca()), path(&theirs.ca()));
    let Issued { cert, key, .. } = theirs.issue("stranger", "stranger").unwrap();

    let (code, text) = shardwright(&["--server", &url, "--ca", &ca, "status"]).await;
    assert_eq!(code, 0, "{text}");
    let says = async |arguments: &[&str], expected: i32, words: &str| {
        let (code, text) = shardwright(&[arguments, &["status"]].concat()).await;
        assert!(code == expected && text.contains(words), "{arguments:?}: {code}\n{text}");
    };
    says(&["--server", &url, "--ca", &other], 3, "authority").await;
    let elsewhere = format!("https://[::ffff:127.0.0.1]:{port}");
    says(&["--server", &elsewhere, "--ca", &ca], 3, "and not for").await;
    let plain = format!("http://127.0.0.1:{port}");
    says(&["--server", &plain], 3, "it speaks TLS there: write https://").await;
    says(&["--server", &plain, "--ca", &ca], 2, "--server https://").await;
    let shown = ["--server", &url, "--ca", &ca, "--cert", &path(&cert), "--key", &path(&key)];
    says(&shown, 3, "does not trust the authority of the certificate that was shown").await;
    says(&["--server", &url, "--ca", "/absent.pem"], 2, "`/absent.pem` (--ca) does not exist").await;
    let expired = |params: &mut rcgen::CertificateParams| {
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 1, 1));
    };
    let Issued { cert, key, .. } = ours.issue_with("late", "late", expired).unwrap();
    let shown = ["--server", &url, "--ca", &ca, "--cert", &path(&cert), "--key", &path(&key)];
    says(&shown, 2, "expired on").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_process_with_the_wrong_certificate_does_not_join() {
    let name = "a_worker_process_with_the_wrong_certificate_does_not_join";
    let Some(mut trial) = secured(name, 1, 0, 1).await else { return };
    let dir = tempfile::tempdir().unwrap();
    let theirs = Authority::new(dir.path()).unwrap();
    let stranger = theirs.issue("stranger", "stranger").unwrap();
    let ours = trial.cluster.authority();
    let mixed = Issued { ca: ours.ca(), ..stranger };
    let borrowed = ours.issue("worker-7", "worker-7").unwrap();
    let url = trial.cluster.urls().remove(0);
    let start = |process: &str, name: &str, more: &[String]| {
        let mut command = Command::new(cluster::binary().unwrap());
        command.args(["worker", "--telemetry-listen", "off", "--name", name, "--coordinators", &url]);
        command.arg("--data-dir").arg(dir.path().join(process)).args(more);
        shardwright_integration_tests::process::Process::start(process, command, dir.path()).unwrap()
    };
    let said = async |process: &shardwright_integration_tests::process::Process, words: &str| {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while !process.tail().contains(words) {
            assert!(tokio::time::Instant::now() < deadline, "{words} is missing\n{}", process.tail());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // Without a certificate there is only the authority of the machine to go by.
    said(&start("none", "worker-0", &[]), "invalid peer certificate: UnknownIssuer").await;
    said(
        &start("other", "worker-0", &mixed.settings()),
        "does not trust the authority of the certificate that was shown",
    )
    .await;
    said(&start("borrowed", "worker-0", &borrowed.settings()), "its certificate is for `worker-7`").await;
    trial.cluster.start_worker("worker-0").unwrap();
    trial
        .wait("the one with its own certificate joins", |status| {
            let names: Vec<&str> = status.workers.iter().map(|w| w.name.as_str()).collect();
            if names == ["worker-0"] { Ok(()) } else { Err(format!("{names:?}")) }
        })
        .await;
}
