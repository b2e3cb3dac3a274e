//! Every kind of statement and every call, each with exactly what it demands; and how rights come about.

use std::collections::{BTreeMap, BTreeSet};

use model::Privilege::{self, Admin, CreateSink, CreateSource, Read, Select, SystemAdmin, SystemUserAdmin};
use model::{Grant, Grantee, GranteeKind, ObjectId, ObjectKind, Target, Timestamp};

use super::*;
use crate::{AccessStatement, Granted, InspectTarget};

fn id(n: u128) -> ObjectId {
    ObjectId::from_parts(1, n)
}

/// Objects that are there, in both kinds of names.
fn things() -> Vec<(ObjectId, On)> {
    vec![
        (id(1), source("s")),
        (id(2), sink("k")),
        (id(3), On::Credential("c".to_owned())),
        (id(4), source("other")),
        (id(5), sink("j")),
        (id(6), On::Credential("d".to_owned())),
    ]
}

fn source(name: &str) -> On {
    On::Source(name.to_owned())
}

fn sink(name: &str) -> On {
    On::Sink(name.to_owned())
}

fn credential(name: &str) -> On {
    On::Credential(name.to_owned())
}

fn target(on: &On) -> Target {
    match on {
        On::Schema => Target::Schema,
        On::Cluster => Target::Cluster,
        on => Target::Object(things().into_iter().find(|(_, thing)| thing == on).expect("it is there").0),
    }
}

fn named(wanted: ObjectId) -> Option<On> {
    things().into_iter().find(|(id, _)| *id == wanted).map(|(_, on)| on)
}

fn grantee(n: u128, kind: GranteeKind, grants: &[(Privilege, On)]) -> Grantee {
    let mut grantee = Grantee::new(id(n), kind, Timestamp(0));
    let grant = |(privilege, on): &(Privilege, On)| Grant {
        privilege: *privilege,
        on: target(on),
        option: false,
        by: None,
    };
    grantee.grants = grants.iter().map(grant).collect();
    grantee
}

type World = BTreeMap<String, Grantee>;

fn world(all: impl IntoIterator<Item = (&'static str, Grantee)>) -> World {
    all.into_iter().map(|(name, grantee)| (name.to_owned(), grantee)).collect()
}

fn grantees(world: &World) -> Grantees<'_> {
    Grantees::new(world.iter().map(|(name, grantee)| (name.as_str(), grantee)))
}

fn rights(world: &World, name: &str) -> Rights {
    let principal =
        Principal { name: Some(name.to_owned()), id: world.get(name).map(|g| g.id), ..Principal::default() };
    Rights::of(principal, &grantees(world), named, [])
}

/// Alice with these grants, in a world with an administrator and a powerful role.
fn alice(grants: &[(Privilege, On)]) -> Rights {
    let world = world([
        ("alice", grantee(100, GranteeKind::User, grants)),
        ("root", grantee(101, GranteeKind::User, &[(SystemAdmin, On::Cluster)])),
        ("bob", grantee(102, GranteeKind::User, &[])),
        ("readers", grantee(103, GranteeKind::Role, &[])),
        ("gods", grantee(104, GranteeKind::Role, &[(SystemAdmin, On::Cluster)])),
    ]);
    rights(&world, "alice")
}

fn statement(text: &str) -> Statement {
    crate::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).remove(0).statement
}

