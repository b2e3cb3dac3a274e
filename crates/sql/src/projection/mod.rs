//! The `SELECT … WHERE` of a sink, compiled once and evaluated on every batch. The worker calls it.
//!
//! `plan` turns the text into DataFusion's physical expressions, `rewrite` maps our SQL (`->`, `::jsonb`, `(c).f`) to what
//! DataFusion knows, `functions` are the functions it lacks, `arithmetic` what its arithmetic does otherwise, `numeric` carries decimals in and out.
//!
//! Rows keep their ops and cursors (I1: a filtered row still counts as read, which the caller knows from the batch it
//! passed in). A column that is only passed through is not touched: a numeric keeps its text, bytes are not copied. A row
//! whose expressions fail (a cast, a division by zero) is named with its reason and does not spoil the others.

mod arithmetic;
mod functions;
mod numeric;
mod plan;
mod rewrite;

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array},
    compute::{concat_batches, take},
    datatypes::{Schema, SchemaRef},
    error::ArrowError,
};
use datafusion::physical_expr::PhysicalExpr;
use model::{Batch, Column, Op, Ops, SqlType};

pub(crate) use numeric::{strict, text_at, to_text};
pub(crate) use plan::{configure, name_of, refusal};

use crate::{Code, Error, Result, bounds::with_room};

/// Where an output column comes from.
#[derive(Debug)]
enum Output {
    /// The input column of this name, as it is.
    Input(String),
    /// An expression over the evaluation schema.
    Computed(Arc<dyn PhysicalExpr>),
}

/// A compiled `SELECT … FROM … [WHERE …]`.
#[derive(Debug)]
pub struct Projection {
    inputs: Vec<String>,
    columns: Vec<Column>,
    /// What each output column is made of, in canonical text.
    origins: Vec<String>,
    outputs: Vec<Output>,
    filter: Option<Condition>,
    /// What the select list sees.
    scope: Scope,
    schema: SchemaRef,
    relation: String,
}

/// What `WHERE` says. It sees its own columns only: a row that it leaves out cannot fail by another one.
#[derive(Debug)]
struct Condition {
    scope: Scope,
    holds: Arc<dyn PhysicalExpr>,
}

/// What expressions see: the columns they name, numerics as decimals.
#[derive(Debug)]
struct Scope {
    columns: Vec<Column>,
    schema: SchemaRef,
}

/// Rows that came through: which they were, and what became of them.
struct Piece {
    kept: Vec<u32>,
    rows: RecordBatch,
}

impl Projection {
    /// Compiles the canonical text of a sink's query against the columns of its source.
    ///
    /// # Errors
    /// What does not parse, names that do not exist, types that do not fit, and what a sink's query may not say.
    pub fn compile(query: &str, input: &[Column]) -> Result<Self> {
        with_room(|| plan::compile(query, input))
    }

    /// The input columns that it needs, in the order of the input. Others may be missing from a batch.
    #[must_use]
    pub fn inputs(&self) -> &[String] {
        &self.inputs
    }

    /// The columns that come out.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// What the output column of this name is made of: the input column, or the expression in canonical text.
    #[must_use]
    pub fn origin(&self, column: &str) -> Option<&str> {
        let at = self.columns.iter().position(|c| c.name == column)?;
        self.origins.get(at).map(String::as_str)
    }

    /// The relation in its `FROM`, folded.
    #[must_use]
    pub fn relation(&self) -> &str {
        &self.relation
    }

    /// Evaluates `WHERE`, then the select list. Rows that fail are left out and named: their index in `batch`, and why.
    ///
    /// # Errors
    /// An input column is missing from the batch: the caller asked the decoder for the wrong ones.
    pub fn apply(&self, batch: Batch) -> Result<(Batch, Vec<(usize, String)>)> {
        let Batch { rows, ops, cursors } = batch;
        let total = rows.num_rows();
        let mut bad = Vec::new();
        let mut pieces = Vec::new();
        self.evaluate(&rows, 0..total, &mut pieces, &mut bad)?;
        let (kept, out) = self.join(pieces)?;
        bad.sort_by_key(|(row, _): &(usize, String)| *row);
        if kept.len() == total {
            return Ok((Batch { rows: out, ops, cursors }, bad));
        }
        let ops = kept_ops(&ops, &kept);
        let cursors = kept.iter().map(|&row| cursors[row as usize].clone()).collect();
        Ok((Batch { rows: out, ops, cursors }, bad))
    }

    /// Evaluates a range of rows at once; if that fails, its halves, down to the row that is to blame.
    fn evaluate(
        &self,
        rows: &RecordBatch,
        range: Range<usize>,
        pieces: &mut Vec<Piece>,
        bad: &mut Vec<(usize, String)>,
    ) -> Result<()> {
        let slice = rows.slice(range.start, range.len());
        self.require(&slice)?;
        match self.piece(&slice, range.start) {
            Ok(piece) => pieces.push(piece),
            Err(reason) if range.len() <= 1 => bad.push((range.start, reason)),
            Err(_) => {
                let middle = range.start + range.len() / 2;
                self.evaluate(rows, range.start..middle, pieces, bad)?;
                self.evaluate(rows, middle..range.end, pieces, bad)?;
            }
        }
        Ok(())
    }

    fn require(&self, rows: &RecordBatch) -> Result<()> {
        match self.inputs.iter().find(|name| rows.column_by_name(name).is_none()) {
            Some(name) => {
                Err(Error::new(Code::UndefinedColumn, format!("column \"{name}\" is not in the batch")))
            }
            None => Ok(()),
        }
    }

