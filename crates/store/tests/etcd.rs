//! The etcd store against a real etcd. Without one on the machine each test says `skipped: …` and counts as such.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod support;

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use shardwright_store::{
    Commit, ElectionTiming, Error, ErrorKind, EtcdConfig, EtcdStore, Guard, Key, Keyspace, LeaderKey,
    LeaderRecord, MetadataStore, WorkerKey, Write, campaign, suite, watch_leader,
};
use support::{Etcd, Proxy, free_port};
use tokio::{sync::Mutex, time::Instant};
use tokio_util::sync::CancellationToken;

fn keys() -> Keyspace {
    Keyspace::new("test")
}

fn put(key: &Key, value: &str) -> Write {
    Write::Put(key.clone(), value.to_owned().into())
}

async fn refused(config: EtcdConfig) -> Error {
    EtcdStore::connect(config).await.err().expect("the connection is refused")
}

#[tokio::test]
async fn etcd_passes_the_suite_and_a_restart() {
    let Some(etcd) = Etcd::start("etcd_passes_the_suite_and_a_restart", &[]).await else { return };
    let store = Arc::new(etcd.store().await);
    let etcd = Mutex::new(etcd);
    suite::run(store, || async {
        let mut etcd = etcd.lock().await;
        etcd.kill();
        etcd.revive().await;
    })
    .await;
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_ambiguous_and_landed() {
    let Some(etcd) = Etcd::start("a_commit_whose_answer_is_lost_is_ambiguous_and_landed", &[]).await else {
        return;
    };
    let proxy = Proxy::start(etcd.port()).await;
    let mut config = EtcdConfig::new(vec![proxy.endpoint()]);
    config.call_timeout = Duration::from_secs(1);
    let store = EtcdStore::connect(config).await.unwrap();
    let key = keys().worker("w");
    proxy.lose_answers();
    let begun = Instant::now();
    let error = store.commit(&[Guard::Absent(key.clone())], vec![put(&key, "1")]).await.unwrap_err();
    assert!(error.ambiguous && error.kind == ErrorKind::Unavailable, "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    // Once, not twice: the second attempt would have found the key.
    let entries = etcd.store().await.list(&key).await.unwrap().entries;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].create_revision, entries[0].mod_revision);
}