/// The number of a statement's kind, and how many there are. A new kind does not compile until it is here, and the table below
/// fails until it has a row.
fn kind_of(statement: &Statement) -> usize {
    match statement {
        Statement::CreateSource(_) => 0,
        Statement::CreateSink(_) => 1,
        Statement::Explain(_) => 2,
        Statement::Drop { kind: ObjectKind::Source, .. } => 3,
        Statement::Drop { kind: ObjectKind::Sink | ObjectKind::Credential, .. } => 4,
        Statement::AlterSource { .. } => 5,
        Statement::AlterSink { .. } => 6,
        Statement::CreateCredential(_) => 7,
        Statement::AlterCredential { .. } => 8,
        Statement::DropCredential { .. } => 9,
        Statement::ShowCredential { .. } => 10,
        Statement::DescribeCredential { .. } => 11,
        Statement::Show { target, .. } => match target {
            InspectTarget::Sources => 12,
            InspectTarget::Sinks => 13,
            InspectTarget::Workers => 14,
            InspectTarget::Splits => 15,
            InspectTarget::Scale => 16,
            InspectTarget::Credentials => 17,
        },
        Statement::ShowCreate { kind: ObjectKind::Source, .. } => 18,
        Statement::ShowCreate { kind: ObjectKind::Sink, .. } => 19,
        Statement::ShowCreate { kind: ObjectKind::Credential, .. } => 20,
        Statement::ShowErrors { .. } => 21,
        Statement::Rebalance { explain: true } => 22,
        Statement::Rebalance { explain: false } => 23,
        Statement::Describe { .. } => 24,
        Statement::Select { .. } => 25,
        Statement::Access(access) => match access.as_ref() {
            AccessStatement::Create { kind: GranteeKind::User, .. } => 26,
            AccessStatement::Create { kind: GranteeKind::Role, .. } => 27,
            AccessStatement::AlterUser { .. } => 28,
            AccessStatement::Drop { kind: GranteeKind::User, .. } => 29,
            AccessStatement::Drop { kind: GranteeKind::Role, .. } => 30,
            AccessStatement::Grant { granted: Granted::Privileges { .. }, .. } => 31,
            AccessStatement::Grant { granted: Granted::System(_), .. } => 32,
            AccessStatement::Grant { granted: Granted::Roles(_), .. } => 33,
            AccessStatement::Revoke { granted: Granted::Privileges { .. }, .. } => 34,
            AccessStatement::Revoke { granted: Granted::System(_), .. } => 35,
            AccessStatement::Revoke { granted: Granted::Roles(_), .. } => 36,
            AccessStatement::Show(GranteeKind::User) => 37,
            AccessStatement::Show(GranteeKind::Role) => 38,
            AccessStatement::ShowGrants { .. } => 39,
            AccessStatement::ShowPrivileges => 40,
        },
    }
}

const KINDS: usize = 41;

/// Every kind of statement, with all that it needs and nothing else.
fn table() -> Vec<Row> {
    on_objects().into_iter().chain(on_people()).collect()
}

