//! What users may do: grants, roles, owners, and what lists leave out.

use proto::v1;
use tonic::Code;

use crate::{
    login::{Caller, guarded, strict},
    setup::{Coordinator, sink, source},
};

const GOOD: &str = "some good password";

/// A cluster with the source `s` and its sink `k`, and these users.
async fn scene(users: &[&str]) -> (Coordinator, Caller) {
    let cluster = guarded(strict()).await;
    let admin = Caller::admin(&cluster);
    admin.run(&format!("{}; {}", source("s", ""), sink("k", "s", ""))).await;
    for user in users {
        admin.run(&format!("CREATE USER {user} PASSWORD '{GOOD}'")).await;
    }
    (cluster, admin)
}

#[tokio::test]
async fn a_missing_grant_is_named_and_a_grant_helps() {
    let (cluster, admin) = scene(&["alice"]).await;
    let alice = Caller::user(&cluster, "alice", GOOD);
    let on_s = "SELECT privilege on source \"public.s\"";
    alice.lacks("SHOW CREATE SOURCE s", on_s).await;
    alice.lacks("SELECT * FROM s_progress", on_s).await;
    alice.lacks(&sink("mine", "s", ""), "CREATE SINK privilege on schema \"public\"").await;
    admin.run("GRANT CREATE SINK ON SCHEMA public TO alice").await;
    alice.lacks(&sink("mine", "s", ""), on_s).await;
    admin.run("GRANT SELECT ON SOURCE s TO alice").await;
    assert!(alice.run("SHOW CREATE SOURCE s").await.rows[0].contains("CREATE SOURCE s"));
    assert_eq!(alice.run("SELECT * FROM s_progress").await.rows.len(), 2);
    alice.run(&sink("mine", "s", "")).await;
    alice.lacks("ALTER SOURCE s SET (reach = 'always')", "ADMIN privilege on source \"public.s\"").await;
    alice.lacks("DROP SINK k", "ADMIN privilege on sink \"public.k\"").await;
    // What one made is one's own.
    alice.run("ALTER SINK mine PAUSE; ALTER SINK mine SET (in_flight = 2); DROP SINK mine").await;
    admin.run("REVOKE SELECT ON SOURCE s FROM alice").await;
    alice.lacks("SHOW CREATE SOURCE s", on_s).await;
    assert_eq!(
        admin.run("REVOKE SELECT ON SOURCE s FROM alice").await.notices,
        ["SELECT on source \"public.s\" was not granted to \"alice\""]
    );
}

#[tokio::test]
async fn typed_calls_ask_for_the_same() {
    let (cluster, admin) = scene(&["alice"]).await;
    let alice = Caller::user(&cluster, "alice", GOOD);
    let mut client = alice.client.clone();
    let pause = || alice.asks(v1::PauseSinkRequest { sink: "k".to_owned() });
    let status = client.pause_sink(pause()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("ADMIN privilege on sink \"public.k\" is required"), "{status:?}");
    admin.run("GRANT SELECT ON SINK k TO alice").await;
    assert_eq!(
        client.pause_sink(pause()).await.unwrap_err().code(),
        Code::PermissionDenied,
        "SELECT is not ADMIN"
    );
    admin.run("GRANT ADMIN ON SINK k TO alice").await;
    client.pause_sink(pause()).await.unwrap();
    let drain = || alice.asks(v1::DrainWorkerRequest { worker: "w".to_owned(), undo: false });
    assert_eq!(client.drain_worker(drain()).await.unwrap_err().code(), Code::PermissionDenied);
    admin.run("GRANT ADMIN ON CLUSTER TO alice").await;
    assert_eq!(
        client.drain_worker(drain()).await.unwrap_err().code(),
        Code::NotFound,
        "there is no such worker"
    );
}

