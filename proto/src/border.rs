//! Messages to the model's types and back. Whatever a message lacks is refused with the field's name.

use model::{Creation, Cursor, Epoch, Position, SplitId, StartFrom, TaskId, Timestamp};

use crate::v1;

/// A message that does not say what it must.
#[derive(Debug, thiserror::Error)]
#[error("bad message: {0}")]
pub struct BadMessage(pub String);

impl From<Epoch> for v1::Epoch {
    fn from(epoch: Epoch) -> Self {
        Self { generation: epoch.generation, revision: epoch.revision }
    }
}

impl From<v1::Epoch> for Epoch {
    fn from(epoch: v1::Epoch) -> Self {
        Self { generation: epoch.generation, revision: epoch.revision }
    }
}

impl From<&TaskId> for v1::Task {
    fn from(task: &TaskId) -> Self {
        Self {
            sink_id: task.sink.to_string(),
            creation_ms: task.split().map_or(0, |split| split.creation().0),
            split: task.split().map(|split| split.name().to_owned()).unwrap_or_default(),
            partition: task.partition(),
        }
    }
}

impl TryFrom<&v1::Task> for TaskId {
    type Error = BadMessage;
    fn try_from(task: &v1::Task) -> Result<Self, BadMessage> {
        let sink = task.sink_id.parse().map_err(|e| BadMessage(format!("task: {e}")))?;
        match (task.partition, task.split.is_empty()) {
            (Some(n), true) => Ok(Self::writes(sink, n)),
            (None, false) => Ok(Self::reads(sink, SplitId::new(Creation(task.creation_ms), &task.split))),
            _ => Err(BadMessage("task with neither or both of split and partition".to_owned())),
        }
    }
}

/// The position as a message.
#[must_use]
pub fn position_to_wire(position: &Position) -> v1::Position {
    use v1::position::At;
    let at = match position {
        Position::Start(StartFrom::Horizon) => At::Horizon(v1::position::Horizon {}),
        Position::Start(StartFrom::At(at)) => At::TimestampMs(at.0),
        Position::Start(StartFrom::AtCursor(cursor)) => At::AtCursor(cursor.as_str().to_owned()),
        Position::After(cursor) => At::AfterCursor(cursor.as_str().to_owned()),
        Position::End => At::End(v1::position::End {}),
    };
    v1::Position { at: Some(at) }
}

impl TryFrom<v1::Position> for Position {
    type Error = BadMessage;
    fn try_from(position: v1::Position) -> Result<Self, BadMessage> {
        use v1::position::At;
        Ok(match position.at.ok_or_else(|| BadMessage("empty position".to_owned()))? {
            At::Horizon(_) => Self::Start(StartFrom::Horizon),
            At::TimestampMs(at) => Self::Start(StartFrom::At(Timestamp(at))),
            At::AtCursor(cursor) => Self::Start(StartFrom::AtCursor(Cursor::new(cursor))),
            At::AfterCursor(cursor) => Self::After(Cursor::new(cursor)),
            At::End(_) => Self::End,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_survive_the_wire() {
        let all = [
            Position::Start(StartFrom::Horizon),
            Position::Start(StartFrom::At(Timestamp(7))),
            Position::Start(StartFrom::AtCursor(Cursor::new("4959"))),
            Position::After(Cursor::new("4959:3")),
            Position::End,
        ];
        for position in all {
            assert_eq!(Position::try_from(position_to_wire(&position)).unwrap(), position);
        }
        assert!(Position::try_from(v1::Position { at: None }).is_err());
    }
}
