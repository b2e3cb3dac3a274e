//! `SHOW`, `SHOW CREATE`, `SHOW ERRORS`, `DESCRIBE` (docs/sql.md, SHOW, DESCRIBE, EXPLAIN).

use std::time::Duration;

use model::{Column, ObjectKind};
use sql::{Code, InspectTarget, ObjectName};

use crate::handle::{BadRow, Leader};

use super::{
    balance, credential, progress,
    refuse::Refusal,
    statement::{Answer, missing_near},
};

/// What is put behind a source's name for its progress relation.
pub(super) const PROGRESS: &str = "_progress";

pub(super) const TEXT: &str = "character varying";

/// `SHOW SOURCES | SINKS | WORKERS | SPLITS | SCALE`
pub(super) fn list(
    leader: &Leader,
    target: InspectTarget,
    from: Option<&ObjectName>,
    like: Option<&str>,
) -> Result<Answer, Refusal> {
    let matches = |name: &str| like.is_none_or(|pattern| is_like(name, pattern));
    match target {
        InspectTarget::Splits => return splits(leader, from, &matches),
        InspectTarget::Scale => return Ok(balance::scale(leader)),
        InspectTarget::Workers if from.is_some() => {
            return Err(sql::Error::new(Code::Bind, "SHOW WORKERS has no FROM").into());
        }
        _ => {}
    }
    if let Some(schema) = from
        && schema.name != "public"
    {
        let text = format!("schema \"{}\" does not exist", schema.name);
        return Err(sql::Error::new(Code::UndefinedObject, text).at(schema.place).into());
    }
    Ok(match target {
        InspectTarget::Sources => sources(leader, &matches),
        InspectTarget::Sinks => sinks(leader, &matches),
        InspectTarget::Credentials => credential::list(leader, &matches),
        _ => workers(leader, &matches),
    })
}

fn sources(leader: &Leader, matches: &dyn Fn(&str) -> bool) -> Answer {
    let mut rows = Vec::new();
    for spec in leader.sources() {
        let progress = format!("{}{PROGRESS}", spec.name);
        for (name, kind, connector) in
            [(spec.name.as_str(), "source", spec.connector.as_str()), (&progress, "progress", "")]
        {
            if matches(name) {
                rows.push(texts([&format!("public.{name}"), kind, connector]));
            }
        }
    }
    rows.sort();
    Answer::rows(&[("Name", TEXT), ("Type", TEXT), ("Connector", TEXT)], rows)
}

fn sinks(leader: &Leader, matches: &dyn Fn(&str) -> bool) -> Answer {
    let status = leader.status();
    let mut rows: Vec<_> = leader
        .sinks()
        .iter()
        .filter(|spec| matches(&spec.name))
        .map(|spec| {
            let state =
                status.sinks.iter().find(|s| s.name == spec.name).map_or("running", |s| s.state.as_str());
            let format = sql::format_word(spec.format.as_ref());
            texts([&format!("public.{}", spec.name), format, &spec.connector, state])
        })
        .collect();
    rows.sort();
    Answer::rows(&[("Name", TEXT), ("Type", TEXT), ("Connector", TEXT), ("Status", TEXT)], rows)
}

fn workers(leader: &Leader, matches: &dyn Fn(&str) -> bool) -> Answer {
    let rows = leader
        .workers()
        .into_iter()
        .filter(|worker| matches(&worker.name))
        .map(|worker| {
            let heard = worker.heard_ago.map(seconds);
            vec![
                Some(worker.name),
                Some(worker.state),
                Some(worker.tasks.to_string()),
                Some(worker.capacity.to_string()),
                (worker.cores > 0).then(|| format!("{:.0} %", worker.cpu * 100.0 / f64::from(worker.cores))),
                Some(worker.version),
                Some(worker.zone),
                heard,
            ]
        })
        .collect();
    let columns = [
        ("Name", TEXT),
        ("State", TEXT),
        ("Tasks", "integer"),
        ("Capacity", "integer"),
        ("Cpu", TEXT),
        ("Version", TEXT),
        ("Zone", TEXT),
        ("Heard Ago", TEXT),
    ];
    Answer::rows(&columns, rows)
}

