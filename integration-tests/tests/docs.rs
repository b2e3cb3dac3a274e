//! What the documentation promises about the code: a policy for every use of AWS, and what to do about every alert.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All sources below a folder.
fn sources(folder: &str) -> String {
    let mut text = String::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                text.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    text
}

/// The name behind each `before`, up to the first character that is none of a name.
fn named<'t>(text: &'t str, before: &str) -> BTreeSet<&'t str> {
    let name = |rest: &'t str| {
        let rest = rest.trim_start();
        let rest = rest.strip_prefix('"').unwrap_or(rest);
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        &rest[..end]
    };
    text.match_indices(before)
        .map(|(at, _)| name(&text[at + before.len()..]))
        .filter(|name| !name.is_empty())
        .collect()
}

/// The operations of Kinesis that some sources call: their own list, `.call("Name", …)`, and the bulk calls.
fn calls(text: &str) -> BTreeSet<String> {
    let mut calls: BTreeSet<String> = named(text, ".call(").into_iter().map(str::to_owned).collect();
    calls.extend(named(text, "Bulk::").into_iter().map(str::to_owned));
    calls
}

/// The operations by the methods of the SDK: what is called must be what is listed.
fn methods(text: &str) -> BTreeSet<String> {
    const SERVICE: [&str; 31] = [
        "AddTagsToStream",
        "CreateStream",
        "DecreaseStreamRetentionPeriod",
        "DeleteResourcePolicy",
        "DeleteStream",
        "DeregisterStreamConsumer",
        "DescribeLimits",
        "DescribeStream",
        "DescribeStreamConsumer",
        "DescribeStreamSummary",
        "DisableEnhancedMonitoring",
        "EnableEnhancedMonitoring",
        "GetRecords",
        "GetResourcePolicy",
        "GetShardIterator",
        "IncreaseStreamRetentionPeriod",
        "ListShards",
        "ListStreamConsumers",
        "ListStreams",
        "ListTagsForStream",
        "MergeShards",
        "PutRecord",
        "PutRecords",
        "PutResourcePolicy",
        "RegisterStreamConsumer",
        "RemoveTagsFromStream",
        "SplitShard",
        "StartStreamEncryption",
        "StopStreamEncryption",
        "SubscribeToShard",
        "UpdateShardCount",
    ];
    let called = |operation: &&&str| {
        let mut method = String::from(".");
        for c in operation.chars() {
            if c.is_ascii_uppercase() && method.len() > 1 {
                method.push('_');
            }
            method.push(c.to_ascii_lowercase());
        }
        text.contains(&format!("{method}()"))
    };
    SERVICE.iter().filter(called).map(|operation| (*operation).to_owned()).collect()
}

/// The actions of the policies below each heading of docs/iam.md.
fn policies() -> BTreeMap<String, BTreeSet<String>> {
    let mut policies: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut heading = String::new();
    let text = read("docs/iam.md");
    let mut rest = text.as_str();
    while let Some((line, after)) = rest.split_once('\n') {
        rest = after;
        if let Some(title) = line.strip_prefix("## ") {
            heading = title.to_owned();
        } else if line == "```json" {
            let (policy, after) = rest.split_once("\n```").expect("a policy ends");
            rest = after;
            let policy: Value =
                serde_json::from_str(policy).unwrap_or_else(|error| panic!("{heading}: {error}"));
            assert_eq!(policy["Version"], "2012-10-17", "{heading}");
            for statement in policy["Statement"].as_array().unwrap() {
                assert_eq!(statement["Effect"], "Allow", "{heading}");
                let wide = |value: &Value| value.as_str() == Some("*");
                assert!(!wide(&statement["Resource"]) && !wide(&statement["Action"]), "{heading}: too wide");
                let actions = match &statement["Action"] {
                    Value::Array(actions) => actions.iter().map(|action| action.as_str().unwrap()).collect(),
                    action => vec![action.as_str().unwrap()],
                };
                let known = policies.entry(heading.clone()).or_default();
                known.extend(actions.into_iter().map(str::to_owned));
            }
        }
    }
    policies
}

fn actions(service: &str, operations: &BTreeSet<String>) -> BTreeSet<String> {
    operations.iter().map(|operation| format!("{service}:{operation}")).collect()
}

#[test]
fn every_use_of_kinesis_has_the_policy_that_its_calls_need_and_no_more() {
    let source = "crates/connectors/src/source/kinesis";
    let client = read(&format!("{source}/client.rs"));
    let polling = calls(&client);
    assert!(polling.contains("GetRecords") && polling.len() >= 4, "{polling:?}");
    let mut fanout = calls(&(client + &sources(&format!("{source}/fanout"))));
    assert!(fanout.remove("GetRecords") && fanout.contains("SubscribeToShard"), "{fanout:?}");
    let sink = calls(&sources("crates/connectors/src/sink/kinesis"));
    assert!(sink.contains("PutRecords"), "{sink:?}");
    let policies = policies();
    assert_eq!(policies["Reading by polling"], actions("kinesis", &polling));
    assert_eq!(policies["Reading by enhanced fan-out"], actions("kinesis", &fanout));
    assert_eq!(policies["Writing to Kinesis"], actions("kinesis", &sink));
    let everything = sources("crates/connectors/src");
    let listed: BTreeSet<String> = polling.into_iter().chain(fanout).chain(sink).collect();
    assert_eq!(methods(&everything), listed, "every call of the SDK is in one of the lists");
}

