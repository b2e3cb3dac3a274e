//! How this house reaches Amazon Kinesis: credentials, endpoints, time limits, and what each of the service's errors asks of
//! the caller. Source and sink share it; neither builds a client of its own.
//!
//! One call here is one attempt: the SDK's retries are off, because retries belong to the reader (for reads) and to the
//! worker (for writes).

mod access;
mod clock;
pub(crate) mod credential;
mod failure;
pub(crate) mod identity;
pub(crate) mod puts;
pub(crate) mod records;
mod service;
mod wire;

pub(crate) use access::{Access, OPTIONS, OPTIONS_LEN};
pub(crate) use failure::code_error;
pub(crate) use service::{Bulk, Service, ServiceDate};
pub(crate) use wire::Heard;

use connector::OptionDef;

/// The shared options, followed by a connector's own.
pub(crate) const fn with_shared<const OWN: usize, const ALL: usize>(
    own: [OptionDef; OWN],
) -> [OptionDef; ALL] {
    assert!(ALL == OPTIONS_LEN + OWN);
    let mut all = [OPTIONS[0]; ALL];
    let mut i = 0;
    while i < ALL {
        all[i] = if i < OPTIONS_LEN { OPTIONS[i] } else { own[i - OPTIONS_LEN] };
        i += 1;
    }
    all
}
