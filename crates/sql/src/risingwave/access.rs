//! `CREATE | ALTER | DROP USER`, `CREATE | DROP ROLE`, `GRANT`, `REVOKE` (docs/sql.md, Users and privileges).

use model::{GranteeKind, Privilege};

use crate::{
    Error, Place, Result, Statement,
    ast::access::{AccessStatement, GrantOn, Granted, Name, Password},
    grammar::object_name,
    lexer::{Cursor, Token},
};

/// `USER` or `ROLE`, if it is there.
pub(super) fn kind(cursor: &mut Cursor) -> Option<GranteeKind> {
    if cursor.eat("user") {
        Some(GranteeKind::User)
    } else if cursor.eat("role") {
        Some(GranteeKind::Role)
    } else {
        None
    }
}

/// Behind `CREATE USER | ROLE`.
pub(super) fn create(cursor: &mut Cursor, kind: GranteeKind) -> Result<Statement> {
    let if_not_exists = cursor.eat_all(&["if", "not", "exists"]);
    let name = name(cursor)?;
    let mut password = None;
    if kind == GranteeKind::User {
        let with = cursor.eat("with");
        if with || cursor.at_keyword("password") {
            cursor.expect("password")?;
            password = Some(Password::new(cursor.string()?));
        }
    }
    statement(AccessStatement::Create { kind, if_not_exists, name, password })
}

/// Behind `ALTER USER`.
pub(super) fn alter_user(cursor: &mut Cursor) -> Result<Statement> {
    let name = name(cursor)?;
    cursor.eat("set");
    cursor.eat("with");
    cursor.expect("password")?;
    let password = if cursor.eat("null") { None } else { Some(Password::new(cursor.string()?)) };
    statement(AccessStatement::AlterUser { name, password })
}

/// Behind `DROP USER | ROLE`.
pub(super) fn drop_grantee(cursor: &mut Cursor, kind: GranteeKind) -> Result<Statement> {
    let if_exists = cursor.eat_all(&["if", "exists"]);
    statement(AccessStatement::Drop { kind, if_exists, name: name(cursor)? })
}

/// Behind `GRANT`.
pub(super) fn grant(cursor: &mut Cursor) -> Result<Statement> {
    let granted = granted(cursor)?;
    cursor.expect("to")?;
    let to = names(cursor)?;
    let place = cursor.place();
    let option = cursor.eat_all(&["with", "grant", "option"]);
    if option && !matches!(granted, Granted::Privileges { .. }) {
        return Err(Error::unsupported("WITH GRANT OPTION of a role or a system privilege").at(place));
    }
    statement(AccessStatement::Grant { granted, to, option })
}

/// Behind `REVOKE`.
pub(super) fn revoke(cursor: &mut Cursor) -> Result<Statement> {
    let place = cursor.place();
    let option_only = cursor.eat_all(&["grant", "option", "for"]);
    let granted = granted(cursor)?;
    if option_only && !matches!(granted, Granted::Privileges { .. }) {
        return Err(Error::unsupported("GRANT OPTION FOR a role or a system privilege").at(place));
    }
    cursor.expect("from")?;
    let from = names(cursor)?;
    let cascade = cursor.eat("cascade");
    if !cascade {
        cursor.eat("restrict");
    }
    statement(AccessStatement::Revoke { granted, from, option_only, cascade })
}

/// Behind `SHOW`, if it is one of ours.
pub(super) fn show(cursor: &mut Cursor) -> Result<Option<Statement>> {
    let shown = if cursor.eat("users") {
        AccessStatement::Show(GranteeKind::User)
    } else if cursor.eat("roles") {
        AccessStatement::Show(GranteeKind::Role)
    } else if cursor.eat("grants") {
        let of = if cursor.eat("for") { Some(name(cursor)?) } else { None };
        AccessStatement::ShowGrants { of }
    } else if cursor.eat("privileges") {
        AccessStatement::ShowPrivileges
    } else {
        return Ok(None);
    };
    statement(shown).map(Some)
}

fn statement(access: AccessStatement) -> Result<Statement> {
    Ok(Statement::Access(Box::new(access)))
}

/// A word that is granted: a privilege if `ON` follows, else a role.
struct Item {
    name: String,
    place: Place,
}

