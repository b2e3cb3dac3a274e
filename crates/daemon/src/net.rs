//! Opening ports, with errors that say which setting to change.

use std::io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};

use tokio::net::TcpListener;

use crate::{Error, Result};

/// Listens at `address`; a refusal names the setting it came from.
pub async fn listen(address: &str, setting: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let reason = match error.kind() {
            AddrInUse => "the port is in use; stop the other process or choose another port".to_owned(),
            AddrNotAvailable => "this machine has no such address".to_owned(),
            PermissionDenied => "not permitted; choose a port above 1023".to_owned(),
            _ => error.to_string(),
        };
        Error::system(format!("cannot listen on `{address}` (`{setting}`): {reason}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_names_address_and_setting() {
        let first = listen("127.0.0.1:0", "telemetry.listen").await.unwrap();
        let address = first.local_addr().unwrap().to_string();
        let error = listen(&address, "telemetry.listen").await.unwrap_err().to_string();
        assert!(error.contains(&address) && error.contains("telemetry.listen"), "{error}");
        assert!(error.contains("in use"), "{error}");
    }
}
