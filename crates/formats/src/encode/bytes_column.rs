//! A bytea column whose values leave as they are. Long values are shared with the batch, not copied.

use std::cell::OnceCell;

use arrow::{
    array::{Array, BinaryViewArray, ByteView, cast::AsArray},
    buffer::Buffer,
    record_batch::RecordBatch,
};
use bytes::Bytes;

use crate::FormatError;

/// See the module.
pub(super) struct BytesColumn<'a> {
    array: &'a BinaryViewArray,
    /// Each data buffer of the array, once it is asked for.
    blocks: Vec<OnceCell<Bytes>>,
}

struct Owner(Buffer);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl<'a> BytesColumn<'a> {
    /// The column `index`, which must be bytea.
    pub(super) fn new(rows: &'a RecordBatch, index: usize) -> Result<Self, FormatError> {
        let array = rows
            .columns()
            .get(index)
            .and_then(|array| array.as_binary_view_opt())
            .ok_or_else(|| FormatError::new(format!("column {index} of the batch is not bytea")))?;
        Ok(Self { array, blocks: vec![OnceCell::new(); array.data_buffers().len()] })
    }

    /// The value of a row; `None` is NULL.
    pub(super) fn get(&self, row: usize) -> Option<Bytes> {
        const INLINE: u32 = 12;
        if self.array.is_null(row) {
            return None;
        }
        let view = ByteView::from(self.array.views()[row]);
        if view.length <= INLINE {
            return Some(Bytes::copy_from_slice(self.array.value(row)));
        }
        let block = view.buffer_index as usize;
        let whole = self.blocks[block]
            .get_or_init(|| Bytes::from_owner(Owner(self.array.data_buffers()[block].clone())));
        let from = view.offset as usize;
        Some(whole.slice(from..from + view.length as usize))
    }
}
