//! The pages of the telemetry listener.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use shardwright_integration_tests::endpoint;

use crate::{
    manual::{self, family},
    site::{Member, PATIENCE, Site},
};

/// The labels of each metric of a page, by its own name.
type Page = BTreeMap<String, BTreeSet<String>>;

async fn page(member: &Member) -> Page {
    let (_, text) = member.ask("GET", "/metrics", "").await.unwrap();
    let rows = manual::rows();
    let mut page = Page::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels =
            labels.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
        let labels = labels.filter(|label| label != "le");
        page.entry(family(name, &rows)).or_default().extend(labels);
    }
    page
}

/// Waits until each of these begins a line of some page.
async fn have(members: &[&Member], wanted: &[&str]) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let mut text = String::new();
        for member in members {
            text += &member.ask("GET", "/metrics", "").await.unwrap().1;
        }
        let missing = wanted.iter().find(|name| !text.lines().any(|line| line.starts_with(**name)));
        let Some(missing) = missing else { return };
        assert!(tokio::time::Instant::now() < deadline, "no `{missing}` in\n{text}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn what_is_served_is_documented_and_what_is_documented_is_served() {
    let mut site = Site::start(&[]).await;
    for _ in 0..2 {
        site.worker();
    }
    site.ready().await;
    site.source(2, 200).await;
    site.sql("CREATE SINK k FROM clicks WITH (connector = 'blackhole') FORMAT PLAIN ENCODE JSON").await;
    site.sql("CREATE SINK parts FROM clicks WITH (connector = 'blackhole', distribution = 'key(2)', primary_key = 'id')").await;
    for sink in ["k", "parts"] {
        site.delivered(sink, 200).await;
    }
    let client = site.endpoint.client();
    let shard = endpoint::open_shards(&client, "clicks-in").await.unwrap().remove(0);
    endpoint::split(&client, "clicks-in", &shard).await.unwrap();
    site.admin.event("split_ended", PATIENCE).await.unwrap();
    let leader =
        ["reshard_events_total{kind=\"split\"} 1", "sink_lag_seconds", "source_retention_seconds", "splits{"];
    have(&[&site.coordinator], &leader).await;
    let workers: Vec<&Member> = site.workers.iter().collect();
    let read = [
        "sink_flush_seconds",
        "checkpoint_age_seconds",
        "kinesis_millis_behind_latest_max",
        "get_records_empty_total",
    ];
    have(&workers, &read).await;

    let rows = manual::rows();
    let mut served: BTreeMap<&str, Page> = BTreeMap::new();
    for member in site.members() {
        let role = if std::ptr::eq(member, &raw const site.coordinator) { "Coordinator" } else { "Worker" };
        for (name, labels) in page(member).await {
            served.entry(role).or_default().entry(name).or_default().extend(labels);
        }
    }
    for (role, page) in &served {
        for (name, labels) in page {
            let row =
                rows.get(name).unwrap_or_else(|| panic!("{name} of a {role} is not in docs/metrics.md"));
            let told: BTreeSet<String> = row.labels.iter().cloned().collect();
            let untold: Vec<_> = labels.difference(&told).collect();
            assert!(untold.is_empty(), "docs/metrics.md does not name the labels {untold:?} of {name}");
            let elsewhere = ["Coordinator", "Worker"].contains(&row.section.as_str()) && row.section != *role;
            assert!(!elsewhere, "{name} is served by a {role}, not by a {}", row.section);
        }
    }
    for (name, row) in rows.iter().filter(|(_, row)| row.always) {
        let roles: &[&str] = match row.section.as_str() {
            "Coordinator" => &["Coordinator"],
            "Every process" => &["Coordinator", "Worker"],
            _ => &["Worker"],
        };
        for role in roles {
            let labels = served[role].get(name);
            let labels = labels.unwrap_or_else(|| panic!("{name} should always be served by a {role}"));
            let told: BTreeSet<String> = row.labels.iter().cloned().collect();
            assert_eq!(*labels, told, "the labels of {name}");
        }
    }
}

