//! `CREATE/ALTER/DROP USER`, `CREATE/DROP ROLE`, `GRANT`, `REVOKE`, `SHOW USERS/ROLES/GRANTS/PRIVILEGES` (docs/sql.md, Users
//! and privileges). Whether the caller may was asked before.

use model::{Grantee, GranteeKind, ObjectKind, Privilege, Target};
use sql::{
    AccessStatement, Code, GrantOn, Granted, Name, Password,
    access::{On, Revocation, Rights, Support},
};

use crate::{
    error::{Error, ErrorKind},
    grantees,
    handle::Leader,
};

use super::{
    auth::{PASSWORD_BYTES_MAX, hash},
    progress,
    refuse::Refusal,
    statement::{Answer, missing_near},
};

const TEXT: &str = "character varying";

/// Passwords below this are taken, with a notice.
const PASSWORD_CHARS_GOOD: usize = 12;

/// The longest name of a user or a role.
const NAME_CHARS_MAX: usize = 256;

/// Names that say everybody in other systems: who grants to them must not find one user of that name.
const RESERVED: [&str; 3] = ["public", "current_user", "session_user"];

/// One statement about users, roles and grants. `rights` are the caller's.
pub(super) async fn run(
    leader: &Leader,
    rights: &Rights,
    statement: &AccessStatement,
) -> Result<Answer, Refusal> {
    match statement {
        AccessStatement::Create { kind, if_not_exists, name, password } => {
            create(leader, *kind, (name, *if_not_exists), password.as_ref()).await
        }
        AccessStatement::AlterUser { name, password } => alter(leader, name, password.as_ref()).await,
        AccessStatement::Drop { kind, if_exists, name } => {
            drop_grantee(leader, rights, *kind, (name, *if_exists)).await
        }
        AccessStatement::Grant { granted, to, option } => grant(leader, rights, granted, (to, *option)).await,
        AccessStatement::Revoke { granted, from, option_only, cascade } => match granted {
            Granted::Privileges { privileges, on } => {
                let thing = on_of(on)?;
                let by = giver(rights, privileges, &thing)?;
                let on = (target_of(leader, on, &thing)?, &thing);
                revoke(leader, (privileges, by), on, (from, *option_only, *cascade)).await
            }
            Granted::System(privilege) => {
                let on = (Target::Cluster, &On::Cluster);
                revoke(leader, (&[*privilege], None), on, (from, false, true)).await
            }
            Granted::Roles(roles) => revoke_roles(leader, roles, from).await,
        },
        AccessStatement::Show(kind) => Ok(show(leader, rights, *kind)),
        AccessStatement::ShowGrants { of } => show_grants(leader, rights, of.as_ref()),
        AccessStatement::ShowPrivileges => Ok(show_privileges(rights)),
    }
}

fn bind(name: &Name, text: impl std::fmt::Display) -> sql::Error {
    sql::Error::new(Code::Bind, text).at(name.place)
}

async fn create(
    leader: &Leader,
    kind: GranteeKind,
    (name, if_not_exists): (&Name, bool),
    password: Option<&Password>,
) -> Result<Answer, Refusal> {
    let text = &name.name;
    let odd = text.chars().any(char::is_control) || text.trim() != text || text.is_empty();
    if odd || text.chars().count() > NAME_CHARS_MAX || RESERVED.contains(&text.as_str()) {
        return Err(
            bind(name, format!("\"{}\" is no name of a {}", text.escape_debug(), kind.as_str())).into()
        );
    }
    if let Some(taken) = leader.grantee(text) {
        let told = format!("{} \"{text}\" already exists", taken.kind.as_str());
        if if_not_exists && taken.kind == kind {
            return Ok(Answer::done(vec![format!("{told}, skipping")]));
        }
        return Err(sql::Error::new(Code::DuplicateObject, told).at(name.place).into());
    }
    let (hash, notice) = hashed(name, password).await?;
    leader.create_grantee(text, kind, hash).await?;
    Ok(Answer::done(notice.into_iter().collect()))
}

