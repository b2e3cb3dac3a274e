//! Credentials, as Kinetica writes them (docs/sql.md, Credentials): the statements, and what becomes of them.
//!
//! ```text
//! CREATE [OR REPLACE] CREDENTIAL [IF NOT EXISTS] name TYPE = '…' [, IDENTITY = '…'] [, SECRET = '…'] [,] [WITH OPTIONS ( … )]
//! ALTER CREDENTIAL name SET PROPERTY option = value, …
//! DROP | SHOW | DESCRIBE CREDENTIAL name | *
//! ```
//!
//! `IDENTITY` and `SECRET` are options like any other, called `identity` and `secret`; names are folded to lower case.

use std::fmt::Write as _;

use connector::{IDENTITY, OptionError, Registry, SECRET};
use model::{CredentialSpec, ObjectId, ObjectKind, Options, Timestamp, shown_value};

use crate::{
    Code, CreateCredential, Error, ObjectName, OptionEntry, Place, Result, Statement,
    bind::check_name,
    grammar::{object_name, option_value},
    lexer::{Cursor, Token},
    print::ident,
};

/// What `TYPE` is called among the changes of `ALTER CREDENTIAL`.
const TYPE: &str = "type";

/// Behind `CREATE CREDENTIAL`.
pub(crate) fn create(cursor: &mut Cursor, or_replace: bool) -> Result<Statement> {
    let if_not_exists = cursor.eat_all(&["if", "not", "exists"]);
    let name = object_name(cursor)?;
    let (mut kind, mut options) = (None, Vec::new());
    loop {
        let place = cursor.place();
        if cursor.eat(TYPE) {
            cursor.expect_token(&Token::Eq)?;
            kind = Some((cursor.string()?, place));
        } else if let Some(part) = [IDENTITY, SECRET].into_iter().find(|part| cursor.at_keyword(part)) {
            cursor.take();
            cursor.expect_token(&Token::Eq)?;
            options.push(OptionEntry { name: part.to_owned(), value: cursor.string()?, place });
        } else {
            let what = "TYPE, IDENTITY, SECRET or WITH OPTIONS";
            return Err(cursor.expected_keyword(what, &["TYPE", "IDENTITY", "SECRET", "WITH OPTIONS"]));
        }
        let comma = cursor.eat_token(&Token::Comma);
        if cursor.eat("with") {
            cursor.expect("options")?;
            options.extend(parenthesized(cursor)?);
            break;
        }
        if !comma || cursor.at_end() || cursor.peek() == &Token::SemiColon {
            break;
        }
    }
    let Some((kind, place)) = kind else {
        let error = Error::new(Code::Syntax, format!("credential \"{}\" has no TYPE", name.name));
        return Err(error
            .at(name.place)
            .hint("CREATE CREDENTIAL name TYPE = 'aws_access_key', IDENTITY = …"));
    };
    let create = CreateCredential { or_replace, if_not_exists, name, kind, place, options };
    Ok(Statement::CreateCredential(Box::new(create)))
}

/// Behind `ALTER CREDENTIAL`.
pub(crate) fn alter(cursor: &mut Cursor) -> Result<Statement> {
    let name = object_name(cursor)?;
    cursor.expect("set")?;
    cursor.expect("property")?;
    let mut changes = vec![entry(cursor)?];
    while cursor.eat_token(&Token::Comma) {
        changes.push(entry(cursor)?);
    }
    Ok(Statement::AlterCredential { name, changes })
}

/// `name | *`
pub(crate) fn one_or_all(cursor: &mut Cursor) -> Result<Option<ObjectName>> {
    if cursor.eat_token(&Token::Mul) { Ok(None) } else { object_name(cursor).map(Some) }
}

/// `( option = value, … [,] )`
fn parenthesized(cursor: &mut Cursor) -> Result<Vec<OptionEntry>> {
    cursor.expect_token(&Token::LParen)?;
    let mut options = Vec::new();
    loop {
        if cursor.eat_token(&Token::RParen) {
            return Ok(options);
        }
        options.push(entry(cursor)?);
        if !cursor.eat_token(&Token::Comma) {
            cursor.expect_token(&Token::RParen)?;
            return Ok(options);
        }
    }
}

/// `name = value`, where the name may be some words, a dotted name or a string.
fn entry(cursor: &mut Cursor) -> Result<OptionEntry> {
    let place = cursor.place();
    let mut name = String::new();
    loop {
        match cursor.peek() {
            Token::SingleQuotedString(_) if name.is_empty() => name = cursor.string()?,
            Token::Word(word) => {
                if !name.is_empty() && !name.ends_with('.') {
                    name.push(' ');
                }
                name.push_str(&word.value);
                cursor.take();
            }
            Token::Period if !name.is_empty() => {
                name.push('.');
                cursor.take();
            }
            Token::Eq if !name.is_empty() => break,
            _ => return Err(cursor.expected("option name and =")),
        }
    }
    cursor.expect_token(&Token::Eq)?;
    let value = option_value(cursor)?;
    Ok(OptionEntry { name: name.to_ascii_lowercase(), value, place })
}

