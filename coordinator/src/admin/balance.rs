//! `EXPLAIN REBALANCE`, `REBALANCE`, `SHOW SCALE` (docs/sql.md, Balance).

use std::time::Duration;

use logic::plan::Rebalance;

use crate::handle::Leader;

use super::{refuse::Refusal, statement::Answer};

const TEXT: &str = "character varying";

/// What would move, and as notices why it does not move by itself.
pub(super) fn explain(leader: &Leader) -> Answer {
    let found = leader.explain_rebalance();
    let mut answer = moves(leader, &found);
    let own = (found.by_itself > 0).then(|| {
        format!("{} of {} moves are about to begin by themselves", found.by_itself, found.moves.len())
    });
    let refused = found.refused.as_ref().map(|why| format!("REBALANCE would be refused: {why}"));
    answer.notices = refused.into_iter().chain(own).chain(found.notes).collect();
    answer
}

/// Begins to move, and says what.
pub(super) fn begin(leader: &Leader) -> Result<Answer, Refusal> {
    let found = leader.rebalance()?;
    let mut answer = moves(leader, &found);
    if found.moves.is_empty() {
        answer.notices = found.notes;
    }
    Ok(answer)
}

fn moves(leader: &Leader, found: &Rebalance) -> Answer {
    let columns =
        [("Source", TEXT), ("Sink", TEXT), ("Split", TEXT), ("From", TEXT), ("To", TEXT), ("Why", TEXT)];
    let row = |one: &logic::assign::Move| {
        let rest = [one.from.clone(), one.to.clone(), one.why.to_string()];
        leader.names(&one.task).into_iter().chain(rest).map(Some).collect()
    };
    Answer::rows(&columns, found.moves.iter().map(row).collect())
}

/// How many workers would be right.
pub(super) fn scale(leader: &Leader) -> Answer {
    let found = leader.scale();
    let percent = |part: f64| format!("{:.0} %", part * 100.0);
    let seconds = |span: Option<prost_types::Duration>| {
        let span = span.and_then(|span| Duration::try_from(span).ok()).unwrap_or_default();
        format!("{:.1} s", span.as_secs_f64())
    };
    let rows = [
        ("workers", found.workers.to_string()),
        ("workers wanted", found.wanted.to_string()),
        ("why", found.why),
        ("lag max", seconds(found.lag_max)),
        ("lag p90", seconds(found.lag_p90)),
        ("cpu", percent(found.cpu)),
        ("memory budget", percent(found.budget)),
    ];
    let rows = rows.into_iter().map(|(name, value)| vec![Some(name.to_owned()), Some(value)]).collect();
    Answer::rows(&[("Signal", TEXT), ("Value", TEXT)], rows)
}