#[test]
fn roles_and_keys_have_the_policies_that_their_calls_need_and_no_more() {
    let policies = policies();
    let aws = sources("crates/connectors/src/aws");
    assert!(aws.contains("AssumeRoleProvider"), "roles are assumed by the SDK's provider");
    let one = |action: &str| BTreeSet::from([action.to_owned()]);
    assert_eq!(policies["A role in between"], one("sts:AssumeRole"));
    // Everybody may ask that; another call of STS would need a policy.
    let asked = named(&aws, ".sts().await.");
    assert!(asked.iter().all(|method| *method == "get"), "{asked:?}");
    assert_eq!(aws.matches(".get_caller_identity()").count(), aws.matches(".sts().await").count());
    let mut kms = sources("coordinator/src/secrets");
    kms.retain(|c| !c.is_whitespace());
    let calls = [
        ("kms:GenerateDataKey", ".generate_data_key()"),
        ("kms:Decrypt", ".decrypt()"),
        ("kms:Encrypt", ".encrypt()"),
        ("kms:ReEncrypt", ".re_encrypt()"),
        ("kms:DescribeKey", ".describe_key()"),
    ];
    let called = calls.iter().filter(|(_, method)| kms.contains(&format!("client{method}")));
    let called: BTreeSet<String> = called.map(|(action, _)| (*action).to_owned()).collect();
    assert_eq!(policies["The master key of secrets"], called);
}

/// The alerts, and where each says that its runbook is.
fn alerts() -> BTreeMap<String, String> {
    let text = read("deploy/helm/shardwright/files/alerts.yaml");
    let mut alerts = BTreeMap::new();
    let mut name = None;
    for line in text.lines().map(str::trim) {
        if let Some(alert) = line.strip_prefix("- alert:") {
            name = Some(alert.trim().to_owned());
        } else if let Some(url) = line.strip_prefix("runbook_url:") {
            alerts.insert(name.take().expect("an alert comes before its runbook"), url.trim().to_owned());
        }
    }
    assert!(name.is_none(), "alert {name:?} has no runbook");
    alerts
}

#[test]
fn every_alert_has_its_section_in_the_runbook_and_every_section_its_alert() {
    let text = read("docs/operations.md");
    let (_, runbook) = text.split_once("\n## Alerts\n").expect("docs/operations.md has a section on alerts");
    let sections: Vec<&str> = runbook.split("\n### ").skip(1).collect();
    let named: BTreeMap<&str, &str> =
        sections.iter().map(|section| section.split_once('\n').unwrap()).collect();
    let alerts = alerts();
    assert!(alerts.len() >= 10, "{alerts:?}");
    let names: BTreeSet<&str> = alerts.keys().map(String::as_str).collect();
    assert_eq!(named.keys().copied().collect::<BTreeSet<_>>(), names);
    for (alert, url) in &alerts {
        // As every renderer of markdown makes an anchor of a heading.
        assert_eq!(url, &format!("docs/operations.md#{}", alert.to_ascii_lowercase()));
        assert!(named[alert.as_str()].trim().len() > 100, "{alert}: says too little");
    }
}

/// What stands between backticks.
fn backticked(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_promise_names_its_tests_and_these_are_there() {
    let rooms = ["coordinator", "worker", "crates", "integration-tests"];
    let code: String = rooms.iter().map(|room| sources(room)).collect();
    let is_there = |name: &str| {
        let (module, _) = name.split_once("::").unwrap_or((name, ""));
        let (begin, _) = name.split_once('…').unwrap_or((name, ""));
        // A story is named by its number.
        let story = name.strip_prefix('s').is_some_and(|n| n.len() == 2 && n.parse::<u8>().is_ok());
        let rust = if story { format!("fn {name}_") } else { format!("fn {begin}") };
        let code = |text: String| code.contains(&text);
        let file = root().join(name).is_file();
        file || code(rust) || code(format!("mod {module};")) || code(format!("\"{begin}"))
    };
    let page = read("docs/guarantees.md");
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.trim_end_matches(" |").ends_with("| tests"));
    let mut count = 0;
    for row in rows {
        let (_, tests) = row.trim_end_matches(" |").rsplit_once('|').unwrap();
        let names = backticked(tests);
        assert!(!names.is_empty() || tests.contains("sim seeds"), "names no test: {row}");
        for name in names {
            assert!(is_there(name), "docs/guarantees.md names {name}, which is not there");
        }
        count += 1;
    }
    assert!(count > 20, "{count} rows");
}