/// Binds `CREATE CREDENTIAL`: id, times and revision are the leader's to fill in. Nothing outside is asked.
///
/// # Errors
/// An unknown type, a part that is unknown, wrong or missing.
pub fn bind_credential(create: &CreateCredential, registry: &Registry) -> Result<CredentialSpec> {
    check_name(ObjectKind::Credential, &create.name)?;
    let kind = registry
        .credential(&create.kind)
        .map_err(|e| Error::of_option(Code::Config, &e).at(create.place).option("TYPE"))?;
    let mut options = Options::default();
    for entry in &create.options {
        let name = kind.canonical(&entry.name).unwrap_or(&entry.name);
        if options.insert(name, &entry.value).is_some() {
            return Err(twice(entry));
        }
    }
    let spec = CredentialSpec {
        id: ObjectId::from_parts(0, 0),
        name: create.name.name.clone(),
        kind: create.kind.clone(),
        options,
        created_at: Timestamp(0),
        revision: 0,
        renewal_due: false,
    };
    registry.expand(&spec).map_err(|e| refused(&create.options, create.place, &e))?;
    Ok(spec)
}

/// The credential with these parts replaced. The revision is the leader's to raise. An empty value takes an option away.
///
/// # Errors
/// As [`bind_credential`].
pub fn alter_credential(
    spec: &CredentialSpec,
    changes: &[OptionEntry],
    registry: &Registry,
) -> Result<CredentialSpec> {
    let mut changed = spec.clone();
    let place = changes.first().map(|entry| entry.place).unwrap_or_default();
    if let Some(entry) = changes.iter().find(|entry| entry.name == TYPE) {
        changed.kind.clone_from(&entry.value);
    }
    let kind = registry
        .credential(&changed.kind)
        .map_err(|e| Error::of_option(Code::Config, &e).at(place).option("TYPE"))?;
    let mut seen = Vec::new();
    for entry in changes {
        let name = kind.canonical(&entry.name).unwrap_or(&entry.name);
        if seen.contains(&name) {
            return Err(twice(entry));
        }
        seen.push(name);
        match name {
            TYPE => {}
            name if entry.value.is_empty() && kind.canonical(name).is_some() => {
                drop(changed.options.remove(name))
            }
            name => drop(changed.options.insert(name, &entry.value)),
        }
    }
    registry.expand(&changed).map_err(|e| refused(changes, place, &e))?;
    Ok(changed)
}

fn twice(entry: &OptionEntry) -> Error {
    let text = format!("duplicate option `{}`", entry.name);
    Error::new(Code::Config, text).at(entry.place).option(&entry.name)
}

/// The refusal, at the option that it names.
fn refused(entries: &[OptionEntry], place: Place, error: &OptionError) -> Error {
    let error = Error::of_option(Code::Config, error);
    let named = |entry: &&OptionEntry| error.message.contains(&format!("`{}`", entry.name));
    match entries.iter().find(named) {
        Some(entry) => error.at(entry.place).option(&entry.name),
        None => error.at(place),
    }
}

/// The statement that makes this credential, secrets masked.
#[must_use]
pub fn credential_ddl(spec: &CredentialSpec) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let mut ddl =
        format!("CREATE CREDENTIAL \"public\".{}\nTYPE = {}", quoted(&spec.name), literal(&spec.kind));
    let mut rest = Vec::new();
    for (name, value) in spec.options.iter() {
        match name {
            IDENTITY => _ = write!(ddl, ",\nIDENTITY = {}", literal(value)),
            SECRET => _ = write!(ddl, ",\nSECRET = {}", literal(&shown_value(name, value))),
            _ => rest.push(assignment(name, value)),
        }
    }
    if !rest.is_empty() {
        _ = write!(ddl, "\nWITH OPTIONS ({})", rest.join(", "));
    }
    ddl
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// `'name' = 'value'`, the value as it may be shown.
fn assignment(name: &str, value: &str) -> String {
    format!("{} = {}", literal(name), literal(&shown_value(name, value)))
}

/// The statement on one line, secrets masked.
pub(crate) fn create_text(create: &CreateCredential) -> String {
    let replace = if create.or_replace { "OR REPLACE " } else { "" };
    let clause = if create.if_not_exists { "IF NOT EXISTS " } else { "" };
    let mut text =
        format!("CREATE {replace}CREDENTIAL {clause}{} TYPE = {}", create.name, literal(&create.kind));
    let mut rest = Vec::new();
    for OptionEntry { name, value, .. } in &create.options {
        if matches!(name.as_str(), IDENTITY | SECRET) {
            _ = write!(text, ", {} = {}", name.to_ascii_uppercase(), literal(&shown_value(name, value)));
        } else {
            rest.push(assignment(name, value));
        }
    }
    if !rest.is_empty() {
        _ = write!(text, " WITH OPTIONS ({})", rest.join(", "));
    }
    text
}

/// The statement on one line, secrets masked.
pub(crate) fn alter_text(name: &ObjectName, changes: &[OptionEntry]) -> String {
    let changes: Vec<String> = changes.iter().map(|entry| assignment(&entry.name, &entry.value)).collect();
    format!("ALTER CREDENTIAL {name} SET PROPERTY {}", changes.join(", "))
}

/// `name | *`
pub(crate) fn one_or_all_text(name: Option<&ObjectName>) -> String {
    name.map_or_else(
        || "*".to_owned(),
        |name| match &name.schema {
            Some(schema) => format!("{}.{}", ident(schema), ident(&name.name)),
            None => ident(&name.name),
        },
    )
}
