//! What operators and tools ask: SQL statements and typed calls, over gRPC. Any coordinator takes a call; one that does not
//! lead forwards it to the one that does (`forward`). Nothing here decides about tasks: statements end in guarded commits of
//! the catalog (`Leader`), everything else is read from the term's memory.
//!
//! * `admit` is the way of every call to the leader: through `auth` (who a caller is) and `permit` (what it may do, by
//!   `sql::access`, asked again before every statement).
//! * `service` is the gRPC surface. `statement` runs one SQL statement, with `create`, `replace`, `alter`, `show`,
//!   `progress`, `explain`, `balance`, `credential` and `access` for its kinds.
//! * `refuse` turns every error into a status with `google.rpc.ErrorInfo`.
//! * `replay` remembers the answers of calls that carry a request id.
//!
//! A statement is done when its commit is durable; a caller that goes away stops nothing half done (a commit is one
//! transaction), and no secret is in any answer (I9: `sql::source_ddl` masks).

mod access;
mod admit;
mod alter;
mod auth;
mod balance;
mod create;
mod credential;
mod explain;
mod forward;
mod permit;
mod progress;
mod refuse;
mod replace;
mod replay;
mod service;
mod show;
mod statement;

pub(crate) use auth::hash;
pub use auth::{Anonymous, AuthConfig, JwtConfig, Secret};
use proto::v1::admin_server::AdminServer;

use crate::handle::Handle;

/// The largest request: statements are text. It is read before anybody knows who sent it, so that strangers share this bound.
const REQUEST_BYTES_MAX: usize = 4 << 20;

/// The admin service of one coordinator.
pub(crate) fn service(handle: Handle) -> AdminServer<service::AdminService> {
    AdminServer::new(service::AdminService::new(handle))
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(proto::MESSAGE_BYTES_MAX)
}
