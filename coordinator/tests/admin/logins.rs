//! Who is let in by a password, who without anything, and who is not.

use std::{collections::BTreeSet, sync::Arc};

use prost::Message;
use proto::{StatusExt, v1};
use shardwright_coordinator::{Anonymous, AuthConfig, Config};
use sql::access::Call;
use store::{EmbeddedStore, MetadataStore};
use tokio_stream::StreamExt;
use tonic::{Code, Request, Status, codegen::http::uri::PathAndQuery};

use crate::{
    login::{ADMIN, Caller, at, basic, guarded, strict},
    setup::{Coordinator, PATIENCE, source},
};

#[tokio::test]
async fn who_shows_nothing_is_the_administrator_at_a_loopback_listener_only() {
    let store = || Arc::new(EmbeddedStore::in_memory());
    for (listener, auth, admitted) in [
        ("127.0.0.1:7070", AuthConfig::default(), true),
        ("10.0.0.1:7070", AuthConfig::default(), false),
        ("0.0.0.0:7070", AuthConfig::default(), false),
        ("[::]:7070", AuthConfig::default(), false),
        ("127.0.0.1:7070", AuthConfig { anonymous: Anonymous::Never, ..AuthConfig::default() }, false),
        ("10.0.0.1:7070", AuthConfig { anonymous: Anonymous::Always, ..AuthConfig::default() }, true),
    ] {
        let what = format!("{listener} {:?}", auth.anonymous);
        let (address, cancel) = at(listener.parse().unwrap(), auth, store()).await;
        let client = v1::admin_client::AdminClient::connect(format!("http://{address}")).await.unwrap();
        let caller = Caller::new(&client, None);
        match admitted {
            true => assert_eq!(caller.run("CREATE USER someone").await.tags, ["CREATE USER"], "{what}"),
            false => {
                let status = caller.refused("SHOW SOURCES").await;
                assert_eq!(status.code(), Code::Unauthenticated, "{what}: {status:?}");
                assert_eq!(status.reason().as_deref(), Some("28000"), "{what}");
                assert!(
                    status.fact("hint").is_some_and(|hint| hint.contains("--user")),
                    "{what}: {status:?}"
                );
            }
        }
        cancel.cancel();
    }
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_read_alike() {
    let cluster = guarded(strict()).await;
    let wrong = Caller::user(&cluster, "admin", "wrong").refused("SHOW SOURCES").await;
    let unknown = Caller::user(&cluster, "nobody", "wrong").refused("SHOW SOURCES").await;
    for (status, name) in [(&wrong, "admin"), (&unknown, "nobody")] {
        assert_eq!(
            (status.code(), status.reason().as_deref()),
            (Code::Unauthenticated, Some("28P01")),
            "{status:?}"
        );
        assert!(status.message().contains(name));
    }
    assert_eq!(wrong.message().replace("admin", "x"), unknown.message().replace("nobody", "x"));
    Caller::admin(&cluster).run("SHOW SOURCES").await;
}

#[tokio::test]
async fn a_user_without_a_password_and_a_role_do_not_log_in_by_one() {
    let cluster = guarded(strict()).await;
    Caller::admin(&cluster).run("CREATE USER bare; CREATE ROLE readers").await;
    for (name, password) in [("bare", ""), ("bare", "x"), ("readers", ""), ("", ""), ("", "x")] {
        Caller::user(&cluster, name, password).stays_out("wrong password").await;
    }
}

#[tokio::test]
async fn who_guesses_is_locked_out_though_the_next_guess_is_right() {
    let cluster = guarded(strict()).await;
    let admin = Caller::admin(&cluster);
    // The first lock lasts a second: a machine that stands still for so long gets another try.
    for n in 0..5 {
        let name = format!("user{n}");
        admin.run(&format!("CREATE USER {name} PASSWORD 'some good password'")).await;
        let user = Caller::user(&cluster, &name, "some good password");
        for _ in 0..5 {
            Caller::user(&cluster, &name, "wrong").stays_out("wrong password").await;
        }
        let Err(status) = user.execute("SHOW SOURCES", "").await else { continue };
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        assert!(status.message().contains("too many failed logins"), "{status:?}");
        assert!(status.fact("retry_after_s").is_some());
        // Others are not: they logged in from here before.
        admin.run("SHOW SOURCES").await;
        return ends(&user).await;
    }
    panic!("nobody is ever locked out");
}

/// A lock ends by itself, and the right password is taken again.
async fn ends(user: &Caller) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while user.execute("SHOW SOURCES", "").await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the lock does not end");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn credentials_that_cannot_be_read_never_count_as_none() {
    let cluster = Coordinator::start().await;
    for header in ["Basic ???", "Basic", "Bearer", "Negotiate x", "", "Basic YWxpY2U="] {
        let status = Caller::new(&cluster.client, Some(header.to_owned())).refused("SHOW SOURCES").await;
        assert_eq!(status.code(), Code::Unauthenticated, "{header}: {status:?}");
    }
    // Nor do wrong ones, where no credentials would do.
    Caller::user(&cluster, "nobody", "x").stays_out("wrong password").await;
    Caller::token(&cluster, "a.b.c").stays_out("tokens are not taken here").await;
    let mut twice = Caller::user(&cluster, "a", "b").asks(v1::StatusRequest {});
    twice.metadata_mut().append("authorization", basic("c", "d").parse().unwrap());
    let status = cluster.client.clone().status(twice).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
}

