//! The one call that carries the data.

use connector::Result;

use super::client::Client;
use crate::aws::records;
pub(crate) use crate::aws::records::{Answer, Record};

impl Client {
    /// Reads up to `limit` records at `iterator`.
    pub(crate) async fn get_records(&self, iterator: &str, limit: i32) -> Result<Answer> {
        let stream = &self.service.access().stream;
        let body = records::ask(iterator, limit, stream.arn.as_deref());
        self.service.bulk(|| format!("failed to read stream `{}`", stream.name), body, records::read).await
    }
}