/// A statement, and what it needs.
type Row = (&'static str, Vec<(Privilege, On)>);

/// Those about sources, sinks, credentials and the cluster.
fn on_objects() -> Vec<Row> {
    vec![
        ("CREATE SOURCE n WITH (connector = 'x') FORMAT PLAIN ENCODE JSON", vec![(CreateSource, On::Schema)]),
        (
            "CREATE SOURCE n WITH (credential = 'c', dead_letter.credential = 'd') FORMAT PLAIN ENCODE JSON",
            vec![(CreateSource, On::Schema), (Read, credential("c")), (Read, credential("d"))],
        ),
        (
            "CREATE SINK n FROM s WITH (connector = 'x')",
            vec![(CreateSink, On::Schema), (Select, source("s"))],
        ),
        (
            "CREATE SINK n AS SELECT a FROM s WITH (credential = 'c')",
            vec![(CreateSink, On::Schema), (Select, source("s")), (Read, credential("c"))],
        ),
        (
            "CREATE OR REPLACE SINK n FROM s WITH (connector = 'x')",
            vec![(CreateSink, On::Schema), (Select, source("s"))],
        ),
        (
            "CREATE OR REPLACE SOURCE n WITH (connector = 'x') FORMAT PLAIN ENCODE JSON",
            vec![(CreateSource, On::Schema)],
        ),
        ("EXPLAIN CREATE SINK n FROM s WITH (connector = 'x')", vec![(Select, source("s"))]),
        ("DROP SOURCE s", vec![(Admin, source("s"))]),
        ("DROP SOURCE IF EXISTS s CASCADE", vec![(Admin, source("s"))]),
        ("DROP SINK k", vec![(Admin, sink("k"))]),
        ("ALTER SOURCE s SET (a = 'b')", vec![(Admin, source("s"))]),
        ("ALTER SOURCE s SET (credential = 'c')", vec![(Admin, source("s")), (Read, credential("c"))]),
        ("ALTER SINK k PAUSE", vec![(Admin, sink("k"))]),
        ("ALTER SINK k RESUME", vec![(Admin, sink("k"))]),
        ("ALTER SINK k SET (a = 'b')", vec![(Admin, sink("k"))]),
        ("ALTER SINK k SET (\"credential\" = 'c')", vec![(Admin, sink("k")), (Read, credential("c"))]),
        ("CREATE CREDENTIAL n TYPE = 'x', IDENTITY = 'i', SECRET = 's'", vec![]),
        ("ALTER CREDENTIAL c SET PROPERTY SECRET = 's'", vec![(Admin, credential("c"))]),
        ("DROP CREDENTIAL c", vec![(Admin, credential("c"))]),
        ("DROP CREDENTIAL *", vec![]),
        ("SHOW CREDENTIAL c", vec![(Read, credential("c"))]),
        ("SHOW CREDENTIAL *", vec![]),
        ("DESCRIBE CREDENTIAL c", vec![(Read, credential("c"))]),
        ("SHOW SOURCES", vec![]),
        ("SHOW SINKS", vec![]),
        ("SHOW CREDENTIALS", vec![]),
        ("SHOW WORKERS", vec![(Select, On::Cluster)]),
        ("SHOW SPLITS", vec![]),
        ("SHOW SPLITS FROM s", vec![(Select, source("s"))]),
        ("SHOW SCALE", vec![(Select, On::Cluster)]),
        ("SHOW CREATE SOURCE s", vec![(Select, source("s"))]),
        ("SHOW CREATE SINK k", vec![(Select, sink("k"))]),
        ("SHOW CREATE CREDENTIAL c", vec![(Read, credential("c"))]),
        ("SHOW ERRORS FOR s", vec![(Select, source("s"))]),
        ("EXPLAIN REBALANCE", vec![(Select, On::Cluster)]),
        ("REBALANCE", vec![(Admin, On::Cluster)]),
        ("DESCRIBE s", vec![(Select, source("s"))]),
        ("DESCRIBE s_progress", vec![(Select, source("s"))]),
        ("DESCRIBE sys.source_errors", vec![]),
        ("SELECT * FROM s_progress", vec![(Select, source("s"))]),
        ("SELECT * FROM s_progress, other_progress", vec![(Select, source("s")), (Select, source("other"))]),
        ("SELECT * FROM sys.source_errors", vec![]),
    ]
}

/// Those about users, roles and grants.
fn on_people() -> Vec<Row> {
    let users = || vec![(SystemUserAdmin, On::Cluster)];
    let all = || vec![(SystemAdmin, On::Cluster)];
    vec![
        ("CREATE USER n PASSWORD 'p'", users()),
        ("CREATE ROLE n", users()),
        ("ALTER USER bob PASSWORD 'p'", users()),
        ("ALTER USER root PASSWORD 'p'", all()),
        ("DROP USER bob", users()),
        ("DROP USER root", all()),
        ("DROP ROLE readers", users()),
        ("DROP ROLE gods", all()),
        ("GRANT SELECT ON SOURCE s TO bob", vec![(Admin, source("s"))]),
        ("GRANT SELECT, ADMIN ON s TO bob WITH GRANT OPTION", vec![(Admin, source("s"))]),
        ("GRANT ADMIN ON SINK k TO bob", vec![(Admin, sink("k"))]),
        ("GRANT READ ON CREDENTIAL c TO bob", vec![(Admin, credential("c"))]),
        ("GRANT CREATE SOURCE, CREATE SINK ON SCHEMA public TO bob", users()),
        ("GRANT SELECT ON CLUSTER TO bob", vec![(Admin, On::Cluster)]),
        ("GRANT SYSTEM_ADMIN TO bob", all()),
        ("GRANT SYSTEM_USER_ADMIN TO bob", all()),
        ("GRANT readers TO bob", users()),
        ("GRANT gods TO bob", all()),
        ("REVOKE SELECT ON SOURCE s FROM bob CASCADE", vec![(Admin, source("s"))]),
        ("REVOKE SYSTEM_ADMIN FROM root", all()),
        ("REVOKE readers FROM bob", users()),
        ("REVOKE gods FROM root", all()),
        ("SHOW USERS", vec![]),
        ("SHOW ROLES", vec![]),
        ("SHOW GRANTS", vec![]),
        ("SHOW GRANTS FOR bob", users()),
        ("SHOW GRANTS FOR alice", vec![]),
        ("SHOW PRIVILEGES", vec![]),
    ]
}

fn words(privilege: Privilege, on: &On) -> String {
    match privilege {
        SystemAdmin | SystemUserAdmin => {
            format!("Permission denied: {} privilege is required", privilege.as_str())
        }
        _ => format!("Permission denied: {} privilege on {on} is required", privilege.as_str()),
    }
}

#[test]
fn every_statement_is_allowed_with_what_it_needs_and_refused_without_any_part_of_it() {
    let mut seen = BTreeSet::new();
    for (text, needs) in table() {
        let statement = statement(text);
        seen.insert(kind_of(&statement));
        let touched = Touched::default();
        let ask = |rights: &Rights| authorize(Deed::Statement(&statement, &touched), rights);
        assert_eq!(ask(&alice(&needs)), Ok(()), "{text}");
        assert_eq!(ask(&alice(&[(SystemAdmin, On::Cluster)])), Ok(()), "{text}: an administrator may");
        for missing in 0..needs.len() {
            let mut rest = needs.clone();
            let (privilege, on) = rest.remove(missing);
            let refused = ask(&alice(&rest)).expect_err(text);
            assert_eq!(refused.code, Code::Denied, "{text}: {refused}");
            assert_eq!(refused.message, expected(text, privilege, &on), "{text}");
        }
    }
    let missing: Vec<usize> = (0..KINDS).filter(|kind| !seen.contains(kind)).collect();
    assert!(missing.is_empty(), "kinds of statements without a row: {missing:?}");
}

/// Who may not grant in a schema is told of ADMIN there, though only administrators have it.
fn expected(text: &str, privilege: Privilege, on: &On) -> String {
    if text.starts_with("GRANT CREATE") { words(Admin, &On::Schema) } else { words(privilege, on) }
}

#[test]
fn every_call_is_allowed_with_what_it_needs_and_refused_without() {
    let row = |call: Call<'static>| -> (Call<'static>, Vec<(Privilege, On)>) {
        match call {
            Call::Execute | Call::Status => (call, vec![]),
            Call::ListSplits { .. } => (
                Call::ListSplits { source: "s", sink: "k" },
                vec![(Select, source("s")), (Select, sink("k"))],
            ),
            Call::ListWorkers | Call::Scale | Call::WatchEvents => (call, vec![(Select, On::Cluster)]),
            Call::DescribeSplit { .. } => (Call::DescribeSplit { source: "s" }, vec![(Select, source("s"))]),
            Call::ListErrors { .. } => (Call::ListErrors { name: "s" }, vec![(Select, source("s"))]),
            Call::DrainWorker => (call, vec![(Admin, On::Cluster)]),
            Call::PauseSink { .. } => (Call::PauseSink { sink: "k" }, vec![(Admin, sink("k"))]),
            Call::ResumeSink { .. } => (Call::ResumeSink { sink: "k" }, vec![(Admin, sink("k"))]),
            Call::ResetPosition { .. } => (Call::ResetPosition { sink: "k" }, vec![(Admin, sink("k"))]),
            Call::RotateSecrets => (call, vec![(SystemAdmin, On::Cluster)]),
        }
    };
    for (call, needs) in Call::ALL.map(row) {
        assert_eq!(authorize(Deed::Call(call), &alice(&needs)), Ok(()), "{call:?}");
        for missing in 0..needs.len() {
            let mut rest = needs.clone();
            let (privilege, on) = rest.remove(missing);
            let refused = authorize(Deed::Call(call), &alice(&rest)).expect_err(call.name());
            assert_eq!((refused.code, refused.message), (Code::Denied, words(privilege, &on)), "{call:?}");
        }
    }
}

