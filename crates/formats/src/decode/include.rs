//! The metadata columns of `INCLUDE`.

use model::{IncludeKind, RawRecord, SplitId, SqlType};

use super::column::{Cells, Column};
use crate::json;

/// The column that carries this kind of metadata.
pub(super) fn column(kind: IncludeKind) -> Column {
    Column::new(match kind {
        IncludeKind::Key => &SqlType::Bytea,
        IncludeKind::Partition | IncludeKind::Offset => &SqlType::Varchar,
        IncludeKind::Timestamp => &SqlType::Timestamptz,
        IncludeKind::Payload => &SqlType::Jsonb,
    })
}

/// Appends the row of `record`. `payload` is its JSON text, known to be well formed; `None` if it is no jsonb.
pub(super) fn append(
    column: &mut Column,
    kind: IncludeKind,
    record: &RawRecord,
    split: &SplitId,
    payload: Option<&str>,
) {
    match kind {
        IncludeKind::Key => column.push_bytes(&record.key),
        IncludeKind::Partition => column.push_text(split.name()),
        IncludeKind::Offset => column.push_text(record.cursor.offset()),
        IncludeKind::Timestamp => {
            if let Cells::Timestamptz(cells) = &mut column.cells {
                cells.push(record.arrived_at.0.saturating_mul(1000));
                column.valid();
            }
        }
        IncludeKind::Payload => {
            let Some(payload) = payload else { return column.push_null() };
            if let Cells::Jsonb(cells) = &mut column.cells {
                json::compact(payload, &mut cells.bytes);
                cells.end();
                column.valid();
            }
        }
    }
}