#[tokio::test]
async fn lists_leave_out_what_one_may_not_see() {
    let (cluster, admin) = scene(&["alice"]).await;
    admin.run(&format!("{}; {}", source("t", ""), sink("kt", "t", ""))).await;
    let alice = Caller::user(&cluster, "alice", GOOD);
    for text in
        ["SHOW SOURCES", "SHOW SINKS", "SHOW SPLITS", "SHOW CREDENTIALS", "SELECT * FROM sys.source_errors"]
    {
        assert!(alice.run(text).await.rows.is_empty(), "{text}");
    }
    let status = alice.client.clone().status(alice.asks(v1::StatusRequest {})).await.unwrap().into_inner();
    assert!(status.sources.is_empty() && status.sinks.is_empty() && status.splits.is_empty(), "{status:?}");
    admin.run("GRANT SELECT ON SOURCE s TO alice").await;
    assert_eq!(alice.run("SHOW SOURCES").await.rows, ["public.s|source|fake", "public.s_progress|progress|"]);
    assert!(alice.run("SHOW SINKS").await.rows.is_empty());
    assert_eq!(alice.run("SHOW SPLITS").await.rows.len(), 2);
    // A hint does not tell of what one may not see either.
    admin.run("GRANT CREATE SINK ON SCHEMA public TO alice").await;
    for (text, status) in [("DESCRIBE kt", "kt"), ("DESCRIBE t", "t"), ("SELECT * FROM t_progress", "t")] {
        let refused = alice.refused(text).await;
        assert_eq!(refused.code(), Code::PermissionDenied, "{text}: {refused:?}");
        let absent = alice.refused(&text.replace(status, "zz")).await;
        assert_eq!(
            absent.message().replace("zz", status),
            refused.message(),
            "whether it is there is not said"
        );
    }
    let hint = format!("{:?}", alice.refused("SELECT * FROM sys.t_progres").await);
    assert!(!hint.contains("`t_progress`"), "{hint}");
    assert_eq!(admin.run("SHOW SOURCES").await.rows.len(), 4);
}

#[tokio::test]
async fn roles_bring_what_was_granted_to_them_through_others_too() {
    let (cluster, admin) = scene(&["alice"]).await;
    let alice = Caller::user(&cluster, "alice", GOOD);
    admin
        .run("CREATE ROLE readers; CREATE ROLE staff; GRANT SELECT ON s TO readers; GRANT readers TO staff")
        .await;
    alice.lacks("DESCRIBE s", "SELECT privilege on source \"public.s\"").await;
    admin.run("GRANT staff TO alice").await;
    alice.run("DESCRIBE s").await;
    let refused = admin.refused("GRANT staff TO readers").await;
    assert!(refused.message().contains("role \"staff\" is a member of \"readers\" itself"), "{refused:?}");
    assert_eq!(alice.run("SHOW PRIVILEGES").await.rows, ["SELECT|source \"public.s\"|readers|no"]);
    assert_eq!(
        alice.run("SHOW GRANTS").await.rows,
        [
            "alice|MEMBER|role \"staff\"|no|NULL",
            "readers|SELECT|source \"public.s\"|no|NULL",
            "staff|MEMBER|role \"readers\"|no|NULL"
        ]
    );
    admin.run("DROP ROLE readers").await;
    alice.lacks("DESCRIBE s", "SELECT privilege on source \"public.s\"").await;
    admin.run("CREATE ROLE readers; GRANT SELECT ON s TO readers").await;
    alice.lacks("DESCRIBE s", "SELECT privilege on source \"public.s\"").await;
}