#[test]
fn what_a_statement_touches_besides_counts() {
    let ask = |text: &str, touched: Touched, grants: &[(Privilege, On)]| {
        authorize(Deed::Statement(&statement(text), &touched), &alice(grants)).map_err(|error| error.message)
    };
    let dependents = || Touched { dependents: vec!["k".to_owned(), "j".to_owned()], ..Touched::default() };
    let cascade = "DROP SOURCE s CASCADE";
    assert_eq!(
        ask(cascade, dependents(), &[(Admin, source("s")), (Admin, sink("k"))]),
        Err(words(Admin, &sink("j")))
    );
    assert_eq!(
        ask(cascade, dependents(), &[(Admin, source("s")), (Admin, sink("k")), (Admin, sink("j"))]),
        Ok(())
    );
    let kept = || Touched { credentials: vec!["c".to_owned()], ..Touched::default() };
    let elsewhere = "ALTER SINK k SET (endpoint = 'http://elsewhere')";
    assert_eq!(ask(elsewhere, kept(), &[(Admin, sink("k"))]), Err(words(Read, &credential("c"))));
    assert_eq!(ask("ALTER SINK k PAUSE", Touched::default(), &[(Admin, sink("k"))]), Ok(()));
    let replaces = Touched { replaces: Some(credential("c")), ..Touched::default() };
    let replace = "CREATE OR REPLACE CREDENTIAL c TYPE = 'x', IDENTITY = 'i', SECRET = 's'";
    assert_eq!(ask(replace, replaces, &[(Read, credential("c"))]), Err(words(Admin, &credential("c"))));
}