#[tokio::test]
async fn a_commit_whose_connection_broke_is_not_made_again() {
    let Some(etcd) = Etcd::start("a_commit_whose_connection_broke_is_not_made_again", &[]).await else {
        return;
    };
    let proxy = Proxy::start(etcd.port()).await;
    let store = EtcdStore::connect(EtcdConfig::new(vec![proxy.endpoint()])).await.unwrap();
    let key = keys().worker("w");
    proxy.cut_next_answer();
    // Made again, it would find its own key and say `Lost`: the worst of answers.
    let error = store.commit(&[Guard::Absent(key.clone())], vec![put(&key, "1")]).await.unwrap_err();
    assert!(error.ambiguous && error.kind == ErrorKind::Unavailable, "{error:?}");
    assert_eq!(store.list(&key).await.unwrap().entries.len(), 1, "it landed, and the store is usable again");
    // A read is made again.
    proxy.cut_next_answer();
    assert_eq!(store.list(&key).await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn a_commit_that_no_server_saw_is_not_ambiguous() {
    let Some(mut etcd) = Etcd::start("a_commit_that_no_server_saw_is_not_ambiguous", &[]).await else {
        return;
    };
    let store = etcd.store().await;
    let key = keys().worker("w");
    store.list(&key).await.unwrap();
    etcd.kill();
    // The first call may learn of the end while it is sent; after it the connection is known to be down.
    store.list(&key).await.unwrap_err();
    let error = store.commit(&[], vec![put(&key, "1")]).await.unwrap_err();
    assert!(!error.ambiguous && error.kind == ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains(&etcd.endpoint()), "{error}");
    etcd.revive().await;
    // A write waits within its deadline for a server that comes back, and is made.
    assert!(matches!(store.commit(&[], vec![put(&key, "2")]).await.unwrap(), Commit::Done(_)));
}

#[tokio::test]
async fn away_at_start_is_one_clear_line_within_the_deadline() {
    let endpoint = format!("http://127.0.0.1:{}", free_port());
    let mut config = EtcdConfig::new(vec![endpoint.clone()]);
    config.connect_timeout = Duration::from_secs(1);
    let begun = Instant::now();
    let error = refused(config).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(text.starts_with(&format!("no etcd answers at {endpoint}: ")), "{text}");
    assert!(text.contains("onnection refused") && !text.contains('\n'), "{text}");
}

#[tokio::test]
async fn a_dead_endpoint_beside_a_living_one_is_no_failure() {
    let Some(etcd) = Etcd::start("a_dead_endpoint_beside_a_living_one_is_no_failure", &[]).await else {
        return;
    };
    let dead = format!("http://127.0.0.1:{}", free_port());
    let store = EtcdStore::connect(EtcdConfig::new(vec![dead, etcd.endpoint()])).await.unwrap();
    let key = keys().worker("w");
    for n in 0..50 {
        store.commit(&[], vec![put(&key, &n.to_string())]).await.unwrap();
        store.list(&key).await.unwrap();
    }
}

#[tokio::test]
async fn users_are_authenticated_and_passwords_not_told() {
    let name = "users_are_authenticated_and_passwords_not_told";
    let Some(mut etcd) = Etcd::start(name, &[]).await else { return };
    let mut admin = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
    admin.user_add("root", "right-pw", None).await.unwrap();
    admin.role_add("root").await.unwrap();
    admin.user_grant_role("root", "root").await.unwrap();
    admin.auth_enable().await.unwrap();

    let endpoint = etcd.endpoint();
    let with = |user: &str, password: &str| {
        let mut config = EtcdConfig::new(vec![endpoint.clone()]);
        config.user = Some(user.to_owned());
        config.password = Some(password.to_owned().into());
        config
    };
    assert!(!format!("{:?}", with("root", "right-pw")).contains("right-pw"));
    for config in
        [with("root", "wrong-pw"), with("nobody", "wrong-pw"), EtcdConfig::new(vec![etcd.endpoint()])]
    {
        let begun = Instant::now();
        let error = refused(config).await;
        assert_eq!(error.kind, ErrorKind::Denied, "{error}");
        assert!(begun.elapsed() < Duration::from_secs(3), "a wrong password does not get better by waiting");
        assert!(!format!("{error:?}").contains("wrong-pw"), "{error:?}");
    }
    let store = EtcdStore::connect(with("root", "right-pw")).await.unwrap();
    let key = keys().worker("w");
    let mut watch = store.watch(&key).await.unwrap();
    store.commit(&[], vec![put(&key, "1")]).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap();
    // A restarted etcd has forgotten its tokens: calls and watches get new ones.
    etcd.kill();
    etcd.revive_authenticated(with("root", "right-pw")).await;
    tokio::time::timeout(Duration::from_secs(10), watch.next())
        .await
        .expect("the watch wakes after the restart");
    store.commit(&[], vec![put(&key, "2")]).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), watch.next()).await.expect("the watch goes on");
}

#[tokio::test]
async fn a_user_where_nobody_asks_is_refused_as_a_setting() {
    let Some(etcd) = Etcd::start("a_user_where_nobody_asks_is_refused_as_a_setting", &[]).await else {
        return;
    };
    let mut config = EtcdConfig::new(vec![etcd.endpoint()]);
    (config.user, config.password) = (Some("me".to_owned()), Some("pw".to_owned().into()));
    let error = refused(config).await;
    assert_eq!(error.kind, ErrorKind::Config);
    assert!(error.to_string().contains("authentication is not enabled"), "{error}");
}

