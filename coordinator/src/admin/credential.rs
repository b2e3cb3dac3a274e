//! `CREATE | ALTER | DROP | SHOW | DESCRIBE CREDENTIAL` (docs/sql.md, Credentials), and what is said of secrets that are stored in
//! plain text. Nothing outside is asked: a credential is tried by whoever uses it.

use std::sync::Arc;

use model::{CredentialSpec, MASK, ObjectKind};
use sql::{Code, CreateCredential, ObjectName, OptionEntry, access::On};
use store::Spec;

use crate::{
    error::{Error, ErrorKind},
    handle::Leader,
};

use super::{
    create::exists,
    refuse::Refusal,
    show::{TEXT, texts},
    statement::{Answer, missing_near},
};

/// `CREATE [OR REPLACE] CREDENTIAL`
pub(super) async fn create(leader: &Leader, create: &CreateCredential) -> Result<Answer, Refusal> {
    let name = &create.name;
    let there = leader.credential(&name.name).is_some();
    if there && !create.or_replace {
        return exists(ObjectKind::Credential, name, create.if_not_exists);
    }
    let registry = leader.registry();
    let spec = sql::bind_credential(create, &registry)?;
    let notices: Vec<String> = stored_plain(leader, ObjectKind::Credential, true)?.into_iter().collect();
    if there {
        fits_users(leader, &spec, name)?;
        let replace = |old: &mut CredentialSpec| {
            (old.kind, old.options) = (spec.kind.clone(), spec.options.clone());
            Ok(())
        };
        leader.update_credential(&name.name, replace).await?;
        return Ok(Answer::done(notices));
    }
    match leader.create_credential(spec).await {
        Ok(()) => Ok(Answer::done(notices)),
        Err(error) if error.kind == ErrorKind::Exists && !create.or_replace => {
            exists(ObjectKind::Credential, name, create.if_not_exists)
        }
        Err(error) => Err(error.into()),
    }
}

/// `ALTER CREDENTIAL name SET PROPERTY …`
pub(super) async fn alter(
    leader: &Leader,
    name: &ObjectName,
    changes: &[OptionEntry],
) -> Result<Answer, Refusal> {
    let spec = known(leader, name)?;
    let registry = leader.registry();
    let changed = sql::alter_credential(&spec, changes, &registry)?;
    fits_users(leader, &changed, name)?;
    let notices: Vec<String> = stored_plain(leader, ObjectKind::Credential, true)?.into_iter().collect();
    let change = |spec: &mut CredentialSpec| {
        *spec = sql::alter_credential(spec, changes, &registry)
            .map_err(|e| Error::new(ErrorKind::State, e.to_string()))?;
        Ok(())
    };
    leader.update_credential(&name.name, change).await?;
    Ok(Answer::done(notices))
}

/// Every user must be one of a connector that takes the type. The users are not asked otherwise.
fn fits_users(leader: &Leader, spec: &CredentialSpec, name: &ObjectName) -> Result<(), Refusal> {
    let registry = leader.registry();
    let credentials = [(spec.name.clone(), spec.clone())].into_iter().collect();
    let with = registry.with_credentials(Arc::new(credentials));
    for (kind, user) in leader.users_of(&spec.name) {
        let fits = match kind {
            ObjectKind::Source => leader.source(&user).map(|user| with.expanded_source(&user).map(drop)),
            _ => leader.sink(&user).map(|user| with.expanded_sink(&user).map(drop)),
        };
        if let Some(Err(error)) = fits
            && error.to_string().contains("cannot be used with connector")
        {
            let text = format!("{error}, and {} \"{user}\" uses credential \"{}\"", kind.as_str(), spec.name);
            return Err(sql::Error::new(Code::Config, text).at(name.place).into());
        }
    }
    Ok(())
}

/// `DROP CREDENTIAL name | *`
pub(super) async fn drop_one_or_all(
    leader: &Leader,
    if_exists: bool,
    name: Option<&ObjectName>,
) -> Result<Answer, Refusal> {
    let names: Vec<String> = match name {
        None => {
            let names =
                leader.credentials().iter().map(|credential| credential.name.clone()).collect::<Vec<_>>();
            names.into_iter().filter(|name| leader.administers(&On::Credential(name.clone()))).collect()
        }
        Some(name) => {
            sql::check_name(ObjectKind::Credential, name)?;
            if if_exists && leader.credential(&name.name).is_none() {
                let text = format!("credential \"{}\" does not exist, skipping", name.name);
                return Ok(Answer::done(vec![text]));
            }
            known(leader, name)?;
            vec![name.name.clone()]
        }
    };
    match leader.drop_credentials(&names).await {
        Ok(()) => Ok(Answer::default()),
        Err(error) if error.kind == ErrorKind::InUse => {
            let refused =
                sql::Error::new(Code::InUse, error).at(name.map(|name| name.place).unwrap_or_default());
            Err(refused.hint("drop those first, or give them another credential").into())
        }
        Err(error) => Err(error.into()),
    }
}

