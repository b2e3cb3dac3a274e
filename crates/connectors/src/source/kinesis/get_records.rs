//! The one call that carries the data.

use connector::Result;

use super::client::Client;
use crate::aws::records;
pub(crate) use crate::aws::{
    Heard,
    records::{Answer, Record},
};

impl Client {
    /// Reads up to `limit` records at `iterator`.
    pub(crate) async fn get_records(&self, iterator: &str, limit: i32, heard: &Heard) -> Result<Answer> {
        let stream = &self.service.access().stream;
        let body = records::ask(iterator, limit, stream.arn.as_deref());
        let what = || format!("failed to read stream `{}`", stream.name);
        self.service.bulk(what, body, heard, records::read).await
    }
}