#[tokio::test]
async fn what_was_passed_on_goes_with_what_it_rests_on() {
    let (cluster, admin) = scene(&["alice", "bob", "carol"]).await;
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| Caller::user(&cluster, name, GOOD));
    admin.run("GRANT SELECT ON s TO alice").await;
    alice.lacks("GRANT SELECT ON s TO bob", "ADMIN privilege on source \"public.s\"").await;
    admin.run("GRANT SELECT ON s TO alice WITH GRANT OPTION").await;
    alice.lacks("GRANT ADMIN ON s TO bob", "ADMIN privilege on source \"public.s\"").await;
    alice.run("GRANT SELECT ON s TO bob WITH GRANT OPTION").await;
    bob.run("GRANT SELECT ON s TO carol; DESCRIBE s").await;
    carol.run("DESCRIBE s").await;
    let refused = admin.refused("REVOKE SELECT ON s FROM alice").await;
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(
        refused.message().contains("dependent privileges exist: SELECT of \"bob\", SELECT of \"carol\""),
        "{refused:?}"
    );
    carol.run("DESCRIBE s").await;
    let answer = admin.run("REVOKE GRANT OPTION FOR SELECT ON s FROM alice CASCADE").await;
    assert_eq!(
        answer.notices,
        ["revoke cascades to SELECT of \"bob\"", "revoke cascades to SELECT of \"carol\""]
    );
    alice.run("DESCRIBE s").await;
    bob.lacks("DESCRIBE s", "SELECT privilege on source \"public.s\"").await;
    // Given again, it does not come back to those who lost it.
    admin.run("GRANT SELECT ON s TO alice WITH GRANT OPTION").await;
    bob.lacks("DESCRIBE s", "SELECT privilege on source \"public.s\"").await;
}

#[tokio::test]
async fn rights_are_on_an_object_and_not_on_its_name() {
    let (cluster, admin) = scene(&["alice"]).await;
    let alice = Caller::user(&cluster, "alice", GOOD);
    admin.run("GRANT ADMIN ON SINK k TO alice").await;
    alice.run("DROP SINK k").await;
    admin.run(&sink("k", "s", "")).await;
    alice.lacks("DROP SINK k", "ADMIN privilege on sink \"public.k\"").await;
}

#[tokio::test]
async fn a_cascade_asks_for_all_that_it_drops() {
    let (cluster, admin) = scene(&["alice"]).await;
    let alice = Caller::user(&cluster, "alice", GOOD);
    admin.run("GRANT ADMIN ON SOURCE s TO alice").await;
    alice.lacks("DROP SOURCE s CASCADE", "ADMIN privilege on sink \"public.k\"").await;
    let refused = alice.refused("DROP SOURCE s").await;
    assert!(refused.message().contains("sink \"k\""), "what is in the way is told: {refused:?}");
    admin.run("GRANT ADMIN ON SINK k TO alice").await;
    alice.run("DROP SOURCE s CASCADE").await;
}

#[tokio::test]
async fn a_user_who_owns_something_is_not_dropped() {
    let (cluster, admin) = scene(&["alice"]).await;
    let alice = Caller::user(&cluster, "alice", GOOD);
    admin.run("GRANT CREATE SOURCE, CREATE SINK ON SCHEMA public TO alice").await;
    alice.run(&format!("{}; {}", source("a", ""), sink("b", "a", ""))).await;
    let refused = admin.refused("DROP USER alice").await;
    assert!(refused.message().contains("user \"alice\" owns 2 object(s)"), "{refused:?}");
    assert!(
        alice.run("SHOW GRANTS").await.rows.contains(&"alice|OWNER|sink \"public.b\"|yes|NULL".to_owned())
    );
    alice.run("DROP SOURCE a CASCADE").await;
    admin.run("DROP USER alice").await;
    assert_eq!(
        admin.run("DROP USER IF EXISTS alice").await.notices,
        ["user \"alice\" does not exist, skipping"]
    );
    let refused = admin.refused("DROP USER admin").await;
    assert!(refused.message().contains("user \"admin\" is who asks"), "{refused:?}");
}

#[tokio::test]
async fn who_manages_users_does_not_become_the_administrator() {
    let (cluster, admin) = scene(&["manager", "alice"]).await;
    admin.run("GRANT SYSTEM_USER_ADMIN TO manager; CREATE ROLE gods; GRANT SYSTEM_ADMIN TO gods").await;
    let manager = Caller::user(&cluster, "manager", GOOD);
    for text in [
        "GRANT SYSTEM_ADMIN TO manager",
        "GRANT gods TO manager",
        "ALTER USER admin PASSWORD 'mine'",
        "DROP USER admin",
        "DROP ROLE gods",
        "REVOKE SYSTEM_ADMIN FROM admin",
    ] {
        manager.lacks(text, "SYSTEM_ADMIN privilege").await;
    }
    manager.run("CREATE USER IF NOT EXISTS alice; CREATE USER bob; CREATE ROLE r; GRANT r TO bob; GRANT SELECT ON s TO r").await;
    assert_eq!(manager.run("SHOW USERS").await.rows.len(), 4);
    let alice = Caller::user(&cluster, "alice", GOOD);
    let users = alice.run("SHOW USERS").await.rows;
    assert!(users.len() == 1 && users[0].starts_with("alice|password|"), "{users:?}");
    alice.lacks("SHOW GRANTS FOR manager", "SYSTEM_USER_ADMIN privilege").await;
    alice.lacks("CREATE USER mallory", "SYSTEM_USER_ADMIN privilege").await;
}