#[tokio::test]
async fn tls_needs_the_right_authority_and_our_certificate() {
    let name = "tls_needs_the_right_authority_and_our_certificate";
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let (ca, other) = (authority(), authority());
    std::fs::write(file("ca.pem"), ca.pem()).unwrap();
    std::fs::write(file("other.pem"), other.pem()).unwrap();
    issue(folder.path(), &ca);
    let text = |name: &str| file(name).to_str().unwrap().to_owned();
    let (cert, key, trusted) = (text("server.pem"), text("server.key"), text("ca.pem"));
    let arguments =
        ["--cert-file", &cert, "--key-file", &key, "--trusted-ca-file", &trusted, "--client-cert-auth"];
    let Some(etcd) = Etcd::start_with(name, "https", &arguments).await else { return };

    let mut config = EtcdConfig::new(vec![etcd.endpoint()]);
    config.connect_timeout = Duration::from_secs(3);
    (config.cert, config.key) = (Some(file("client.pem")), Some(file("client.key")));
    config.ca = Some(file("other.pem"));
    let error = refused(config.clone()).await;
    assert_eq!(error.kind, ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    config.ca = Some(file("ca.pem"));
    let anonymous = EtcdConfig { cert: None, key: None, ..config.clone() };
    refused(anonymous).await;
    let absent = EtcdConfig { ca: Some(file("absent.pem")), ..config.clone() };
    assert!(refused(absent).await.to_string().contains("absent.pem"));
    let store = EtcdStore::connect(config).await.unwrap();
    let key = keys().worker("w");
    store.commit(&[], vec![put(&key, "1")]).await.unwrap();
    assert_eq!(store.list(&key).await.unwrap().entries.len(), 1);
}

/// Certificates of `ca` for both ends.
fn issue(folder: &std::path::Path, ca: &rcgen::CertifiedIssuer<'static, rcgen::KeyPair>) {
    for who in ["server", "client"] {
        let signed_key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&signed_key, ca).unwrap();
        std::fs::write(folder.join(format!("{who}.pem")), cert.pem()).unwrap();
        std::fs::write(folder.join(format!("{who}.key")), signed_key.serialize_pem()).unwrap();
    }
}

#[tokio::test]
async fn certificates_are_read_again_when_they_change() {
    let name = "certificates_are_read_again_when_they_change";
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let renew = || {
        let ca = authority();
        std::fs::write(file("ca.pem"), ca.pem()).unwrap();
        issue(folder.path(), &ca);
    };
    renew();
    let text = |name: &str| file(name).to_str().unwrap().to_owned();
    let (cert, key, trusted) = (text("server.pem"), text("server.key"), text("ca.pem"));
    let arguments =
        ["--cert-file", &cert, "--key-file", &key, "--trusted-ca-file", &trusted, "--client-cert-auth"];
    let Some(mut etcd) = Etcd::start_with(name, "https", &arguments).await else { return };
    let mut config = EtcdConfig::new(vec![etcd.endpoint()]);
    config.ca = Some(file("ca.pem"));
    (config.cert, config.key) = (Some(file("client.pem")), Some(file("client.key")));
    let store = EtcdStore::connect(config.clone()).await.unwrap();
    let key = keys().worker("w");
    let lease = store.lease(Duration::from_secs(120)).await.unwrap();
    store.commit(&[], vec![Write::PutLeased(key.clone(), "1".into(), lease)]).await.unwrap();
    let mut watch = store.watch(&key).await.unwrap();
    // Another authority, on both sides: who keeps the old one, or the old certificate, is out.
    etcd.kill();
    renew();
    etcd.revive_authenticated(config).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = store.list(&key).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(store.keep_alive(lease).await.unwrap(), "the lease is the same one");
    tokio::time::timeout(Duration::from_secs(30), watch.next()).await.expect("the watch is opened again");
    store.commit(&[], vec![put(&key, "2")]).await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), watch.next()).await.expect("the watch goes on");
}