#[test]
fn to_replace_takes_what_to_change_takes_and_to_create_what_that_takes() {
    let with = "WITH (credential = 'c')";
    let rows = [
        (format!("CREATE OR REPLACE SOURCE s {with} FORMAT PLAIN ENCODE JSON"), source("s"), vec![]),
        (format!("CREATE OR REPLACE SINK k FROM s {with}"), sink("k"), vec![(Select, source("s"))]),
    ];
    for (text, on, reads) in rows {
        let statement = statement(&text);
        let ask = |touched: &Touched, needs: &[(Privilege, On)]| {
            authorize(Deed::Statement(&statement, touched), &alice(needs)).map_err(|error| error.message)
        };
        let create = if matches!(on, On::Sink(_)) { CreateSink } else { CreateSource };
        let absent = [vec![(create, On::Schema), (Read, credential("c"))], reads.clone()].concat();
        // What it names now counts like what it will name.
        let there =
            Touched { credentials: vec!["d".to_owned()], replaces: Some(on.clone()), ..Touched::default() };
        let present =
            [vec![(Admin, on.clone()), (Read, credential("c")), (Read, credential("d"))], reads].concat();
        for (touched, needs) in [(Touched::default(), absent), (there, present)] {
            assert_eq!(ask(&touched, &needs), Ok(()), "{text}");
            for missing in 0..needs.len() {
                let mut rest = needs.clone();
                let (privilege, lacked) = rest.remove(missing);
                assert_eq!(ask(&touched, &rest), Err(words(privilege, &lacked)), "{text}");
            }
        }
    }
    let explain = statement("EXPLAIN CREATE OR REPLACE SINK k FROM s WITH (connector = 'x')");
    let touched = Touched { replaces: Some(sink("k")), ..Touched::default() };
    let ask = |needs: &[(Privilege, On)]| {
        authorize(Deed::Statement(&explain, &touched), &alice(needs)).map_err(|error| error.message)
    };
    assert_eq!(ask(&[(Select, source("s"))]), Err(words(Select, &sink("k"))));
    assert_eq!(ask(&[(Select, source("s")), (Select, sink("k"))]), Ok(()));
}

#[test]
fn admin_includes_the_others_on_the_same_object_and_nothing_elsewhere() {
    let rights = alice(&[(Admin, source("s")), (Admin, credential("c")), (Admin, On::Cluster)]);
    assert!(
        rights.has(Select, &source("s"))
            && rights.has(Read, &credential("c"))
            && rights.has(Select, &On::Cluster)
    );
    assert!(!rights.has(Select, &source("other")) && !rights.has(Select, &sink("k")));
    assert!(!rights.has(CreateSource, &On::Schema));
    assert!(rights.sees(&source("s")) && !rights.sees(&source("other")));
}

#[test]
fn an_owner_may_do_everything_with_what_is_its_own() {
    let world = world([("alice", grantee(100, GranteeKind::User, &[]))]);
    let principal = Principal { name: Some("alice".to_owned()), id: Some(id(100)), ..Principal::default() };
    let rights = Rights::of(principal, &grantees(&world), named, [sink("k")]);
    assert!(rights.has(Admin, &sink("k")) && rights.may_give(Admin, &sink("k")) && rights.sees(&sink("k")));
    assert_eq!(rights.support(Select, &sink("k")), Some(Support::Own));
    assert!(!rights.sees(&sink("j")));
}