#[tokio::test]
async fn a_changed_password_is_the_only_one() {
    let cluster = guarded(strict()).await;
    let admin = Caller::admin(&cluster);
    admin.run("CREATE USER alice PASSWORD 'the first password'").await;
    let first = Caller::user(&cluster, "alice", "the first password");
    first.run("SHOW SOURCES").await;
    first.run("ALTER USER alice PASSWORD 'the second password'").await;
    first.stays_out("wrong password").await;
    let second = Caller::user(&cluster, "alice", "the second password");
    second.run("SHOW SOURCES").await;
    second.lacks("ALTER USER admin PASSWORD 'mine'", "SYSTEM_ADMIN privilege").await;
    admin.run("ALTER USER alice PASSWORD NULL").await;
    second.stays_out("wrong password").await;
}

#[tokio::test]
async fn a_dropped_users_open_connection_is_worth_nothing() {
    let cluster = guarded(strict()).await;
    let admin = Caller::admin(&cluster);
    admin.run("CREATE USER alice PASSWORD 'some good password'; GRANT SELECT ON CLUSTER TO alice").await;
    let alice = Caller::user(&cluster, "alice", "some good password");
    let watch = v1::WatchEventsRequest { after_event: 0, follow: true };
    let mut events = alice.client.clone().watch_events(alice.asks(watch)).await.unwrap().into_inner();
    assert!(events.next().await.unwrap().is_ok());
    admin.run("DROP USER alice").await;
    // On the same connection: the next call, and the stream that is open.
    alice.stays_out("wrong password").await;
    let ended = tokio::time::timeout(PATIENCE, async {
        for n in 0.. {
            admin.run(&format!("CREATE ROLE r{n}")).await;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            while let Ok(Some(event)) =
                tokio::time::timeout(std::time::Duration::from_millis(50), events.next()).await
            {
                if let Err(status) = event {
                    return status;
                }
            }
        }
        unreachable!("an endless loop")
    });
    let status: Status = ended.await.expect("the stream of a dropped user goes on");
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    // One of the same name is somebody else.
    admin.run("CREATE USER alice PASSWORD 'some good password'").await;
    alice.lacks("SHOW WORKERS", "SELECT privilege on the cluster").await;
}

#[tokio::test]
async fn the_first_administrator_is_made_once() {
    let store: Arc<dyn MetadataStore> = Arc::new(EmbeddedStore::in_memory());
    let config = |auth: AuthConfig| Config { auth, ..Config::default() };
    let first = Coordinator::start_config(Arc::clone(&store), config(strict())).await;
    let admin = Caller::admin(&first);
    assert_eq!(admin.run("SHOW USERS").await.rows.len(), 1);
    admin
        .run("ALTER USER admin PASSWORD 'another good one'; CREATE USER second PASSWORD 'a second good one'")
        .await;
    let admin = Caller::user(&first, "admin", "another good one");
    admin.run("GRANT SYSTEM_ADMIN TO second").await;
    first.stop().await;
    // The settings say what they said; who administers now is in the catalog.
    let again = Coordinator::start_config(Arc::clone(&store), config(strict())).await;
    Caller::admin(&again).stays_out("wrong password").await;
    Caller::user(&again, "admin", "another good one").run("SHOW USERS").await;
    Caller::user(&again, "second", "a second good one").run("DROP USER admin").await;
    again.stop().await;
    let third = Coordinator::start_config(store, config(strict())).await;
    Caller::admin(&third).stays_out("wrong password").await;
    assert_eq!(Caller::user(&third, "second", "a second good one").run("SHOW USERS").await.rows.len(), 1);
}

/// The calls of the service, by its description.
fn calls() -> BTreeSet<String> {
    let files = prost_types::FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
    let services = files.file.into_iter().flat_map(|file| file.service);
    let admin = services.into_iter().find(|service| service.name.as_deref() == Some("Admin")).unwrap();
    admin.method.into_iter().filter_map(|method| method.name).collect()
}