fn granted(cursor: &mut Cursor) -> Result<Granted> {
    let mut items = vec![item(cursor)?];
    while cursor.eat_token(&Token::Comma) {
        items.push(item(cursor)?);
    }
    if cursor.eat("on") {
        let on = on(cursor)?;
        let mut privileges = Vec::new();
        for item in &items {
            let privilege = privilege(item, &on)?;
            if !privileges.contains(&privilege) {
                privileges.push(privilege);
            }
        }
        return Ok(Granted::Privileges { privileges, on });
    }
    let of_system = |item: &Item| match item.name.as_str() {
        "system_admin" => Some(Privilege::SystemAdmin),
        "system_user_admin" => Some(Privilege::SystemUserAdmin),
        _ => None,
    };
    if let [one] = items.as_slice()
        && let Some(privilege) = of_system(one)
    {
        return Ok(Granted::System(privilege));
    }
    if let Some(item) = items.iter().find(|item| of_system(item).is_some() || item.name.contains(' ')) {
        let text = format!("{} among roles", item.name.to_ascii_uppercase());
        return Err(Error::unsupported(text).at(item.place).hint("grant it by a statement of its own"));
    }
    Ok(Granted::Roles(items.into_iter().map(|item| Name { name: item.name, place: item.place }).collect()))
}

fn item(cursor: &mut Cursor) -> Result<Item> {
    let place = cursor.place();
    if cursor.eat("create") {
        for kind in ["source", "sink", "credential"] {
            if cursor.eat(kind) {
                return Ok(Item { name: format!("create {kind}"), place });
            }
        }
        return Err(cursor.expected_keyword(
            "SOURCE, SINK or CREDENTIAL after GRANT CREATE",
            &["SOURCE", "SINK", "CREDENTIAL"],
        ));
    }
    Ok(Item { name: cursor.ident()?, place })
}

fn on(cursor: &mut Cursor) -> Result<GrantOn> {
    if cursor.eat("sink") {
        Ok(GrantOn::Sink(object_name(cursor)?))
    } else if cursor.eat("credential") {
        Ok(GrantOn::Credential(object_name(cursor)?))
    } else if cursor.eat("schema") {
        Ok(GrantOn::Schema(name(cursor)?))
    } else if cursor.at_keyword("cluster") && !matches!(cursor.peek_nth(1), Token::Period) {
        cursor.eat("cluster");
        Ok(GrantOn::Cluster)
    } else {
        let place = cursor.place();
        for later in [&["data", "sink"][..], &["external", "data", "sink"], &["stream"], &["table"]] {
            if cursor.at_keywords(later) && matches!(cursor.peek_nth(later.len()), Token::Word(_)) {
                let what = format!("GRANT ON {}", later.join(" ").to_ascii_uppercase());
                return Err(Error::unsupported(what)
                    .at(place)
                    .hint("this release has sources, sinks, credentials, the schema and the cluster"));
            }
        }
        cursor.eat("source");
        Ok(GrantOn::Source(object_name(cursor)?))
    }
}

/// The privilege that a word names, if there is one on such a thing.
fn privilege(item: &Item, on: &GrantOn) -> Result<Privilege> {
    let (thing, known): (_, &[Privilege]) = match on {
        GrantOn::Source(_) => ("a source", &[Privilege::Select, Privilege::Admin]),
        GrantOn::Sink(_) => ("a sink", &[Privilege::Select, Privilege::Admin]),
        GrantOn::Credential(_) => ("a credential", &[Privilege::Read, Privilege::Admin]),
        GrantOn::Schema(_) => {
            ("a schema", &[Privilege::CreateSource, Privilege::CreateSink, Privilege::CreateCredential])
        }
        GrantOn::Cluster => ("the cluster", &[Privilege::Select, Privilege::Admin]),
    };
    let word = item.name.to_ascii_uppercase();
    known.iter().copied().find(|privilege| privilege.as_str() == word).ok_or_else(|| {
        let words: Vec<&str> = known.iter().map(|privilege| privilege.as_str()).collect();
        let text = format!("{word} privilege on {thing}");
        Error::unsupported(text).at(item.place).hint(format!("there is {}", words.join(", ")))
    })
}

fn names(cursor: &mut Cursor) -> Result<Vec<Name>> {
    let mut names = vec![name(cursor)?];
    while cursor.eat_token(&Token::Comma) {
        names.push(name(cursor)?);
    }
    Ok(names)
}

fn name(cursor: &mut Cursor) -> Result<Name> {
    let place = cursor.place();
    Ok(Name { name: cursor.ident()?, place })
}
