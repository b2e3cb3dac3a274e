//! JSON as text: scanning it without building a tree, and writing its strings and jsonb texts.

mod escape;
mod jsonb;
mod scan;

pub(crate) use escape::{write_bytes_base64, write_text};
pub(crate) use jsonb::{Style, write_jsonb};
pub(crate) use scan::{RawText, Scanner, Token, compact};