fn splits(
    leader: &Leader,
    from: Option<&ObjectName>,
    matches: &dyn Fn(&str) -> bool,
) -> Result<Answer, Refusal> {
    if let Some(name) = from {
        sql::check_name(ObjectKind::Source, name)?;
        if leader.source(&name.name).is_none() {
            return Err(missing_near(leader, ObjectKind::Source, name).into());
        }
    }
    let rows = leader
        .splits(from.map(|name| name.name.as_str()), None, true)
        .into_iter()
        .filter(|split| matches(&split.split))
        .map(|split| {
            let some = |text: String| (!text.is_empty()).then_some(text);
            let reason = some(split.waits_for).or_else(|| some(split.error)).or_else(|| some(split.advice));
            vec![
                Some(split.source),
                Some(split.sink),
                Some(split.split),
                Some(split.state),
                some(split.worker),
                Some(split.position),
                split.lag_ms.map(|ms| ms.to_string()),
                reason,
            ]
        })
        .collect();
    let columns = [
        ("Source", TEXT),
        ("Sink", TEXT),
        ("Split", TEXT),
        ("State", TEXT),
        ("Worker", TEXT),
        ("Position", TEXT),
        ("Lag Ms", "bigint"),
        ("Reason", TEXT),
    ];
    Ok(Answer::rows(&columns, rows))
}

/// `SHOW CREATE SOURCE | SINK`
pub(super) fn create(leader: &Leader, kind: ObjectKind, name: &ObjectName) -> Result<Answer, Refusal> {
    sql::check_name(kind, name)?;
    let (ddl, title) = match kind {
        ObjectKind::Source => {
            (leader.source(&name.name).map(|spec| (spec.id, sql::source_ddl(&spec))), "Source Name")
        }
        ObjectKind::Sink => {
            (leader.sink(&name.name).map(|spec| (spec.id, sql::sink_ddl(&spec))), "Sink Name")
        }
        ObjectKind::Credential => {
            let spec = leader.credential(&name.name);
            (spec.map(|spec| (spec.id, sql::credential_ddl(&spec))), "Credential Name")
        }
    };
    let (id, ddl) = ddl.ok_or_else(|| missing_near(leader, kind, name))?;
    let row = texts([&format!("public.{}", name.name), &ddl]);
    let mut answer = Answer::rows(&[(title, TEXT), ("Create Sql", TEXT)], vec![row]);
    answer.notices.extend(leader.is_plain(id).then(|| leader.way_out_of_plain()));
    Ok(answer)
}

/// The newest bad records of a source or a sink, the newest first.
pub(super) fn bad_rows(leader: &Leader, name: &ObjectName) -> Result<Vec<BadRow>, sql::Error> {
    sql::check_name(ObjectKind::Source, name)?;
    if leader.source(&name.name).is_none() && leader.sink(&name.name).is_none() {
        let text = format!("no source and no sink is named \"{}\"", name.name);
        let error = sql::Error::new(Code::UndefinedObject, text).at(name.place);
        let (sources, sinks) = (leader.sources(), leader.sinks());
        let names = sources.iter().map(|s| s.name.as_str()).chain(sinks.iter().map(|s| s.name.as_str()));
        return Err(match connector::nearest(&name.name, names) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error,
        });
    }
    let mut rows = leader.bad_rows();
    rows.retain(|row| row.source == name.name || row.sink == name.name);
    rows.sort_by_key(|row| std::cmp::Reverse(row.record.at_ms));
    Ok(rows)
}

/// `SHOW ERRORS FOR source | sink`
pub(super) fn errors(leader: &Leader, name: &ObjectName) -> Result<Answer, Refusal> {
    let rows = bad_rows(leader, name)?;
    let rows = rows.into_iter().map(|row| {
        vec![
            Some(row.source),
            Some(row.sink),
            Some(row.split),
            Some(row.record.cursor),
            Some(row.record.error),
            Some(printable(&row.record.sample)),
            progress::moment(row.record.at_ms),
            Some(row.record.policy),
        ]
    });
    let columns = [
        ("Source", TEXT),
        ("Sink", TEXT),
        ("Split", TEXT),
        ("Position", TEXT),
        ("Error", TEXT),
        ("First Bytes", TEXT),
        ("At", "timestamp with time zone"),
        ("Policy", TEXT),
    ];
    Ok(Answer::rows(&columns, rows.collect()))
}

/// Bytes as text on one line: what is no text, and what a terminal would act on, is escaped.
fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
        }
        chunk.invalid().iter().for_each(|byte| text.extend(byte.escape_ascii().map(char::from)));
    }
    text
}