async fn hashed(
    name: &Name,
    password: Option<&Password>,
) -> Result<(Option<model::PasswordHash>, Option<String>), Refusal> {
    let Some(password) = password else { return Ok((None, None)) };
    let text = password.reveal();
    if name.name.contains(':') {
        let hint = "a login sends name:password";
        return Err(bind(name, "a user with a password has no colon in its name").hint(hint).into());
    }
    if text.is_empty() || text.len() > PASSWORD_BYTES_MAX {
        return Err(bind(name, format!("a password has 1 to {PASSWORD_BYTES_MAX} bytes")).into());
    }
    let short = text.chars().count() < PASSWORD_CHARS_GOOD;
    let notice = short.then(|| format!("the password is shorter than {PASSWORD_CHARS_GOOD} characters"));
    let hash = hash(text.to_owned()).await;
    let hash = hash.ok_or_else(|| Error::new(ErrorKind::Unavailable, "the process ends"))?;
    Ok((Some(hash), notice))
}

async fn alter(leader: &Leader, name: &Name, password: Option<&Password>) -> Result<Answer, Refusal> {
    known(leader, name, Some(GranteeKind::User))?;
    let (hash, notice) = hashed(name, password).await?;
    let change = |_: &sql::access::Grantees<'_>, user: &mut Grantee| {
        user.password.clone_from(&hash);
        Ok(())
    };
    leader.change_grantee(&name.name, change).await?;
    leader.tell_access("user_altered", format!("password of user `{}` changed", name.name));
    Ok(Answer::done(notice.into_iter().collect()))
}

async fn drop_grantee(
    leader: &Leader,
    rights: &Rights,
    kind: GranteeKind,
    (name, if_exists): (&Name, bool),
) -> Result<Answer, Refusal> {
    if kind == GranteeKind::User && rights.principal().name.as_ref() == Some(&name.name) {
        let text = format!("user \"{}\" is who asks", name.name);
        return Err(sql::Error::new(Code::State, text).at(name.place).into());
    }
    if if_exists && leader.grantee(&name.name).is_none_or(|found| found.kind != kind) {
        return Ok(Answer::done(vec![format!(
            "{} \"{}\" does not exist, skipping",
            kind.as_str(),
            name.name
        )]));
    }
    known(leader, name, Some(kind))?;
    leader.drop_grantee(kind, &name.name).await?;
    Ok(Answer::default())
}

/// The user or role of this name.
fn known(leader: &Leader, name: &Name, kind: Option<GranteeKind>) -> Result<Grantee, Refusal> {
    let found = leader.grantee(&name.name).filter(|found| kind.is_none_or(|kind| kind == found.kind));
    let what = kind.map_or("user or role", GranteeKind::as_str);
    let text = format!("{what} \"{}\" does not exist", name.name);
    Ok(found.ok_or_else(|| sql::Error::new(Code::UndefinedObject, text).at(name.place))?)
}

async fn grant(
    leader: &Leader,
    rights: &Rights,
    granted: &Granted,
    (to, option): (&[Name], bool),
) -> Result<Answer, Refusal> {
    for name in to {
        known(leader, name, None)?;
    }
    let (privileges, on) = match granted {
        Granted::Roles(roles) => return grant_roles(leader, roles, to).await,
        Granted::System(privilege) => (vec![(*privilege, Support::Own)], Target::Cluster),
        Granted::Privileges { privileges, on } => {
            let thing = on_of(on)?;
            let support = |privilege: &Privilege| {
                rights
                    .support(*privilege, &thing)
                    .map(|support| (*privilege, support))
                    .ok_or_else(|| lost(&thing))
            };
            let supported = privileges.iter().map(support).collect::<Result<_, _>>()?;
            (supported, target_of(leader, on, &thing)?)
        }
    };
    for name in to {
        if leader.grant(&name.name, (&privileges, on), option).await? {
            leader.tell_access("granted", format!("{granted} granted to `{}`", name.name));
        }
    }
    Ok(Answer::default())
}

/// The right to give it went while the statement was on its way.
fn lost(thing: &On) -> sql::Error {
    sql::Error::new(Code::Denied, format!("ADMIN privilege on {thing} is required"))
}

async fn grant_roles(leader: &Leader, roles: &[Name], to: &[Name]) -> Result<Answer, Refusal> {
    for role in roles {
        let id = known(leader, role, Some(GranteeKind::Role))?.id;
        for name in to {
            let circle = format!("role \"{}\" is a member of \"{}\" itself", role.name, name.name);
            let change = |all: &sql::access::Grantees<'_>, grantee: &mut Grantee| {
                if all.closure([id]).contains(&grantee.id) {
                    return Err(Error::new(ErrorKind::State, circle.clone()));
                }
                grantee.roles.insert(id);
                // Members of roles that are gone are members of nothing.
                grantee.roles.retain(|role| all.get(*role).is_some());
                Ok(())
            };
            if leader.change_grantee(&name.name, change).await? {
                leader.tell_access("granted", format!("role `{}` granted to `{}`", role.name, name.name));
            }
        }
    }
    Ok(Answer::default())
}

