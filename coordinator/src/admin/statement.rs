//! One SQL statement: who carries it out, and its answer.

use std::time::Duration;

use model::ObjectKind;
use proto::v1::{self, execute_reply};
use sql::{Code, ObjectName, Parsed, Statement};
use tokio::sync::mpsc;

use crate::{
    error::ErrorKind,
    handle::{Handle, Leader},
};

use super::{
    access, admit::Visit, alter, balance, create, credential, explain, permit, progress, refuse::Refusal,
    replay::Outcome, show,
};

/// How long a statement may take beyond the deadlines of what it asks the outside.
const DEADLINE: Duration = Duration::from_secs(90);

/// What a statement answers: notices, then rows or a tag.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub notices: Vec<String>,
    pub rows: Option<v1::ResultSet>,
}

impl Answer {
    /// Done, with nothing to show.
    pub fn done(notices: Vec<String>) -> Self {
        Self { notices, rows: None }
    }

    /// Rows.
    pub fn rows(columns: &[(&str, &str)], rows: Vec<Vec<Option<String>>>) -> Self {
        let columns = columns
            .iter()
            .map(|(name, kind)| v1::ResultColumn { name: (*name).to_owned(), r#type: (*kind).to_owned() })
            .collect();
        Self { notices: Vec::new(), rows: Some(result_set(columns, rows)) }
    }
}

/// Rows of texts as a message.
pub(super) fn result_set(columns: Vec<v1::ResultColumn>, rows: Vec<Vec<Option<String>>>) -> v1::ResultSet {
    let row = |values: Vec<Option<String>>| v1::Row {
        values: values.into_iter().map(|text| v1::Value { text }).collect(),
    };
    v1::ResultSet { columns, rows: rows.into_iter().map(row).collect() }
}

/// Runs the statements of one call, in order, until one fails. Each reply is sent as soon as it is there; if nobody listens any
/// more and nobody will ask again (`keep`), the statements that have not begun are left out.
pub(super) async fn run_all(
    handle: &Handle,
    visit: &mut Visit,
    (text, statements): (&str, Vec<Parsed>),
    replies: &mpsc::Sender<Result<v1::ExecuteReply, tonic::Status>>,
    keep: bool,
) -> Outcome {
    let mut outcome = Outcome::default();
    for (number, parsed) in statements.into_iter().enumerate() {
        if replies.is_closed() && !keep {
            break;
        }
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let tag = parsed.statement.tag();
        visit.audit.statement(&parsed.statement);
        let carried_out = async {
            let leader = permit::statement(&visit.leader, &visit.caller, &parsed.statement)?;
            run(handle, &leader, parsed.statement).await
        };
        let answer = match tokio::time::timeout(DEADLINE, carried_out).await {
            Ok(answer) => answer,
            Err(_) => {
                let text = format!("{tag} took longer than {} s", DEADLINE.as_secs());
                Err(crate::Error::new(ErrorKind::Unknown, text).into())
            }
        };
        match answer {
            Ok(answer) => {
                for reply in messages(number, tag, answer) {
                    _ = replies.send(Ok(reply.clone())).await;
                    outcome.replies.push(reply);
                }
            }
            Err(refusal) => {
                let status = refusal.within(text).at_statement(Some(number));
                _ = replies.send(Err(status.clone())).await;
                outcome.error = Some(status);
                break;
            }
        }
    }
    outcome
}

fn messages(statement: u32, tag: &str, answer: Answer) -> Vec<v1::ExecuteReply> {
    let last = match answer.rows {
        Some(rows) => execute_reply::Answer::Rows(rows),
        None => execute_reply::Answer::Tag(tag.to_owned()),
    };
    let notices = answer.notices.into_iter().map(execute_reply::Answer::Notice);
    notices.chain([last]).map(|answer| v1::ExecuteReply { statement, answer: Some(answer) }).collect()
}

async fn run(handle: &Handle, leader: &Leader, statement: Statement) -> Result<Answer, Refusal> {
    match statement {
        Statement::CreateSource(create) => create::source(leader, &create).await,
        Statement::CreateSink(create) => create::sink(leader, &create).await,
        Statement::Explain(create) => explain::sink(handle, leader, &create),
        Statement::Drop { kind, if_exists, name, cascade } => {
            drop_object(leader, kind, if_exists, &name, cascade).await
        }
        Statement::AlterSource { name, options } => alter::source(leader, &name, &options).await,
        Statement::AlterSink { name, change } => alter::sink(leader, &name, change).await,
        Statement::Show { target, from, like } => show::list(leader, target, from.as_ref(), like.as_deref()),
        Statement::CreateCredential(create) => credential::create(leader, &create).await,
        Statement::AlterCredential { name, changes } => credential::alter(leader, &name, &changes).await,
        Statement::DropCredential { if_exists, name } => {
            credential::drop_one_or_all(leader, if_exists, name.as_ref()).await
        }
        Statement::ShowCredential { name } => credential::show(leader, name.as_ref()),
        Statement::DescribeCredential { name } => credential::describe(leader, name.as_ref()),
        Statement::Rebalance { explain: true } => Ok(balance::explain(leader)),
        Statement::Rebalance { explain: false } => balance::begin(leader),
        Statement::ShowCreate { kind, name } => show::create(leader, kind, &name),
        Statement::ShowErrors { name } => show::errors(leader, &name),
        Statement::Describe { name } => show::describe(leader, &name),
        Statement::Access(statement) => access::run(leader, &leader.viewer_rights(), &statement).await,
        Statement::Select { text, relations, place } => {
            progress::select(leader, &text, &relations, place).await
        }
    }
}

/// The object is not there: an error at its place in the text.
pub(super) fn missing(kind: ObjectKind, name: &ObjectName) -> sql::Error {
    sql::Error::new(Code::UndefinedObject, format!("{} \"{}\" does not exist", kind.as_str(), name.name))
        .at(name.place)
}

/// The same, with the nearest name that is there.
pub(super) fn missing_near(leader: &Leader, kind: ObjectKind, name: &ObjectName) -> sql::Error {
    let names: Vec<String> = match kind {
        ObjectKind::Source => leader.sources().iter().map(|s| s.name.clone()).collect(),
        ObjectKind::Sink => leader.sinks().iter().map(|s| s.name.clone()).collect(),
        ObjectKind::Credential => leader.credentials().iter().map(|c| c.name.clone()).collect(),
    };
    let error = missing(kind, name);
    match connector::nearest(&name.name, names.iter().map(String::as_str)) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error,
    }
}

async fn drop_object(
    leader: &Leader,
    kind: ObjectKind,
    if_exists: bool,
    name: &ObjectName,
    cascade: bool,
) -> Result<Answer, Refusal> {
    sql::check_name(kind, name)?;
    match leader.drop_object(kind, &name.name, cascade).await {
        Ok(dropped) => {
            let dependents =
                dropped.objects.iter().filter(|(k, n)| (*k, n.as_str()) != (kind, name.name.as_str()));
            Ok(Answer::done(
                dependents
                    .map(|(kind, name)| format!("drop cascades to {} \"{name}\"", kind.as_str()))
                    .collect(),
            ))
        }
        Err(error) if error.kind == ErrorKind::Missing && if_exists => {
            Ok(Answer::done(vec![format!("{} \"{}\" does not exist, skipping", kind.as_str(), name.name)]))
        }
        Err(error) if error.kind == ErrorKind::Missing => Err(missing_near(leader, kind, name).into()),
        Err(error) if error.kind == ErrorKind::InUse => Err(in_use(leader, kind, name).into()),
        Err(error) => Err(error.into()),
    }
}

fn in_use(leader: &Leader, kind: ObjectKind, name: &ObjectName) -> sql::Error {
    let sinks = leader.all_sinks();
    let names: Vec<String> =
        sinks.iter().filter(|s| s.source_name == name.name).map(|s| format!("sink \"{}\"", s.name)).collect();
    let text = format!(
        "{} \"{}\" is still used by {} other object(s): {}",
        kind.as_str(),
        name.name,
        names.len(),
        names.join(", ")
    );
    sql::Error::new(Code::InUse, text).at(name.place).hint("CASCADE drops them too")
}