/// `DESCRIBE name`: a source, a progress relation, `sys.source_errors`, or a sink.
pub(super) fn describe(leader: &Leader, name: &ObjectName) -> Result<Answer, Refusal> {
    let (columns, key) = if name.schema.as_deref() == Some("sys") {
        let columns =
            progress::system_columns(&name.name).ok_or_else(|| progress::unknown_relation(leader, name))?;
        (columns, Vec::new())
    } else {
        sql::check_name(ObjectKind::Source, name)?;
        described(leader, name)?
    };
    let mut rows: Vec<_> = columns
        .iter()
        .map(|column| {
            vec![Some(column.name.clone()), Some(column.kind.to_string()), Some("false".to_owned()), None]
        })
        .collect();
    if !key.is_empty() {
        rows.push(vec![Some("primary key".to_owned()), Some(key.join(", ")), None, None]);
    }
    Ok(Answer::rows(&[("Name", TEXT), ("Type", TEXT), ("Is Hidden", TEXT), ("Description", TEXT)], rows))
}

fn described(leader: &Leader, name: &ObjectName) -> Result<(Vec<Column>, Vec<String>), Refusal> {
    if let Some(spec) = leader.source(&name.name) {
        return Ok((spec.all_columns().cloned().collect(), spec.primary_key.clone()));
    }
    if let Some(owner) = name.name.strip_suffix(PROGRESS)
        && leader.source(owner).is_some()
    {
        return Ok((progress::columns(), vec!["shard_id".to_owned(), "sink".to_owned()]));
    }
    match leader.sink(&name.name) {
        Some(spec) => Ok((spec.columns.clone(), spec.primary_key.clone())),
        None => Err(progress::unknown_relation(leader, name).into()),
    }
}

pub(super) fn texts<const N: usize>(values: [&str; N]) -> Vec<Option<String>> {
    values.iter().map(|text| Some((*text).to_owned())).collect()
}

fn seconds(span: prost_types::Duration) -> String {
    let span =
        Duration::new(u64::try_from(span.seconds).unwrap_or(0), u32::try_from(span.nanos).unwrap_or(0));
    format!("{:.1}s", span.as_secs_f64())
}

/// SQL's LIKE: `%` any run of characters, `_` any one, a backslash takes the next one as it is.
fn is_like(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
    let (mut t, mut p) = (0, 0);
    // Where the last `%` stood, and how far the text was then: one more character is given to it at each failure.
    let mut any: Option<(usize, usize)> = None;
    loop {
        let literal = match pattern.get(p) {
            Some('\\') if p + 1 < pattern.len() => Some((pattern[p + 1], 2)),
            Some('%') => {
                any = Some((p, t));
                p += 1;
                continue;
            }
            Some(c) => Some((*c, 1)),
            None => None,
        };
        let escaped = matches!(literal, Some((_, 2)));
        match (literal, text.get(t)) {
            (None, None) => return true,
            (Some((c, length)), Some(found)) if c == *found || (c == '_' && !escaped) => {
                (t, p) = (t + 1, p + length);
            }
            _ => match any {
                Some((at, taken)) if taken < text.len() => {
                    any = Some((at, taken + 1));
                    (t, p) = (taken + 1, at + 1);
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_escaped() {
        assert_eq!(printable("{\"é\":1}\n\u{1b}[31m".as_bytes()), "{\"é\":1}\\n\\u{1b}[31m");
        assert_eq!(printable(&[b'a', 0xff, 0xc3]), "a\\xff\\xc3");
    }

    #[test]
    fn like_knows_runs_single_characters_and_escapes() {
        for (text, pattern, wanted) in [
            ("clicks", "clicks", true),
            ("clicks", "c%", true),
            ("clicks", "%s", true),
            ("clicks", "%ick%", true),
            ("clicks", "c_icks", true),
            ("clicks", "c_cks", false),
            ("clicks", "", false),
            ("", "%", true),
            ("a%b", "a\\%b", true),
            ("axb", "a\\%b", false),
            ("a_b", "a\\_b", true),
            ("axb", "a\\_b", false),
            ("aaab", "%ab", true),
            ("aaab", "%ac", false),
        ] {
            assert_eq!(is_like(text, pattern), wanted, "{text} LIKE {pattern}");
        }
    }
}