    fn piece(&self, rows: &RecordBatch, first: usize) -> Result<Piece, String> {
        let (tested, kept) = match &self.filter {
            None => (None, None),
            Some(condition) => {
                let (tested, kept) = condition.rows(rows)?;
                (Some(tested), Some(kept))
            }
        };
        let select = |array: &ArrayRef| match &kept {
            Some(kept) if kept.len() < rows.num_rows() => take(array, kept, None),
            _ => Ok(array.clone()),
        };
        let count = kept.as_ref().map_or(rows.num_rows(), UInt32Array::len);
        let tested = |name: &str| tested.as_ref().and_then(|tested| tested.column_by_name(name));
        let seen = self.scope.of(count, |column| match tested(&column.name) {
            // Its decimals are made already.
            Some(array) => select(array),
            None => seen(&select(named(rows, column)?)?, column),
        });
        let seen = seen.map_err(|e| reason(&e))?;
        let mut columns = Vec::with_capacity(self.outputs.len());
        for (output, column) in self.outputs.iter().zip(&self.columns) {
            columns.push(match output {
                Output::Input(name) => {
                    let array =
                        rows.column_by_name(name).ok_or_else(|| format!("column \"{name}\" is missing"))?;
                    select(array).map_err(|e| reason(&e))?
                }
                Output::Computed(expression) => {
                    let array = expression
                        .evaluate(&seen)
                        .and_then(|v| v.into_array(count))
                        .map_err(|e| numeric::explain(&e))?;
                    numeric::to_output(&array, &column.kind)?
                }
            });
        }
        let shift = |row: u32| row + u32::try_from(first).unwrap_or(u32::MAX);
        let kept = match kept {
            Some(kept) => kept.values().iter().map(|&row| shift(row)).collect(),
            None => (0..u32::try_from(count).unwrap_or(u32::MAX)).map(shift).collect(),
        };
        Ok(Piece { kept, rows: batch(&self.schema, columns, count).map_err(|e| reason(&e))? })
    }

    fn join(&self, mut pieces: Vec<Piece>) -> Result<(Vec<u32>, RecordBatch)> {
        if pieces.len() == 1
            && let Some(piece) = pieces.pop()
        {
            return Ok((piece.kept, piece.rows));
        }
        let rows = concat_batches(&self.schema, pieces.iter().map(|p| &p.rows))
            .map_err(|e| Error::new(Code::Bind, reason(&e)))?;
        Ok((pieces.into_iter().flat_map(|p| p.kept).collect(), rows))
    }
}

impl Condition {
    /// What it saw of the rows, and which of them it holds for.
    fn rows(&self, rows: &RecordBatch) -> Result<(RecordBatch, UInt32Array), String> {
        let count = rows.num_rows();
        let tested = self.scope.of(count, |column| seen(named(rows, column)?, column));
        let tested = tested.map_err(|e| reason(&e))?;
        let mask = self.holds.evaluate(&tested).and_then(|v| v.into_array(count));
        let kept = true_rows(mask.map_err(|e| numeric::explain(&e))?.as_boolean());
        Ok((tested, kept))
    }
}

impl Scope {
    fn of(
        &self,
        rows: usize,
        column: impl FnMut(&Column) -> Result<ArrayRef, ArrowError>,
    ) -> Result<RecordBatch, ArrowError> {
        batch(&self.schema, self.columns.iter().map(column).collect::<Result<_, _>>()?, rows)
    }
}

fn named<'a>(rows: &'a RecordBatch, column: &Column) -> Result<&'a ArrayRef, ArrowError> {
    let missing = || ArrowError::SchemaError(format!("column \"{}\" is missing", column.name));
    rows.column_by_name(&column.name).ok_or_else(missing)
}

fn seen(array: &ArrayRef, column: &Column) -> Result<ArrayRef, ArrowError> {
    match column.kind {
        SqlType::Numeric => numeric::to_decimal(array),
        _ => Ok(array.clone()),
    }
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

/// Rows for which the condition is true; null is not.
fn true_rows(mask: &BooleanArray) -> UInt32Array {
    (0..mask.len())
        .filter(|&row| mask.is_valid(row) && mask.value(row))
        .map(|row| u32::try_from(row).unwrap_or(u32::MAX))
        .collect::<Vec<u32>>()
        .into()
}

/// The ops of the rows that stay. Half of an update whose other half was filtered is a plain insert or delete.
fn kept_ops(ops: &Ops, kept: &[u32]) -> Ops {
    let Ops::Each(ops) = ops else { return Ops::Inserts };
    let stays = |row: usize| kept.binary_search(&u32::try_from(row).unwrap_or(u32::MAX)).is_ok();
    let op = |&row: &u32| {
        let row = row as usize;
        match ops[row] {
            Op::UpdateDelete if !stays(row + 1) => Op::Delete,
            Op::UpdateInsert if row == 0 || !stays(row - 1) => Op::Insert,
            op => op,
        }
    };
    Ops::Each(kept.iter().map(op).collect())
}

fn reason(error: &ArrowError) -> String {
    numeric::plain(&error.to_string())
}

/// Our functions, for other queries.
pub(crate) fn functions() -> impl Iterator<Item = Arc<datafusion::logical_expr::ScalarUDF>> {
    functions::all()
}

/// The Arrow schema of some columns.
fn schema_of(columns: &[Column]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(Column::arrow).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests;
