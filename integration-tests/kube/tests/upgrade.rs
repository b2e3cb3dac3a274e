//! A short rolling upgrade under load. How long shards stood still is printed and not judged: this machine may be busy.

use shardwright_kube::{
    helm,
    trial::{self, Extent},
};

/// Why the test cannot run here.
fn missing() -> Option<String> {
    if std::env::var("SHARDWRIGHT_TEST_SERVERS").is_ok_and(|value| value == "off") {
        return Some("SHARDWRIGHT_TEST_SERVERS=off".to_owned());
    }
    let etcd = std::env::var_os("SHARDWRIGHT_TEST_ETCD").unwrap_or_else(|| "etcd".into());
    let starts = |program: &std::path::Path, argument: &str| {
        let output = std::process::Command::new(program).arg(argument).output();
        output.is_ok_and(|output| output.status.success())
    };
    if !starts(etcd.as_ref(), "--version") {
        return Some(
            "no etcd; install it with `scripts/setup etcd`, or set SHARDWRIGHT_TEST_ETCD".to_owned(),
        );
    }
    if !starts(&helm::program(), "version") {
        return Some(
            "no helm; run `scripts/servers/helm install`, and set SHARDWRIGHT_TEST_HELM to its bin/helm4"
                .to_owned(),
        );
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_the_pods_of_the_chart_are_replaced() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    if let Some(reason) = missing() {
        println!("skipped: nothing_is_lost_while_the_pods_of_the_chart_are_replaced: {reason}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let extent = Extent { workers: 2, min_ready: 1, pre_stop: 1, whole: false };
    let report = trial::run(dir.path(), extent).await.unwrap_or_else(|error| panic!("{error:#}"));
    println!("{report}");
    assert!(report.balances(), "the ledger does not balance");
    let replaced: usize = report.happened.iter().map(|happened| happened.pods).sum();
    assert_eq!(replaced, 5, "an evicted leader, and all four pods by the upgrade");
    assert_eq!(report.hooks, 5, "statements after install and upgrade, three tests of helm");
}
