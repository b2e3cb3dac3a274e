//! `ENCODE BYTES`: the payload is the row's one declared column. Nothing is parsed, and nothing large is copied.

use std::sync::Arc;

use arrow::{
    array::RecordBatchOptions,
    datatypes::{Schema, SchemaRef},
    record_batch::RecordBatch,
};
use model::{IncludeKind, RawRecord, SourceSpec, SplitId, SqlType};

use super::{Decoder, Malformed, column::Column, include, unknown_column};
use crate::FormatError;

/// See the module.
pub(super) struct BytesDecoder {
    schema: SchemaRef,
    /// `None` is the payload.
    columns: Vec<(Option<IncludeKind>, Column)>,
    rows: usize,
}

impl BytesDecoder {
    /// A decoder of the columns `wanted`.
    pub(super) fn new(spec: &SourceSpec, wanted: &[String]) -> Result<Self, FormatError> {
        let mut columns = Vec::with_capacity(wanted.len());
        let mut fields = Vec::with_capacity(wanted.len());
        for name in wanted {
            if let Some(included) = spec.include.iter().find(|i| i.column.name == *name) {
                columns.push((Some(included.kind), include::column(included.kind)));
                fields.push(included.column.arrow());
            } else if let Some(payload) = spec.columns.iter().find(|c| c.name == *name) {
                columns.push((None, Column::new(&SqlType::Bytea)));
                fields.push(payload.arrow());
            } else {
                return Err(unknown_column(spec, name));
            }
        }
        Ok(Self { schema: Arc::new(Schema::new(fields)), columns, rows: 0 })
    }
}

impl Decoder for BytesDecoder {
    fn decode(&mut self, record: &RawRecord, split: &SplitId) -> Result<(), Malformed> {
        for (kind, column) in &mut self.columns {
            match kind {
                None => column.push_bytes(&record.payload),
                Some(kind) => include::append(column, *kind, record, split, None),
            }
        }
        self.rows += 1;
        Ok(())
    }

    fn len(&self) -> usize {
        self.rows
    }

    fn finish(&mut self) -> RecordBatch {
        let columns = self.columns.iter_mut().map(|(_, column)| column.finish()).collect();
        let rows = RecordBatchOptions::new().with_row_count(Some(std::mem::take(&mut self.rows)));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &rows)
            .expect("every column has the type of its field and a row per record")
    }
}
