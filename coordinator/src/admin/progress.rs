//! The relations that can be selected from: `<source>_progress` and `sys.source_errors` (docs/sql.md, Progress
//! and errors as relations).
//!
//! A progress relation has one row per split and sink (ours: the spec's columns first, then `sink`); with one sink on the
//! source that is one row per split.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use model::{Column, SqlType};
use proto::v1::{self, SplitStatus};
use sql::{Code, ObjectName, Place, Relation};

use crate::{clock, handle::Leader};

use super::{
    refuse::Refusal,
    show::PROGRESS,
    statement::{Answer, result_set},
};

/// How long a query may take.
const QUERY: Duration = Duration::from_secs(10);

/// `SELECT …`
pub(super) async fn select(
    leader: &Leader,
    text: &str,
    names: &[ObjectName],
    place: Place,
) -> Result<Answer, Refusal> {
    let relations = names.iter().map(|name| relation(leader, name)).collect::<Result<Vec<_>, _>>()?;
    let answer = tokio::time::timeout(QUERY, sql::select(text, relations)).await;
    let rows = match answer {
        Ok(rows) => rows.map_err(|e| e.at(place))?,
        Err(_) => {
            let text = format!("the query took longer than {} s", QUERY.as_secs());
            return Err(sql::Error::new(Code::State, text).at(place).into());
        }
    };
    let columns = rows
        .columns
        .into_iter()
        .map(|column| v1::ResultColumn { name: column.name, r#type: column.kind.to_string() })
        .collect();
    Ok(Answer { notices: Vec::new(), rows: Some(result_set(columns, rows.rows)) })
}

/// The columns of every progress relation.
pub(super) fn columns() -> Vec<Column> {
    let text = |name: &str| Column { name: name.to_owned(), kind: SqlType::Varchar };
    vec![
        text("shard_id"),
        text("sequence_number"),
        Column { name: "millis_behind_latest".to_owned(), kind: SqlType::Bigint },
        text("state"),
        text("parent_shard_id"),
        text("worker"),
        Column { name: "updated_at".to_owned(), kind: SqlType::Timestamptz },
        text("sink"),
    ]
}

/// The columns of a relation of the schema `sys`.
pub(super) fn system_columns(name: &str) -> Option<Vec<Column>> {
    let text = |name: &str| Column { name: name.to_owned(), kind: SqlType::Varchar };
    (name == "source_errors").then(|| {
        vec![
            text("source"),
            text("shard_id"),
            text("sequence_number"),
            text("error"),
            text("sample"),
            Column { name: "at".to_owned(), kind: SqlType::Timestamptz },
            text("policy"),
            text("sink"),
        ]
    })
}

/// No relation has this name; the hint names the nearest.
pub(super) fn unknown_relation(leader: &Leader, name: &ObjectName) -> sql::Error {
    let error = sql::Error::new(Code::UndefinedObject, format!("relation \"{}\" does not exist", name.name))
        .at(name.place);
    let mut known: Vec<String> = vec!["sys.source_errors".to_owned()];
    for spec in leader.sources() {
        known.extend([spec.name.clone(), format!("{}{PROGRESS}", spec.name)]);
    }
    match connector::nearest(&name.to_string(), known.iter().map(String::as_str)) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error,
    }
}

fn relation(leader: &Leader, name: &ObjectName) -> Result<Relation, sql::Error> {
    match name.schema.as_deref() {
        Some("sys") => {
            let columns = system_columns(&name.name).ok_or_else(|| unknown_relation(leader, name))?;
            Ok(Relation { schema: "sys", name: name.name.clone(), columns, rows: errors(leader) })
        }
        None | Some("public") => {
            if let Some(source) = name.name.strip_suffix(PROGRESS)
                && leader.source(source).is_some()
            {
                let rows = leader.splits(Some(source), None, true).into_iter().map(progress_row).collect();
                return Ok(Relation { schema: "public", name: name.name.clone(), columns: columns(), rows });
            }
            if leader.source(&name.name).is_some() {
                let text = format!("SELECT from source \"{}\"", name.name);
                let hint = format!(
                    "a source stores no rows; select from `{}{PROGRESS}` or create a sink",
                    name.name
                );
                return Err(sql::Error::unsupported(text).at(name.place).hint(hint));
            }
            Err(unknown_relation(leader, name))
        }
        Some(other) => {
            let text = format!("schema \"{other}\" does not exist");
            Err(sql::Error::new(Code::UndefinedObject, text).at(name.place))
        }
    }
}

fn progress_row(split: SplitStatus) -> Vec<Option<String>> {
    let some = |text: String| (!text.is_empty()).then_some(text);
    let age = split.checkpoint_age.map(|age| age.seconds * 1000 + i64::from(age.nanos) / 1_000_000);
    vec![
        Some(split.split),
        sequence_number(&split.position),
        split.lag_ms.map(|ms| ms.to_string()),
        Some(split.state),
        some(split.parents.join(",")),
        some(split.worker),
        age.and_then(|age| moment(clock::wall_ms() - age)),
        some(split.sink),
    ]
}

/// The offset in `after 4959…:3`; nothing before the first checkpoint and after the end.
fn sequence_number(position: &str) -> Option<String> {
    let cursor = position.strip_prefix("after ")?;
    Some(cursor.split_once(':').map_or(cursor, |(offset, _)| offset).to_owned())
}

fn errors(leader: &Leader) -> Vec<Vec<Option<String>>> {
    leader
        .bad_rows()
        .into_iter()
        .map(|row| {
            vec![
                Some(row.source),
                Some(row.split),
                Some(model::Cursor::new(row.record.cursor).offset().to_owned()),
                Some(row.record.error),
                Some(base64(&row.record.sample)),
                moment(row.record.at_ms),
                Some(row.record.policy),
                Some(row.sink),
            ]
        })
        .collect()
}

pub(super) fn moment(ms: i64) -> Option<String> {
    DateTime::<Utc>::from_timestamp_millis(ms).map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true))
}

fn base64(bytes: &[u8]) -> String {
    use ::base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_position_after_a_record_has_a_sequence_number() {
        assert_eq!(sequence_number("after 4959").as_deref(), Some("4959"));
        assert_eq!(sequence_number("after 4959:3").as_deref(), Some("4959"));
        assert_eq!(sequence_number("start (horizon)"), None);
        assert_eq!(sequence_number("end"), None);
    }
}