async fn revoke_roles(leader: &Leader, roles: &[Name], from: &[Name]) -> Result<Answer, Refusal> {
    let mut notices = Vec::new();
    for role in roles {
        let id = known(leader, role, Some(GranteeKind::Role))?.id;
        for name in from {
            known(leader, name, None)?;
            let change = |_: &sql::access::Grantees<'_>, grantee: &mut Grantee| {
                grantee.roles.remove(&id);
                Ok(())
            };
            if leader.change_grantee(&name.name, change).await? {
                leader.tell_access("revoked", format!("role `{}` revoked from `{}`", role.name, name.name));
            } else {
                notices.push(format!("role \"{}\" was not granted to \"{}\"", role.name, name.name));
            }
        }
    }
    Ok(Answer::done(notices))
}

/// By whom the caller may revoke: `None` takes it whoever gave it.
fn giver(rights: &Rights, privileges: &[Privilege], thing: &On) -> Result<Option<model::ObjectId>, Refusal> {
    if rights.has(Privilege::Admin, thing) && rights.may_give(Privilege::Admin, thing)
        || rights.has_system(Privilege::SystemUserAdmin)
    {
        return Ok(None);
    }
    match privileges.first().and_then(|privilege| rights.support(*privilege, thing)) {
        Some(Support::Of(id)) => Ok(Some(id)),
        Some(Support::Own) => Ok(None),
        None => Err(lost(thing).into()),
    }
}

async fn revoke(
    leader: &Leader,
    (privileges, by): (&[Privilege], Option<model::ObjectId>),
    (on, thing): (Target, &On),
    (from, option_only, cascade): (&[Name], bool, bool),
) -> Result<Answer, Refusal> {
    for name in from {
        known(leader, name, None)?;
    }
    let mut notices = Vec::new();
    for name in from {
        let revocation =
            Revocation { from: name.name.clone(), privileges: privileges.to_vec(), on, by, option_only };
        let revoked = leader.revoke(&revocation, cascade).await.map_err(|error| match error.kind {
            ErrorKind::InUse => Refusal::from(
                sql::Error::new(Code::InUse, error).at(name.place).hint("CASCADE revokes them too"),
            ),
            _ => Refusal::from(error),
        })?;
        let not = |privilege: &Privilege| {
            format!("{} on {thing} was not granted to \"{}\"", privilege.as_str(), name.name)
        };
        notices.extend(revoked.absent.iter().map(not));
        let besides = |(name, grant): &(String, model::Grant)| {
            format!("revoke cascades to {} of \"{name}\"", grant.privilege.as_str())
        };
        notices.extend(revoked.dependents.iter().map(besides));
        if !revoked.changed.is_empty() {
            let words: Vec<&str> = privileges.iter().map(|privilege| privilege.as_str()).collect();
            let text = format!("{} on {thing} revoked from `{}`", words.join(", "), name.name);
            leader.tell_access("revoked", text);
        }
    }
    Ok(Answer::done(notices))
}

/// What stands behind `ON`, its schema checked.
fn on_of(on: &GrantOn) -> Result<On, Refusal> {
    Ok(match on {
        GrantOn::Source(name) => {
            sql::check_name(ObjectKind::Source, name)?;
            On::Source(name.name.clone())
        }
        GrantOn::Sink(name) => {
            sql::check_name(ObjectKind::Sink, name)?;
            On::Sink(name.name.clone())
        }
        GrantOn::Credential(name) => {
            sql::check_name(ObjectKind::Credential, name)?;
            On::Credential(name.name.clone())
        }
        GrantOn::Schema(name) if name.name == "public" => On::Schema,
        GrantOn::Schema(name) => {
            let text = format!("schema \"{}\" does not exist", name.name);
            return Err(sql::Error::new(Code::UndefinedObject, text).at(name.place).into());
        }
        GrantOn::Cluster => On::Cluster,
    })
}

fn target_of(leader: &Leader, on: &GrantOn, thing: &On) -> Result<Target, Refusal> {
    let near = |kind, name| Refusal::from(missing_near(leader, kind, name));
    leader.target(thing).ok_or_else(|| match on {
        GrantOn::Source(name) => near(ObjectKind::Source, name),
        GrantOn::Sink(name) => near(ObjectKind::Sink, name),
        GrantOn::Credential(name) => near(ObjectKind::Credential, name),
        GrantOn::Schema(_) | GrantOn::Cluster => grantees::missing("").into(),
    })
}

