//! `CREATE | ALTER | DROP | SHOW | DESCRIBE CREDENTIAL`: what parses, what is refused, and that no secret is in any of it.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

#[allow(dead_code, reason = "other tests use the rest of it")]
mod fakes;

use std::sync::Arc;

use connector::{Credentials, Registry};
use model::{CredentialSpec, SinkSpec};
use shardwright_sql as sql;
use sql::{Code, Error, InspectTarget, Statement};

const SECRET: &str = "hunter2";

fn parsed(text: &str) -> Statement {
    sql::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).remove(0).statement
}

fn bind(text: &str) -> Result<CredentialSpec, Error> {
    match sql::parse(text)?.remove(0).statement {
        Statement::CreateCredential(create) => sql::bind_credential(&create, &fakes::registry()),
        other => panic!("{other:?}"),
    }
}

fn refused(text: &str) -> Error {
    let error = bind(text).err().unwrap_or_else(|| panic!("accepted: {text}"));
    assert!(!format!("{error} {error:?}").contains(SECRET), "{error}");
    error
}

fn known() -> CredentialSpec {
    bind("create credential c type = 'aws_access_key', identity = 'AKIA', secret = 'hunter2'").unwrap()
}

fn with(spec: CredentialSpec) -> Registry {
    let credentials: Credentials = [(spec.name.clone(), spec)].into_iter().collect();
    fakes::registry().with_credentials(Arc::new(credentials))
}

