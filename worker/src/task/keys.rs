//! Hashes of row keys, for the order of delivery. Two keys with one hash merely wait for each other.

use std::hash::Hasher as _;

use arrow::{
    datatypes::Schema,
    error::ArrowError,
    record_batch::RecordBatch,
    row::{RowConverter, SortField},
};
use logic::outbox::Order;

use super::{chunk::Failure, job::BuiltSink};

/// Hashes the key columns of batches of one schema.
pub(crate) struct KeyHasher {
    columns: Vec<usize>,
    converter: RowConverter,
}

impl KeyHasher {
    /// For the columns `names` of `schema`.
    pub(crate) fn new(schema: &Schema, names: &[String]) -> Result<Self, ArrowError> {
        let columns = names.iter().map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>()?;
        let fields = columns.iter().map(|i| SortField::new(schema.field(*i).data_type().clone())).collect();
        Ok(Self { columns, converter: RowConverter::new(fields)? })
    }

    /// One hash per row.
    pub(crate) fn hash(&self, batch: &RecordBatch) -> Result<Vec<u64>, ArrowError> {
        let columns: Vec<_> = self.columns.iter().map(|i| batch.column(*i).clone()).collect();
        let rows = self.converter.convert_columns(&columns)?;
        Ok(rows.iter().map(|row| hash(row.as_ref())).collect())
    }
}

impl BuiltSink {
    /// The hash of each row's key; nothing if order does not ask for it.
    pub(crate) fn keys_of(
        &self,
        batch: &RecordBatch,
        hasher: &mut Option<KeyHasher>,
    ) -> Result<Vec<u64>, Failure> {
        if !matches!(self.order(), Order::Key | Order::Single) {
            return Ok(Vec::new());
        }
        let config = |e: ArrowError| Failure { error: format!("primary key: {e}"), kind: "config" };
        if hasher.is_none() {
            *hasher = Some(KeyHasher::new(&batch.schema(), self.key()).map_err(config)?);
        }
        hasher.as_ref().map_or_else(|| Ok(Vec::new()), |hasher| hasher.hash(batch)).map_err(config)
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, StringArray};

    use super::*;

    #[test]
    fn equal_keys_have_equal_hashes_and_others_do_not() {
        let id = Arc::new(Int32Array::from(vec![Some(1), Some(1), None, None]));
        let name = Arc::new(StringArray::from(vec!["a", "b", "a", "a"]));
        let batch = RecordBatch::try_from_iter([("id", id as _), ("name", name as _)]).unwrap();
        let keys = KeyHasher::new(&batch.schema(), &["id".to_owned(), "name".to_owned()]).unwrap();
        let hashes = keys.hash(&batch).unwrap();
        assert_ne!(hashes[0], hashes[1]);
        assert_ne!(hashes[0], hashes[2]);
        assert_eq!(hashes[2], hashes[3]);
        assert!(KeyHasher::new(&batch.schema(), &["nope".to_owned()]).is_err());
    }
}
