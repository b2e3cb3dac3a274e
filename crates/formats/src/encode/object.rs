//! One JSON object per row. Members are sorted by name once; their names are escaped once.

use arrow::record_batch::RecordBatch;
use model::SinkSpec;

use super::{cell::Cell, connect, modes::Modes};
use crate::{FormatError, json::write_text};

/// The members of an object, in the order in which they are written.
pub(super) struct ObjectPlan {
    /// What stands before and after the object.
    around: (Vec<u8>, Vec<u8>),
    /// What stands before the value (`{"a":`, `,"b":`), and the column of the value.
    members: Vec<(Vec<u8>, usize)>,
}

impl ObjectPlan {
    /// The object of these columns of the sink.
    pub(super) fn new(spec: &SinkSpec, columns: &[usize], modes: &Modes) -> Self {
        let around =
            if modes.schemas { connect::wrapping(spec, columns, modes) } else { (Vec::new(), Vec::new()) };
        let names = columns.iter().map(|i| (spec.columns[*i].name.as_str(), *i));
        Self { around, members: member_prefixes(names) }
    }

    /// The plan with the columns of a batch.
    pub(super) fn bind<'a>(&'a self, rows: &'a RecordBatch) -> Result<BoundObject<'a>, FormatError> {
        let members = self
            .members
            .iter()
            .map(|(prefix, index)| Ok((prefix.as_slice(), Cell::of(rows, *index)?)))
            .collect::<Result<_, FormatError>>()?;
        Ok(BoundObject { plan: self, members })
    }
}

/// Each of `names` with what stands before its value, sorted by name bytewise.
pub(super) fn member_prefixes<'a>(names: impl Iterator<Item = (&'a str, usize)>) -> Vec<(Vec<u8>, usize)> {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    let prefix = |(i, (name, index)): (usize, (&str, usize))| {
        let mut prefix = vec![if i == 0 { b'{' } else { b',' }];
        write_text(name, &mut prefix);
        prefix.push(b':');
        (prefix, index)
    };
    names.into_iter().enumerate().map(prefix).collect()
}

/// An object whose values are at hand.
pub(super) struct BoundObject<'a> {
    plan: &'a ObjectPlan,
    members: Vec<(&'a [u8], Cell<'a>)>,
}

impl BoundObject<'_> {
    /// Appends the object of a row. After an error the end of `out` is garbage.
    pub(super) fn write(&self, row: usize, modes: &Modes, out: &mut Vec<u8>) -> Result<(), String> {
        out.extend_from_slice(&self.plan.around.0);
        for (prefix, cell) in &self.members {
            out.extend_from_slice(prefix);
            cell.write(row, modes, out)?;
        }
        out.extend_from_slice(if self.members.is_empty() { b"{}" } else { b"}" });
        out.extend_from_slice(&self.plan.around.1);
        Ok(())
    }
}