#[tokio::test]
async fn whoever_turns_an_object_elsewhere_must_be_allowed_to_use_its_credential() {
    let (cluster, admin) = scene(&["alice", "bob"]).await;
    let [alice, bob] = ["alice", "bob"].map(|name| Caller::user(&cluster, name, GOOD));
    alice.run("CREATE CREDENTIAL c TYPE = 'pair', IDENTITY = 'me', SECRET = 'hunter2'").await;
    admin.run("GRANT CREATE SINK ON SCHEMA public TO alice, bob; GRANT SELECT ON s TO alice, bob").await;
    let read = "READ privilege on credential \"public.c\"";
    bob.lacks(&sink("theirs", "s", "credential = 'c'"), read).await;
    bob.lacks("SHOW CREDENTIAL c", read).await;
    alice.run(&sink("mine", "s", "credential = 'c'")).await;
    alice.run("GRANT ADMIN ON SINK mine TO bob").await;
    bob.run("ALTER SINK mine PAUSE; ALTER SINK mine RESUME").await;
    bob.lacks("ALTER SINK mine SET (stream = '7')", read).await;
    alice.run("GRANT READ ON CREDENTIAL c TO bob").await;
    bob.run("ALTER SINK mine SET (stream = '7')").await;
    bob.lacks("DROP CREDENTIAL c", "ADMIN privilege on credential \"public.c\"").await;
    assert_eq!(
        bob.run("DROP CREDENTIAL *").await.tags,
        ["DROP CREDENTIAL"],
        "there is none that he administers"
    );
    assert_eq!(alice.run("SHOW CREDENTIALS").await.rows.len(), 1);
}

#[tokio::test]
async fn a_sink_that_one_may_not_see_still_has_its_name_at_the_service() {
    let (cluster, admin) = scene(&["bob"]).await;
    admin.run(&source("fan", "service = 'unseen names', name = 'same'")).await;
    admin.run(&sink("first", "fan", "")).await;
    admin.run("GRANT CREATE SINK ON SCHEMA public TO bob; GRANT SELECT ON SOURCE fan TO bob").await;
    let bob = Caller::user(&cluster, "bob", GOOD);
    assert!(bob.run("SHOW SINKS").await.rows.is_empty());
    let refused = bob.refused(&sink("second", "fan", "")).await;
    assert!(refused.message().contains("already reads the source as \"same\""), "{refused:?}");
}

#[tokio::test]
async fn a_credential_is_asked_for_by_the_very_name_that_is_used() {
    let (cluster, admin) = scene(&["bob"]).await;
    let pair = "TYPE = 'pair', IDENTITY = 'me', SECRET = 'hunter2'";
    admin.run(&format!("CREATE CREDENTIAL \"public.c\" {pair}; CREATE CREDENTIAL \"C\" {pair}")).await;
    admin.run("GRANT CREATE SINK ON SCHEMA public TO bob; GRANT SELECT ON s TO bob").await;
    let bob = Caller::user(&cluster, "bob", GOOD);
    bob.run(&format!("CREATE CREDENTIAL c {pair}")).await;
    for name in ["public.c", "C"] {
        let read = format!("READ privilege on credential \"public.{name}\"");
        bob.lacks(&sink("mine", "s", &format!("credential = '{name}'")), &read).await;
    }
    bob.run(&sink("mine", "s", "credential = 'c'")).await;
}