/// `SHOW USERS | ROLES`: all for who manages them, else oneself and one's roles.
fn show(leader: &Leader, rights: &Rights, kind: GranteeKind) -> Answer {
    let all = leader.grantees();
    let manages = rights.has_system(Privilege::SystemUserAdmin);
    let name_of =
        |id: &model::ObjectId| all.iter().find(|(_, role)| role.id == *id).map(|(name, _)| name.clone());
    let rows = all
        .iter()
        .filter(|(name, found)| found.kind == kind && (manages || rights.is_mine(name)))
        .map(|(name, found)| {
            let roles: Vec<String> = found.roles.iter().filter_map(name_of).collect();
            let login = if found.password.is_some() { "password" } else { "certificate or token" };
            let created = progress::moment(found.created_at.0);
            match kind {
                GranteeKind::User => {
                    vec![Some(name.clone()), Some(login.to_owned()), Some(roles.join(", ")), created]
                }
                GranteeKind::Role => vec![Some(name.clone()), Some(roles.join(", ")), created],
            }
        });
    let created = ("Created At", "timestamp with time zone");
    match kind {
        GranteeKind::User => {
            Answer::rows(&[("Name", TEXT), ("Login", TEXT), ("Roles", TEXT), created], rows.collect())
        }
        GranteeKind::Role => Answer::rows(&[("Name", TEXT), ("Roles", TEXT), created], rows.collect()),
    }
}

/// `SHOW GRANTS [FOR name]`
fn show_grants(leader: &Leader, rights: &Rights, of: Option<&Name>) -> Result<Answer, Refusal> {
    if let Some(name) = of {
        known(leader, name, None)?;
    }
    let all = leader.grantees();
    let view = sql::access::Grantees::new(all.iter().map(|(name, grantee)| (name.as_str(), grantee)));
    let manages = rights.has_system(Privilege::SystemUserAdmin);
    let shown = |name: &str| of.map_or(manages || rights.is_mine(name), |of| of.name == name);
    let mut rows = Vec::new();
    for (name, grantee) in view.iter().filter(|(name, _)| shown(name)) {
        let row = |privilege: &str, on: String, option: bool, by: Option<&str>| {
            let option = if option { "yes" } else { "no" };
            let texts = [name, privilege, on.as_str(), option].map(|text| Some(text.to_owned()));
            texts.into_iter().chain([by.map(str::to_owned)]).collect::<Vec<_>>()
        };
        let roles = grantee.roles.iter().filter_map(|id| view.get(*id));
        rows.extend(roles.map(|(role, _)| row("MEMBER", format!("role \"{role}\""), false, None)));
        for on in leader.owned_by(grantee) {
            rows.push(row("OWNER", on.to_string(), true, None));
        }
        for grant in grantee.grants.iter().filter(|grant| view.counts(grant)) {
            let on = match grant.on {
                _ if grant.privilege.of_system() => "the system".to_owned(),
                Target::Object(id) => match leader.thing(id) {
                    Some(on) => on.to_string(),
                    None => continue,
                },
                Target::Schema => On::Schema.to_string(),
                Target::Cluster => On::Cluster.to_string(),
            };
            let by = grant.by.and_then(|by| view.get(by)).map(|(name, _)| name);
            rows.push(row(grant.privilege.as_str(), on, grant.option, by));
        }
    }
    rows.sort();
    let columns =
        [("Grantee", TEXT), ("Privilege", TEXT), ("On", TEXT), ("Grant Option", TEXT), ("Granted By", TEXT)];
    Ok(Answer::rows(&columns, rows))
}

/// `SHOW PRIVILEGES`
fn show_privileges(rights: &Rights) -> Answer {
    let row = |(privilege, on, through, option): (Privilege, Option<On>, String, bool)| {
        let on = on.map_or("the system".to_owned(), |on| on.to_string());
        let option = if option { "yes" } else { "no" };
        let through = (!through.is_empty()).then_some(through);
        vec![Some(privilege.as_str().to_owned()), Some(on), through, Some(option.to_owned())]
    };
    let columns = [("Privilege", TEXT), ("On", TEXT), ("Through", TEXT), ("Grant Option", TEXT)];
    Answer::rows(&columns, rights.listed().into_iter().map(row).collect())
}