#[test]
fn roles_nest_and_circles_end() {
    let mut all = world([
        ("alice", grantee(100, GranteeKind::User, &[])),
        ("outer", grantee(1, GranteeKind::Role, &[(Select, source("s"))])),
        ("inner", grantee(2, GranteeKind::Role, &[(Admin, sink("k"))])),
    ]);
    all.get_mut("alice").unwrap().roles.insert(id(1));
    all.get_mut("outer").unwrap().roles.insert(id(2));
    all.get_mut("inner").unwrap().roles.insert(id(1));
    let alice = rights(&all, "alice");
    assert!(alice.has(Select, &source("s")) && alice.has(Admin, &sink("k")));
    assert!(alice.is_mine("inner") && !alice.is_mine("bob"));
    // A role that is gone gives nothing, and a user is no role.
    all.remove("inner");
    assert!(!rights(&all, "alice").has(Admin, &sink("k")));
    all.insert("bob".to_owned(), grantee(2, GranteeKind::User, &[(Admin, sink("k"))]));
    assert!(!rights(&all, "alice").has(Admin, &sink("k")), "the id is that of a user now");
}

fn passed_on(privilege: Privilege, on: &On, option: bool, by: u128) -> Grant {
    Grant { privilege, on: target(on), option, by: Some(id(by)) }
}

#[test]
fn what_was_passed_on_counts_while_its_giver_has_it() {
    let mut all = world([
        ("a", grantee(100, GranteeKind::User, &[(Select, source("s"))])),
        ("b", grantee(101, GranteeKind::User, &[])),
        ("c", grantee(102, GranteeKind::User, &[])),
    ]);
    all.get_mut("b").unwrap().grants.push(passed_on(Select, &source("s"), true, 100));
    all.get_mut("c").unwrap().grants.push(passed_on(Select, &source("s"), false, 101));
    assert!(!rights(&all, "b").has(Select, &source("s")), "a may look, not give");
    all.get_mut("a").unwrap().grants[0].option = true;
    assert!(rights(&all, "b").has(Select, &source("s")) && rights(&all, "c").has(Select, &source("s")));
    all.remove("a");
    assert!(!rights(&all, "c").has(Select, &source("s")), "the root of it is gone");
    // Two who give to each other hold nobody up.
    all.get_mut("b").unwrap().grants = vec![passed_on(Select, &source("s"), true, 102)];
    all.get_mut("c").unwrap().grants = vec![passed_on(Select, &source("s"), true, 101)];
    assert!(!rights(&all, "b").has(Select, &source("s")) && !rights(&all, "c").has(Select, &source("s")));
}

#[test]
fn revoke_tells_what_rests_on_it_and_takes_it_along() {
    let mut all = world([
        ("a", grantee(100, GranteeKind::User, &[(Select, source("s"))])),
        ("b", grantee(101, GranteeKind::User, &[])),
        ("c", grantee(102, GranteeKind::User, &[(Select, source("s"))])),
    ]);
    all.get_mut("a").unwrap().grants[0].option = true;
    all.get_mut("b").unwrap().grants.push(passed_on(Select, &source("s"), false, 100));
    all.get_mut("c").unwrap().grants.push(passed_on(Select, &source("s"), false, 100));
    let revocation = |from: &str, by: Option<u128>, option_only| Revocation {
        from: from.to_owned(),
        privileges: vec![Select, Admin],
        on: target(&source("s")),
        by: by.map(id),
        option_only,
    };
    for option_only in [false, true] {
        let revoked = revocation("a", None, option_only).work_out(&all);
        let names: Vec<&str> = revoked.dependents.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, revoked.absent.as_slice()), (vec!["b", "c"], &[Admin][..]));
        assert!(revoked.changed["b"].grants.is_empty());
        assert_eq!(revoked.changed["c"].grants.len(), 1, "what an administrator gave stays");
        assert_eq!(revoked.changed["a"].grants.len(), usize::from(option_only));
    }
    // Who may only pass it on takes only what he passed on.
    let revoked = revocation("c", Some(100), false).work_out(&all);
    assert_eq!(revoked.changed["c"].grants.len(), 1);
    assert_eq!(revocation("c", Some(101), false).work_out(&all).absent, [Select, Admin]);
    assert!(revocation("nobody", None, false).work_out(&all).changed.is_empty());
}