#[tokio::test]
async fn a_worker_is_ready_while_its_session_stands_and_says_why_not() {
    let mut site = Site::start(&[]).await;
    site.coordinator.until("/readyz", |status, _| (status == 200).then_some(())).await.unwrap();
    site.worker();
    let ready = |status: u16, text: &str| (status == 200 && text == "ready\n").then_some(());
    site.workers[0].until("/readyz", ready).await.unwrap();
    site.coordinator.process.kill().await.unwrap();
    let waits = |status: u16, text: &str| (status == 503).then(|| text.to_owned());
    let why = site.workers[0].until("/readyz", waits).await.unwrap();
    assert_eq!(why, "not ready: worker: a session with the leading coordinator\n");
    assert_eq!(site.workers[0].ask("GET", "/livez", "").await.unwrap(), (200, "ok\n".to_owned()));
}

#[tokio::test]
async fn tasks_are_shown_with_state_epoch_position_and_no_secret() {
    let mut site = Site::start(&[]).await;
    site.worker();
    site.source(1, 20).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    site.sql(&format!(
        "CREATE SINK files FROM clicks WITH (connector = 'file', path = '{}') FORMAT PLAIN ENCODE JSON",
        path.display()
    ))
    .await;
    site.delivered("files", 20).await;
    let look = |_, text: &str| {
        let page: serde_json::Value = serde_json::from_str(text).ok()?;
        let task = page["worker"]["tasks"].as_array()?.first()?.clone();
        (task["records_delivered"] == 20).then_some((task, text.to_owned()))
    };
    let (task, text) = site.workers[0].until("/debug/tasks", look).await.unwrap();
    assert_eq!((&task["source"], &task["sink"]), (&"clicks".into(), &"files".into()), "{task}");
    assert_eq!(
        (&task["task"], &task["state"]),
        (&"shardId-000000000000".into(), &"running".into()),
        "{task}"
    );
    let epoch = task["epoch"].as_str().unwrap();
    assert!(epoch.starts_with("1.") && task["position"].as_str().unwrap().starts_with("after "), "{task}");
    assert!(!text.contains("access_key") && !text.contains("\"test\""), "{text}");
    // The leader's look at the same task.
    let (_, text) = site.coordinator.ask("GET", "/debug/tasks", "").await.unwrap();
    let page: serde_json::Value = serde_json::from_str(&text).unwrap();
    let seen = &page["coordinator"]["tasks"][0];
    assert_eq!((&page["coordinator"]["leads"], &seen["epoch"]), (&true.into(), &task["epoch"]), "{text}");
    assert_eq!((&seen["worker"], &seen["sink"]), (&"worker-0".into(), &"files".into()), "{text}");
}

#[tokio::test]
async fn the_log_filter_changes_while_the_process_runs() {
    let site = Site::start(&["telemetry.log_format=json"]).await;
    let one = &site.coordinator;
    one.until("/readyz", |status, _| (status == 200).then_some(())).await.unwrap();
    assert_eq!(one.ask("PUT", "/debug/log", "warn").await.unwrap(), (200, "info\n".to_owned()));
    assert_eq!(one.ask("GET", "/debug/log", "").await.unwrap(), (200, "warn\n".to_owned()));
    let (status, error) = one.ask("PUT", "/debug/log", "info,=x=").await.unwrap();
    assert_eq!(status, 400, "{error}");
    assert_eq!(
        one.ask("GET", "/debug/log", "").await.unwrap().1,
        "warn\n",
        "a filter that is refused changes nothing"
    );
    site.sql("SHOW SOURCES").await;
    assert_eq!(one.ask("DELETE", "/debug/log", "").await.unwrap(), (200, "warn\n".to_owned()));
    assert_eq!(one.ask("GET", "/debug/log", "").await.unwrap().1, "info\n");
    // Each line is an object.
    let text = std::fs::read_to_string(one.process.log()).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let changes: Vec<_> =
        lines.iter().filter(|line| line["message"] == "another log filter is in force").collect();
    assert_eq!(changes.len(), 2, "{text}");
    assert_eq!((&changes[0]["filter"], &changes[0]["level"]), (&"warn".into(), &"WARN".into()));
    assert!(lines.iter().all(|line| line["timestamp"].is_string() && line["target"].is_string()), "{text}");
}
