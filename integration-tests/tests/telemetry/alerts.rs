//! The rules of alerts and the dashboard.

use std::{collections::BTreeSet, path::PathBuf, process::Command};

use crate::manual::{self, family, root};

fn file(name: &str) -> PathBuf {
    root().join("deploy/helm/shardwright/files").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap()
}

/// What follows `key` on each line that begins with it.
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| line.trim().strip_prefix(key)).map(str::trim)
}

/// The names in an expression that can only be those of metrics: words that are not followed by `(`, outside braces, brackets and
/// lists of labels, and no words of the language.
fn metrics(expression: &str) -> BTreeSet<String> {
    const WORDS: [&str; 13] = [
        "by",
        "on",
        "or",
        "and",
        "unless",
        "group_left",
        "group_right",
        "ignoring",
        "without",
        "max",
        "min",
        "sum",
        "count",
    ];
    let (mut found, mut word, mut depth) = (BTreeSet::new(), String::new(), 0);
    let mut lists = 0;
    for sign in expression.chars().chain([' ']) {
        if sign.is_ascii_alphanumeric() || sign == '_' || sign == '$' {
            word.push(sign);
            continue;
        }
        let is_list = matches!(word.as_str(), "by" | "on" | "group_left" | "ignoring" | "without");
        let name = word.starts_with(|c: char| c.is_ascii_lowercase()) && !WORDS.contains(&word.as_str());
        if name && depth == 0 && lists == 0 && sign != '(' {
            found.insert(word.clone());
        }
        // `by (a, b)`: labels until the parenthesis closes.
        if is_list {
            lists = 1;
        }
        match sign {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            ')' => lists = 0,
            _ => {}
        }
        word.clear();
    }
    found
}

#[test]
fn names_of_metrics_are_found_in_expressions() {
    let found = metrics(
        "max by (source, sink) (sink_lag{a=\"b\"}) > on (source) group_left () 0.5 * max(kept) or absent(leader)",
    );
    assert_eq!(found, ["kept", "leader", "sink_lag"].map(str::to_owned).into());
    let found = metrics(
        "histogram_quantile(0.5, sum by (le) (rate(x_seconds_bucket{job=~\"$job\"}[$__rate_interval])))",
    );
    assert_eq!(found, ["x_seconds_bucket".to_owned()].into());
}

#[test]
fn every_metric_of_alerts_and_dashboard_is_documented() {
    let rows = manual::rows();
    let alerts = read("alerts.yaml");
    let rules: BTreeSet<String> = values(&alerts, "expr:").flat_map(metrics).collect();
    assert!(rules.len() >= 10, "{rules:?}");
    let dashboard: serde_json::Value = serde_json::from_str(&read("dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let shown: BTreeSet<String> =
        targets.flat_map(|target| metrics(target["expr"].as_str().unwrap())).collect();
    assert!(shown.len() >= 30, "{shown:?}");
    let unknown: Vec<&String> =
        rules.iter().chain(&shown).filter(|name| !rows.contains_key(&family(name, &rows))).collect();
    assert!(unknown.is_empty(), "not in docs/metrics.md: {unknown:?}");
    let titles: Vec<&str> =
        panels.iter().filter(|p| p["type"] == "row").filter_map(|p| p["title"].as_str()).collect();
    assert_eq!(titles, ["Cluster", "Sources", "Sinks", "Workers", "Control plane"]);
}

#[test]
fn every_alert_is_documented_beside_its_metrics_and_leads_to_a_section_of_its_own() {
    let (text, rows) = (read("alerts.yaml"), manual::rows());
    let names: Vec<&str> = values(&text, "- alert:").collect();
    let links: Vec<&str> = values(&text, "runbook_url:").collect();
    assert!(names.len() >= 14 && names.len() == links.len());
    let rules = names.iter().zip(values(&text, "expr:"));
    for (name, expression) in rules {
        for metric in metrics(expression) {
            assert!(rows[&metric].alerts.iter().any(|alert| alert == name), "{metric} does not name {name}");
        }
    }
    let named: BTreeSet<&str> = rows.values().flat_map(|row| &row.alerts).map(String::as_str).collect();
    assert_eq!(named, names.iter().copied().collect());
    for (name, link) in names.iter().zip(links) {
        assert_eq!(link, format!("docs/operations.md#{}", name.to_lowercase()));
    }
}

#[test]
fn alerts_fire_when_they_should_and_not_in_a_healthy_cluster() {
    let test = "alerts_fire_when_they_should_and_not_in_a_healthy_cluster";
    if std::env::var("SHARDWRIGHT_TEST_SERVERS").is_ok_and(|servers| servers == "off") {
        println!("skipped: {test}: SHARDWRIGHT_TEST_SERVERS=off");
        return;
    }
    let program = std::env::var_os("SHARDWRIGHT_TEST_PROMTOOL").unwrap_or_else(|| "promtool".into());
    if let Err(error) = Command::new(&program).arg("--version").output() {
        println!("skipped: {test}: no promtool ({error}); scripts/servers/promtool install");
        return;
    }
    // The tests name the rules by a path beside them.
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(file("alerts.yaml"), dir.path().join("alerts.yaml")).unwrap();
    let tests = dir.path().join("alerts.test.yaml");
    let cases = include_str!("alerts.test.yaml");
    std::fs::write(&tests, cases).unwrap();
    for name in values(&read("alerts.yaml"), "- alert:") {
        assert!(cases.contains(&format!("alertname: {name}\n")), "nobody tries {name}");
    }
    let judged = Command::new(&program).args(["test", "rules"]).arg(&tests).output().unwrap();
    let said = String::from_utf8_lossy(&judged.stdout) + String::from_utf8_lossy(&judged.stderr);
    assert!(judged.status.success(), "{said}");
}