fn sink(text: &str, registry: &Registry) -> Result<SinkSpec, Error> {
    match sql::parse(text)?.remove(0).statement {
        Statement::CreateSink(create) => {
            sql::bind_sink(&create, registry, &fakes::source()).map(|bound| bound.spec)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_credential_may_be_written_in_many_ways() {
    for text in [
        "CREATE CREDENTIAL c TYPE = 'aws_access_key', IDENTITY = 'AKIA', SECRET = 'hunter2'",
        "create credential public.c type='aws_access_key', secret=E'hunter2', identity='AKIA';",
        "CREATE OR REPLACE CREDENTIAL c TYPE = 'aws_access_key', IDENTITY = 'AKIA', SECRET = 'hunter2',",
        "CREATE CREDENTIAL IF NOT EXISTS c TYPE = 'aws_access_key', WITH OPTIONS (IDENTITY = 'AKIA', 'secret' = 'hunter2',)",
    ] {
        let spec = bind(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(spec.options, known().options, "{text}");
    }
    let text = "CREATE CREDENTIAL c TYPE='aws_access_key', IDENTITY='A', SECRET='S' WITH OPTIONS (TENANT ID = 'b', \
                SESSION_TOKEN = 't')";
    let spec = bind(text).unwrap();
    assert_eq!((spec.options.get("tenant id"), spec.options.get("session_token")), (Some("b"), Some("t")));
}

#[test]
fn what_is_wrong_with_a_credential_is_said_where_it_stands() {
    let error = refused("create credential c type = 'nope', secret = 'hunter2'");
    assert_eq!((error.code, error.line, error.column), (Code::Config, Some(1), Some(21)));
    assert!(error.message.contains("unsupported credential type \"nope\""), "{error}");
    let error = refused("create credential c type = 'aws_access_key', secret = 'hunter2'");
    assert!(
        error.message.contains("missing option `IDENTITY` for credential type aws_access_key"),
        "{error}"
    );
    let base = "create credential c type = 'aws_access_key', identity = 'A', secret = 'hunter2'";
    let error = refused(&format!("{base} with options (session_tok = 'hunter2')"));
    assert!(error.message.contains("unknown credential option `session_tok`"), "{error}");
    assert_eq!(error.hint.as_deref(), Some("did you mean `session_token`?"));
    let error = refused(&format!("{base} with options (tenant id = 'c')"));
    assert!(error.message.contains("invalid value for option `tenant id`: expected one of a|b"), "{error}");
    let error = refused(&format!("{base} with options (secret = 'hunter2')"));
    assert!(error.message.contains("duplicate option `secret`"), "{error}");
    let error = refused("create credential c identity = 'A', secret = 'hunter2'");
    assert!(error.message.contains("has no TYPE"), "{error}");
    for text in
        ["create credential c type = 'k', secret = 'hunter2' x", "create credential c secret 'hunter2'"]
    {
        assert_eq!(refused(text).code, Code::Syntax, "{text}");
    }
}

#[test]
fn statements_print_back_without_their_secrets() {
    for text in [
        "CREATE OR REPLACE CREDENTIAL c TYPE = 'aws_access_key', IDENTITY = 'AKIA', SECRET = '********' WITH OPTIONS \
         ('session_token' = '********', 'tenant id' = 'a')",
        "CREATE CREDENTIAL IF NOT EXISTS c TYPE = 'aws_access_key'",
        "ALTER CREDENTIAL c SET PROPERTY 'secret' = '********', 'type' = 'x'",
        "DROP CREDENTIAL IF EXISTS c",
        "DROP CREDENTIAL *",
        "SHOW CREDENTIAL c",
        "SHOW CREDENTIAL *",
        "SHOW CREATE CREDENTIAL c",
        "SHOW CREDENTIALS LIKE 'a%'",
        "DESCRIBE CREDENTIAL *",
    ] {
        let statement = parsed(text);
        assert_eq!(statement.to_string(), text);
        assert_eq!(parsed(&statement.to_string()), statement);
    }
    let secret = parsed(
        "CREATE CREDENTIAL c TYPE = 't', SECRET = 'hunter2' WITH OPTIONS ('sasl.password' = 'hunter2')",
    );
    assert!(!format!("{secret} {secret:?}").contains(SECRET));
    let change = parsed("ALTER CREDENTIAL c SET PROPERTY SECRET = 'hunter2', sasl.password = 'hunter2'");
    assert!(!format!("{change} {change:?}").contains(SECRET));
    // A relation may have the name.
    assert!(matches!(parsed("DESCRIBE credential"), Statement::Describe { .. }));
    assert!(matches!(
        parsed("SHOW CREDENTIALS"),
        Statement::Show { target: InspectTarget::Credentials, from: None, like: None }
    ));
}

#[test]
fn the_ddl_of_a_credential_makes_it_again_but_for_its_secrets() {
    let text = "create credential \"My c\" type='aws_access_key', identity='AK''IA', secret='hunter2' with options (session_token='t')";
    let spec = bind(text).unwrap();
    let ddl = sql::credential_ddl(&spec);
    assert_eq!(
        ddl,
        "CREATE CREDENTIAL \"public\".\"My c\"\nTYPE = 'aws_access_key',\nIDENTITY = 'AK''IA',\nSECRET = '********'\n\
         WITH OPTIONS ('session_token' = '********')"
    );
    assert_eq!(bind(&ddl).unwrap().options.get("identity"), Some("AK'IA"));
}

#[test]
fn alter_changes_what_it_names_and_checks_the_whole() {
    let alter = |text: &str| match parsed(text) {
        Statement::AlterCredential { changes, .. } => {
            sql::alter_credential(&known(), &changes, &fakes::registry())
        }
        other => panic!("{other:?}"),
    };
    let changed = alter("alter credential c set property secret = 'new', 'session_token' = 't'").unwrap();
    let parts: Vec<_> = changed.options.iter().collect();
    assert_eq!(parts, [("identity", "AKIA"), ("secret", "new"), ("session_token", "t")]);
    let error = alter("alter credential c set property secret = ''").unwrap_err();
    assert!(error.message.contains("missing option `SECRET`"), "{error}");
    let error = alter("alter credential c set property type = 'nope'").unwrap_err();
    assert!(error.message.contains("unsupported credential type"), "{error}");
    assert_eq!(sql::parse("alter credential c set secret = 'hunter2'").unwrap_err().code, Code::Syntax);
}

#[test]
fn a_sink_may_name_a_credential_and_nothing_that_it_says() {
    let registry = with(known());
    let text = |more: &str| {
        format!(
            "create sink k from s with (connector = 'kinesis', stream = 'out', primary_key = 'id'{more}) format plain encode json"
        )
    };
    let spec = sink(&text(", credential = 'c'"), &registry).unwrap();
    assert_eq!(spec.options.get("credential"), Some("c"));
    assert!(spec.options.get("aws.credentials.secret_access_key").is_none(), "{:?}", spec.options);
    let sent = registry.expanded_sink(&spec).unwrap();
    assert_eq!(sent.options.get("aws.credentials.secret_access_key"), Some(SECRET));
    assert!(sent.options.get("credential").is_none());
    let error =
        sink(&text(", credential = 'c', aws.credentials.access_key_id = 'A'"), &registry).unwrap_err();
    assert!(error.message.contains("credential and aws.credentials.* are mutually exclusive"), "{error}");
    let error = sink(&text(", credential = 'd'"), &registry).unwrap_err();
    assert!(error.message.contains("credential \"d\" does not exist"), "{error}");
    let error =
        sink("create sink k from s with (connector = 'void', credential = 'c')", &registry).unwrap_err();
    assert!(
        error.message.contains("credential type aws_access_key cannot be used with connector void"),
        "{error}"
    );
}

#[test]
fn altering_to_a_credential_takes_the_place_of_keys_and_back() {
    let registry = with(known());
    let text = "create sink k from s with (connector = 'kinesis', stream = 'out', primary_key = 'id', \
                aws.credentials.access_key_id = 'A', aws.credentials.secret_access_key = 'B') format plain encode json";
    let spec = sink(text, &registry).unwrap();
    let set = |spec: &SinkSpec, text: &str| match parsed(&format!("alter sink k set ({text})")) {
        Statement::AlterSink { change: sql::SinkChange::Set(options), .. } => {
            sql::alter_sink(spec, &options, &registry).unwrap()
        }
        other => panic!("{other:?}"),
    };
    let named = set(&spec, "credential = 'c'");
    let names: Vec<_> = named.options.iter().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(names, ["credential", "stream"]);
    let back = set(&named, "aws.credentials.access_key_id = 'A', aws.credentials.secret_access_key = 'B'");
    assert_eq!(back.options, spec.options);
}