/// Any call, with an empty message. Rows are read up to the first.
async fn any(cluster: &Coordinator, method: &str, caller: &Caller) -> Result<(), Status> {
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", cluster.server.local_addr()));
    let mut grpc = tonic::client::Grpc::new(channel.unwrap().connect().await.unwrap());
    grpc.ready().await.unwrap();
    let path = PathAndQuery::try_from(format!("/shardwright.v1.Admin/{method}")).unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let request: Request<()> = caller.asks(());
    let mut rows = grpc.server_streaming(request, path, codec).await?.into_inner();
    rows.next().await.transpose().map(drop)
}

#[tokio::test]
async fn every_call_has_a_rule_and_refuses_who_is_not_known() {
    let ruled: BTreeSet<String> = Call::ALL.iter().map(|call| call.name().to_owned()).collect();
    assert_eq!(ruled, calls(), "each call of the service has a rule, and each rule a call");
    let cluster = guarded(strict()).await;
    let admin = Caller::admin(&cluster);
    admin.run("CREATE USER alice PASSWORD 'some good password'").await;
    let alice = Caller::user(&cluster, "alice", "some good password");
    // What these show is what the caller may see.
    let open = ["Execute", "Status", "ListSplits"];
    for method in calls() {
        for caller in [Caller::nobody(&cluster), Caller::user(&cluster, "eve", "guess")] {
            // Each guess as another user: this test is not about the lockout.
            let refused = any(&cluster, &method, &caller).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unauthenticated, "{method}: {refused:?}");
        }
        match any(&cluster, &method, &alice).await {
            Ok(()) => assert!(open.contains(&method.as_str()), "{method} is open to everybody"),
            Err(refused) => {
                assert_eq!(refused.code(), Code::PermissionDenied, "{method}: {refused:?}");
                assert!(!open.contains(&method.as_str()), "{method}: {refused:?}");
            }
        }
    }
}

#[tokio::test]
async fn no_password_is_in_any_answer_event_or_key() {
    let cluster = guarded(strict()).await;
    let admin = Caller::admin(&cluster);
    let canary = "hunter2-the-canary";
    admin.run(&format!("CREATE USER alice PASSWORD '{canary}'")).await;
    admin.run(&format!("ALTER USER alice WITH PASSWORD '{canary}'")).await;
    let mut told = String::new();
    for text in ["SHOW USERS", "SHOW ROLES", "SHOW GRANTS", "SHOW GRANTS FOR alice", "SHOW PRIVILEGES"] {
        told.push_str(&format!("{:?}", admin.run(text).await));
    }
    for text in [
        format!("CREATE USER alice PASSWORD '{canary}'"),
        format!("CREATE USER a:b PASSWORD '{canary}'"),
        format!("CREATE USER \"a:b\" PASSWORD '{canary}'"),
        format!("CREATE USER b PASSWORD '{canary}' nonsense"),
        format!("CREATE USER b PASSWORD = '{canary}'"),
        format!("ALTER USER nobody PASSWORD '{canary}'"),
        format!("CREATE USER b PASSWROD '{canary}'"),
    ] {
        told.push_str(&format!("{:?}", admin.refused(&text).await));
    }
    let watch = v1::WatchEventsRequest { after_event: 0, follow: false };
    let mut events = admin.client.clone().watch_events(admin.asks(watch)).await.unwrap().into_inner();
    while let Some(event) = events.next().await {
        told.push_str(&format!("{:?}", event.unwrap()));
    }
    assert!(told.contains("user `alice` created"), "{told}");
    for secret in [canary, ADMIN, "$argon2"] {
        assert!(!told.contains(secret), "{secret} in {told}");
    }
    let view = cluster.view().await;
    assert_eq!(view.grantees.len(), 2);
    let stored = cluster.store.list(&store::Keyspace::new("shardwright").all()).await.unwrap();
    let stored: String =
        stored.entries.iter().map(|entry| String::from_utf8_lossy(&entry.value).into_owned()).collect();
    assert!(stored.contains("$argon2id$") && !stored.contains(canary) && !stored.contains(ADMIN));
    assert!(!format!("{view:?}").contains("$argon2"), "nor shown by mistake");
}

#[tokio::test]
async fn request_ids_are_each_callers_own() {
    let cluster = guarded(strict()).await;
    let admin = Caller::admin(&cluster);
    admin.run("CREATE USER alice PASSWORD 'some good password'").await;
    admin.run(&source("s", "")).await;
    let alice = Caller::user(&cluster, "alice", "some good password");
    assert_eq!(admin.execute("SHOW SOURCES", "r1").await.unwrap().rows.len(), 2);
    assert!(alice.execute("SHOW SOURCES", "r1").await.unwrap().rows.is_empty(), "that is another's answer");
}