#[tokio::test]
async fn files_that_cannot_be_used_leave_the_connection_as_it_is() {
    let name = "files_that_cannot_be_used_leave_the_connection_as_it_is";
    let Some(etcd) = Etcd::start(name, &[]).await else { return };
    let mut admin = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
    admin.user_add("root", "first-pw", None).await.unwrap();
    admin.role_add("root").await.unwrap();
    admin.user_grant_role("root", "root").await.unwrap();
    admin.auth_enable().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "first-pw\n").unwrap();
    let mut config = EtcdConfig::new(vec![etcd.endpoint()]);
    (config.user, config.password_file) = (Some("root".to_owned()), Some(file.clone()));
    let store = EtcdStore::connect(config).await.unwrap();
    let key = keys().worker("w");
    // Two looks and more at a password that is not (yet) the one of etcd, and at none.
    for wrong in [Some("next-pw"), None] {
        match wrong {
            Some(wrong) => std::fs::write(&file, wrong).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        let until = Instant::now() + Duration::from_millis(2_500);
        while Instant::now() < until {
            store.commit(&[], vec![put(&key, "1")]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    std::fs::write(&file, "next-pw").unwrap();
    let as_root = etcd_client::ConnectOptions::new().with_user("root", "first-pw");
    let mut admin = etcd_client::Client::connect([etcd.endpoint()], Some(as_root)).await.unwrap();
    admin.user_change_password("root", "next-pw").await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = store.list(&key).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn authority() -> rcgen::CertifiedIssuer<'static, rcgen::KeyPair> {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap()
}

#[tokio::test]
async fn compaction_loses_no_key_and_no_wake_up() {
    let Some(etcd) = Etcd::start("compaction_loses_no_key_and_no_wake_up", &[]).await else { return };
    let store = etcd.store().await;
    let key = keys().worker("w");
    let mut watch = store.watch(&keys().all()).await.unwrap();
    let mut last = 0;
    for n in 0..50 {
        let Commit::Done(revision) = store.commit(&[], vec![put(&key, &n.to_string())]).await.unwrap() else {
            panic!("lost")
        };
        last = revision;
    }
    let health = store.maintain(Some(last)).await.unwrap();
    assert!(health.size_bytes > 0 && health.alarms.is_empty(), "{health:?}");
    assert!(health.version.starts_with("3."), "{health:?}");
    // Compacted already, by whoever: well.
    store.maintain(Some(last - 10)).await.unwrap();
    assert_eq!(store.list(&keys().all()).await.unwrap().entries.len(), 1);
    while tokio::time::timeout(Duration::from_millis(300), watch.next()).await.is_ok() {}
    store.commit(&[Guard::Unchanged(key.clone(), last)], vec![put(&key, "after")]).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap();
}

#[tokio::test]
async fn a_full_store_says_so_and_raises_its_alarm() {
    let arguments = ["--quota-backend-bytes", "2000000"];
    let Some(etcd) = Etcd::start("a_full_store_says_so_and_raises_its_alarm", &arguments).await else {
        return;
    };
    let store = etcd.store().await;
    let value = "x".repeat(200_000);
    let mut full = None;
    for n in 0..100 {
        let key = keys().worker(&n.to_string());
        if let Err(error) = store.commit(&[], vec![put(&key, &value)]).await {
            full = Some(error);
            break;
        }
    }
    let error = full.expect("20 MB do not fit into 2 MB");
    assert_eq!((error.kind, error.ambiguous), (ErrorKind::Full, false), "{error}");
    assert_eq!(store.maintain(None).await.unwrap().alarms, ["NOSPACE"]);
}

#[tokio::test]
async fn one_large_listing_is_one_revision() {
    let Some(etcd) = Etcd::start("one_large_listing_is_one_revision", &[]).await else { return };
    let store = etcd.store().await;
    let keys = keys();
    for chunk in (0..2_000).collect::<Vec<u32>>().chunks(100) {
        let writes = chunk.iter().map(|n| put(&keys.worker(&format!("{n:05}")), "0")).collect();
        store.commit(&[], writes).await.unwrap();
    }
    // Somebody moves the first and the last key together while it is listed: no listing may see them apart.
    let (first, last) = (keys.worker("00000"), keys.worker("01999"));
    let mover = {
        let (store, first, last) = (store.clone(), first.clone(), last.clone());
        tokio::spawn(async move {
            for n in 1.. {
                let value = n.to_string();
                store.commit(&[], vec![put(&first, &value), put(&last, &value)]).await.unwrap();
            }
        })
    };
    for _ in 0..10 {
        let snapshot = store.list(&keys.all_of::<WorkerKey>()).await.unwrap();
        assert_eq!(snapshot.entries.len(), 2_000);
        assert_eq!(snapshot.get(&first).unwrap().value, snapshot.get(&last).unwrap().value);
    }
    mover.abort();
}

#[tokio::test]
async fn leadership_passes_on_when_the_leader_dies_and_old_guards_fail() {
    let name = "leadership_passes_on_when_the_leader_dies_and_old_guards_fail";
    let Some(etcd) = Etcd::start(name, &[]).await else { return };
    let (timing, cancel) = (ElectionTiming::default(), CancellationToken::new());
    let (a, b) = (Arc::new(etcd.store().await), Arc::new(etcd.store().await));
    let mut seen = watch_leader(b.clone(), &keys());
    let first = campaign(a.clone(), &keys(), "a:1", timing, &cancel).await.unwrap();
    let mut second = {
        let (b, cancel) = (b.clone(), cancel.clone());
        tokio::spawn(async move { campaign(b, &keys(), "b:1", timing, &cancel).await.unwrap() })
    };
    seen.wait_for(|leader| leader.as_ref().is_some_and(|l| l.address == "a:1")).await.unwrap();
    // Kept alive beyond its lease.
    tokio::time::timeout(Duration::from_secs(5), &mut second).await.expect_err("two leaders");
    assert!(first.may_answer(Instant::now()));
    let (guard, died) = (first.guard(), Instant::now());
    drop(first);
    let second = tokio::time::timeout(Duration::from_secs(10), second).await.unwrap().unwrap();
    println!("led by another {:?} after the leader died", died.elapsed());
    let lost = a.commit(&[guard], vec![put(&keys().worker("w"), "late")]).await.unwrap();
    let Commit::Lost(present) = lost else { panic!("a deposed leader wrote") };
    let entry = present.get(&keys().key::<LeaderKey>(&())).unwrap();
    let record: LeaderRecord = shardwright_store::decode(&entry.key, &entry.value).unwrap();
    assert_eq!((record.address.as_str(), entry.create_revision), ("b:1", second.revision()));
    seen.wait_for(|leader| leader.as_ref().is_some_and(|l| l.address == "b:1")).await.unwrap();
}

#[tokio::test]
async fn a_leader_outlives_a_short_restart_or_stops_in_time() {
    let name = "a_leader_outlives_a_short_restart_or_stops_in_time";
    let Some(mut etcd) = Etcd::start(name, &[]).await else { return };
    let cancel = CancellationToken::new();
    let store = Arc::new(etcd.store().await);
    let leader = campaign(store.clone(), &keys(), "a:1", ElectionTiming::default(), &cancel).await.unwrap();
    etcd.kill();
    let killed = Instant::now();
    tokio::time::timeout(Duration::from_secs(10), leader.lost())
        .await
        .expect("it cannot be confirmed any more");
    assert!(killed.elapsed() <= Duration::from_millis(2_500), "{:?}", killed.elapsed());
    assert!(!leader.may_answer(Instant::now()));
    etcd.revive().await;
    let again = campaign(store, &keys(), "a:1", ElectionTiming::default(), &cancel).await.unwrap();
    assert!(again.revision() > leader.revision(), "a new leadership, never the old one (P5)");
}