/// `SHOW CREDENTIAL name | *`
pub(super) fn show(leader: &Leader, name: Option<&ObjectName>) -> Result<Answer, Refusal> {
    let rows = chosen(leader, name)?.iter().map(|spec| texts([&sql::credential_ddl(spec)])).collect();
    let mut answer = Answer::rows(&[("DDL", TEXT)], rows);
    answer.notices.extend(plain_notice(leader, name));
    Ok(answer)
}

/// `DESCRIBE CREDENTIAL name | *`
pub(super) fn describe(leader: &Leader, name: Option<&ObjectName>) -> Result<Answer, Refusal> {
    let row = |spec: &CredentialSpec| {
        let identity = spec.options.get(connector::IDENTITY).unwrap_or_default();
        let options: serde_json::Map<String, serde_json::Value> = spec
            .options
            .masked()
            .filter(|(name, value)| {
                !matches!(*name, connector::IDENTITY | connector::SECRET) && value != MASK
            })
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        let options = serde_json::Value::Object(options).to_string();
        texts([&format!("public.{}", spec.name), &spec.kind, identity, &options])
    };
    let rows = chosen(leader, name)?.iter().map(|spec| row(spec)).collect();
    let columns = [
        ("CREDENTIAL_NAME", TEXT),
        ("CREDENTIAL_TYPE", TEXT),
        ("CREDENTIAL_IDENTITY", TEXT),
        ("CREDENTIAL_OPTIONS", TEXT),
    ];
    Ok(Answer::rows(&columns, rows))
}

/// `SHOW CREDENTIALS`
pub(super) fn list(leader: &Leader, matches: &dyn Fn(&str) -> bool) -> Answer {
    let mut rows = Vec::new();
    for spec in leader.credentials().iter().filter(|spec| matches(&spec.name)) {
        let users = leader.users_of(&spec.name);
        let users: Vec<String> =
            users.iter().map(|(kind, name)| format!("{} {name}", kind.as_str())).collect();
        let identity = spec.options.get(connector::IDENTITY).unwrap_or_default();
        let stored = if leader.is_plain(spec.id) { "plain text" } else { "encrypted" };
        rows.push(texts([&format!("public.{}", spec.name), &spec.kind, identity, stored, &users.join(", ")]));
    }
    let columns = [("Name", TEXT), ("Type", TEXT), ("Identity", TEXT), ("Stored", TEXT), ("Used By", TEXT)];
    Answer::rows(&columns, rows)
}

fn chosen(leader: &Leader, name: Option<&ObjectName>) -> Result<Vec<Arc<CredentialSpec>>, Refusal> {
    Ok(match name {
        None => leader.credentials(),
        Some(name) => vec![known(leader, name)?],
    })
}

fn known(leader: &Leader, name: &ObjectName) -> Result<Arc<CredentialSpec>, Refusal> {
    sql::check_name(ObjectKind::Credential, name)?;
    let found = leader.credential(&name.name);
    found.ok_or_else(|| missing_near(leader, ObjectKind::Credential, name).into())
}

fn plain_notice(leader: &Leader, name: Option<&ObjectName>) -> Option<String> {
    let plain = chosen(leader, name).ok()?.iter().any(|spec| leader.is_plain(spec.id));
    plain.then(|| leader.way_out_of_plain())
}

/// What a user is told who brings a secret that will be stored in plain text: a refusal where that is not allowed.
pub(super) fn stored_plain(
    leader: &Leader,
    kind: ObjectKind,
    secret: bool,
) -> Result<Option<String>, sql::Error> {
    let vault = leader.term.secrets.vault();
    if !secret || vault.key().is_some() {
        return Ok(None);
    }
    let what = format!("the secrets of this {}", kind.as_str());
    if vault.allows_plain() {
        return Ok(Some(format!("{what} are stored in plain text: {}", leader.way_out_of_plain())));
    }
    let text = format!("{what} would be stored in plain text, where others may read it");
    Err(sql::Error::new(Code::Config, text).hint(
        "give every coordinator a key: `shardwright secrets new-key` makes one for `secrets.master_key_file`; \
         secrets.plaintext = 'always' does without",
    ))
}

/// What a user is told who brings the secrets of a source or a sink.
pub(super) fn plain_spec(leader: &Leader, spec: &Spec) -> Result<Option<String>, sql::Error> {
    stored_plain(leader, spec.kind(), spec.has_secrets())
}

impl Leader {
    /// True if the secrets of this object are in plain text in the store.
    pub(super) fn is_plain(&self, id: model::ObjectId) -> bool {
        self.term.secrets.kept(id) == Some(crate::secrets::Kept::Plain)
    }

    /// What to do about secrets in plain text.
    pub(super) fn way_out_of_plain(&self) -> String {
        match self.term.secrets.vault().key() {
            Some(_) => {
                "secrets are stored in plain text until `shardwright secrets rotate` has run".to_owned()
            }
            None => "no `secrets.master_key` is set, so whoever can read the metadata store can read them"
                .to_owned(),
        }
    }
}