#[test]
fn with_grant_option_one_gives_that_privilege_and_no_other() {
    let mut all = world([("a", grantee(100, GranteeKind::User, &[(Select, source("s"))]))]);
    all.get_mut("a").unwrap().grants[0].option = true;
    let rights = rights(&all, "a");
    assert_eq!(rights.support(Select, &source("s")), Some(Support::Of(id(100))));
    assert_eq!(rights.support(Admin, &source("s")), None);
    assert!(!rights.may_give(Select, &source("other")));
}

#[test]
fn only_who_showed_a_password_changes_its_own() {
    let all =
        world([("a", grantee(100, GranteeKind::User, &[])), ("b", grantee(101, GranteeKind::User, &[]))]);
    let ask = |name: &str, by_password| {
        let principal =
            Principal { name: Some("a".to_owned()), id: Some(id(100)), by_password, ..Principal::default() };
        let rights = Rights::of(principal, &grantees(&all), named, []);
        let statement = statement(&format!("ALTER USER {name} PASSWORD 'p'"));
        authorize(Deed::Statement(&statement, &Touched::default()), &rights)
    };
    assert!(ask("a", true).is_ok());
    assert!(ask("a", false).is_err() && ask("b", true).is_err());
}

#[test]
fn who_manages_users_manages_no_objects_and_no_administrators() {
    let rights = alice(&[(SystemUserAdmin, On::Cluster)]);
    assert!(!rights.has(Select, &source("s")) && !rights.sees(&source("s")));
    assert!(rights.has(Admin, &credential("c")), "credentials are part of the office");
    assert!(rights.is_powerful("root") && rights.is_powerful("gods") && !rights.is_powerful("bob"));
}

#[test]
fn whether_an_object_is_there_is_not_said_to_who_may_not_know() {
    let ask = |name: &str| {
        let statement = statement(&format!("DROP SOURCE {name}"));
        authorize(Deed::Statement(&statement, &Touched::default()), &alice(&[])).unwrap_err()
    };
    let (there, not) = (ask("s"), ask("nowhere"));
    assert_eq!(there.message.replace("public.s\"", "x"), not.message.replace("public.nowhere\"", "x"));
    assert_eq!(there.hint, not.hint);
}

#[test]
fn statements_print_and_parse_back_and_passwords_are_stars() {
    for (text, _) in table() {
        let statement = statement(text);
        if let Statement::Access(access) = &statement {
            let printed = statement.to_string();
            let again = crate::parse(&printed).unwrap().remove(0).statement;
            assert_eq!(again.to_string(), printed, "{text}");
            if !printed.contains("PASSWORD") {
                assert_eq!(again, statement, "{text}");
            }
            assert_eq!(access.tag(), statement.tag());
        }
    }
    for text in [
        "CREATE USER n WITH PASSWORD 'hunter2'",
        "ALTER USER n PASSWORD E'hunter2'",
        "create user n password\n'hunter2' x",
    ] {
        match crate::parse(text) {
            Ok(parsed) => {
                let statement = &parsed[0].statement;
                let shown = format!("{statement} {statement:?} {}", statement.summary());
                assert!(!shown.contains("hunter2") && shown.contains("********"), "{shown}");
            }
            Err(error) => assert!(!format!("{error:?} {error}").contains("hunter2"), "{error}"),
        }
    }
}

#[test]
fn what_cannot_be_granted_is_refused_with_what_can() {
    for (text, wanted) in [
        ("GRANT INSERT ON SOURCE s TO a", "INSERT privilege on a source"),
        ("GRANT READ ON SINK k TO a", "READ privilege on a sink"),
        ("GRANT CONNECT ON DATA SINK k TO a", "GRANT ON DATA SINK"),
        ("GRANT SYSTEM_ADMIN, readers TO a", "SYSTEM_ADMIN among roles"),
        ("GRANT readers TO a WITH GRANT OPTION", "WITH GRANT OPTION"),
        ("GRANT CREATE SOURCE ON SOURCE s TO a", "CREATE SOURCE privilege on a source"),
    ] {
        let error = crate::parse(text).unwrap_err();
        assert_eq!(error.code, Code::Unsupported, "{text}: {error}");
        assert!(error.message.contains(wanted), "{text}: {error}");
    }
}
