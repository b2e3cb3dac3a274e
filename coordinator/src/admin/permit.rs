//! Whether a caller may: `sql::access::authorize`, asked with the rights of this moment, before every call and before every
//! statement of one. What comes back is the leader as the caller sees it, and nothing else leads to one.

use model::ObjectKind;
use sql::{
    SinkChange, Statement,
    access::{Call, Deed, On, Touched, authorize},
};

use crate::handle::Leader;

use super::{
    auth::{Caller, Denied},
    refuse::Refusal,
};

/// The leader as the caller sees it now.
///
/// # Errors
/// The caller is not there any more: its user was dropped, its token has expired.
pub(super) fn seen_by(leader: &Leader, caller: &Caller) -> Result<Leader, Refusal> {
    if !caller.is_good() {
        return Err(Refusal::Login(Denied::Token("the token has expired")));
    }
    let rights = leader.rights(&caller.principal).ok_or(Refusal::Login(Denied::Gone))?;
    Ok(leader.seen_by(rights))
}

/// The leader for one call.
///
/// # Errors
/// As [`seen_by`], and a missing privilege.
pub(super) fn call(leader: &Leader, caller: &Caller, call: Call<'_>) -> Result<Leader, Refusal> {
    let leader = seen_by(leader, caller)?;
    authorize(Deed::Call(call), &leader.viewer_rights())?;
    Ok(leader)
}

/// The leader for one statement.
///
/// # Errors
/// As [`call`].
pub(super) fn statement(leader: &Leader, caller: &Caller, statement: &Statement) -> Result<Leader, Refusal> {
    let seen = seen_by(leader, caller)?;
    authorize(Deed::Statement(statement, &touched(leader, statement)), &seen.viewer_rights())?;
    Ok(seen)
}

/// What a statement touches besides what it names; looked up with the eyes of the coordinator.
fn touched(leader: &Leader, statement: &Statement) -> Touched {
    let mut touched = Touched::default();
    let names = |options: &model::Options| options.credentials().map(str::to_owned).collect();
    match statement {
        Statement::Drop { kind: ObjectKind::Source, name, cascade: true, .. } => {
            let sinks = leader.all_sinks();
            let reads = sinks.iter().filter(|sink| sink.source_name == name.name);
            touched.dependents = reads.map(|sink| sink.name.clone()).collect();
        }
        Statement::AlterSource { name, .. } => {
            touched.credentials =
                leader.source(&name.name).map_or_else(Vec::new, |spec| names(&spec.options));
        }
        Statement::AlterSink { name, change: SinkChange::Set(_) } => {
            touched.credentials = leader.sink(&name.name).map_or_else(Vec::new, |spec| names(&spec.options));
        }
        Statement::CreateSource(create) if create.or_replace => {
            if let Some(spec) = leader.source(&create.name.name) {
                touched.replaces = Some(On::Source(spec.name.clone()));
                touched.credentials = names(&spec.options);
            }
        }
        Statement::CreateSink(create) | Statement::Explain(create) if create.or_replace => {
            if let Some(spec) = leader.sink(&create.name.name) {
                touched.replaces = Some(On::Sink(spec.name.clone()));
                touched.credentials = names(&spec.options);
            }
        }
        Statement::CreateCredential(create) if create.or_replace => {
            let there = leader.credential(&create.name.name).is_some();
            touched.replaces = there.then(|| On::Credential(create.name.name.clone()));
        }
        _ => {}
    }
    touched
}
