//! `ENCODE JSON`: one object per record, its members written straight into columns.
//!
//! A record is malformed if it is not one JSON object in UTF-8, or if a column of the declared key has no value; then all
//! its cells are taken back. A value that does not fit its column is NULL and counted; the record stays.

use std::sync::Arc;

use arrow::{
    array::RecordBatchOptions,
    datatypes::{Schema, SchemaRef},
    record_batch::RecordBatch,
};
use model::{IncludeKind, RawRecord, SourceSpec, SplitId};

use super::{
    Decoder, Malformed,
    column::Column,
    fields::Members,
    include,
    text::TimestamptzMode,
    unknown_column,
    value::{self, Rules},
};
use crate::{
    FormatError,
    json::{Scanner, Token},
};

/// Where a column of the batch comes from.
#[derive(Clone, Copy)]
enum Origin {
    Member(usize),
    Include(usize),
}

/// See the module.
pub(super) struct JsonDecoder {
    schema: SchemaRef,
    origins: Vec<Origin>,
    members: Members,
    columns: Vec<Column>,
    included: Vec<(IncludeKind, Column)>,
    /// Columns that must not be NULL: name and index.
    key: Vec<(String, usize)>,
    rules: Rules,
    rows: usize,
}

impl JsonDecoder {
    /// A decoder of the columns `wanted`. Those of the declared key are read in any case, so that what is malformed for one
    /// sink is so for all.
    pub(super) fn new(spec: &SourceSpec, wanted: &[String]) -> Result<Self, FormatError> {
        let mut names: Vec<&str> = Vec::new();
        let mut columns = Vec::new();
        let mut member = |name: &str| {
            let declared = spec.columns.iter().find(|c| c.name == name)?;
            Some(names.iter().position(|n| *n == name).unwrap_or_else(|| {
                names.push(&declared.name);
                columns.push(Column::new(&declared.kind));
                names.len() - 1
            }))
        };
        let (mut origins, mut fields, mut included) = (Vec::new(), Vec::new(), Vec::new());
        for name in wanted {
            let column =
                spec.all_columns().find(|c| c.name == *name).ok_or_else(|| unknown_column(spec, name))?;
            fields.push(column.arrow());
            if let Some(include) = spec.include.iter().find(|i| i.column.name == *name) {
                origins.push(Origin::Include(included.len()));
                included.push((include.kind, include::column(include.kind)));
            } else {
                origins.push(Origin::Member(member(name).expect("it is among the declared columns")));
            }
        }
        // A key column of INCLUDE always has a value.
        let key = spec.primary_key.iter().filter_map(|name| Some((name.clone(), member(name)?))).collect();
        let members = Members::new(names.into_iter());
        let rules = Rules::new(TimestamptzMode::read(&spec.format.options)?);
        let schema = Arc::new(Schema::new(fields));
        Ok(Self { schema, origins, members, columns, included, key, rules, rows: 0 })
    }

    /// Appends one row to every declared column, or part of one and an error.
    fn read<'a>(&mut self, payload: &'a [u8]) -> Result<&'a str, Malformed> {
        let text = if payload.is_empty() {
            self.columns.iter_mut().for_each(Column::push_null);
            "{}"
        } else {
            let text = text_of(payload)?;
            let mut scanner = Scanner::new(text);
            if scanner.token()? != Token::Object {
                return Err(Malformed::new("the record is not a JSON object"));
            }
            value::read_members(
                &mut self.members,
                &mut self.columns,
                self.rows,
                &mut scanner,
                &mut self.rules,
            )?;
            scanner.end()?;
            text
        };
        for (name, index) in &self.key {
            if self.columns[*index].last_is_null() {
                return Err(Malformed::new(format!("key column `{name}` has no value")));
            }
        }
        Ok(text)
    }
}

fn text_of(payload: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(payload)
        .map_err(|e| Malformed::new(format!("invalid UTF-8 at byte {}", e.valid_up_to())))
}

impl Decoder for JsonDecoder {
    fn decode(&mut self, record: &RawRecord, split: &SplitId) -> Result<(), Malformed> {
        let bad_before = self.rules.bad_values;
        let payload = match self.read(&record.payload) {
            Ok(text) => text,
            Err(malformed) => {
                self.columns.iter_mut().for_each(|c| c.truncate(self.rows));
                self.rules.bad_values = bad_before;
                return Err(malformed);
            }
        };
        let shown = self.included.iter().any(|(kind, _)| *kind == IncludeKind::Payload);
        let payload = match shown && !value::can_be_written(payload, &mut self.rules.scratch) {
            true => None,
            false => Some(payload),
        };
        self.rules.bad_values += u64::from(payload.is_none());
        for (kind, column) in &mut self.included {
            include::append(column, *kind, record, split, payload);
        }
        self.rows += 1;
        Ok(())
    }

    fn len(&self) -> usize {
        self.rows
    }

    fn bad_values(&self) -> u64 {
        self.rules.bad_values
    }

    fn finish(&mut self) -> RecordBatch {
        let members: Vec<_> = self.columns.iter_mut().map(Column::finish).collect();
        let included: Vec<_> = self.included.iter_mut().map(|(_, column)| column.finish()).collect();
        let columns = self
            .origins
            .iter()
            .map(|origin| match origin {
                Origin::Member(i) => members[*i].clone(),
                Origin::Include(i) => included[*i].clone(),
            })
            .collect();
        let rows = RecordBatchOptions::new().with_row_count(Some(std::mem::take(&mut self.rows)));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &rows)
            .expect("every column has the type of its field and a row per record")
    }
}
