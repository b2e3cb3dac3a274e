//! Whether strangers could join the cluster at a listener: one beyond loopback, without certificates. Such a one is refused, or
//! named in the log if `tls.plaintext` allows it. Called before anything listens, and by `shardwright check`.

use std::net::{SocketAddr, ToSocketAddrs};

use daemon::tls::Plaintext;

use super::Settings;
use crate::failure::Failure;

/// Where processes of the cluster are listened to, by the setting that says so.
fn listeners(settings: &Settings, roles: &[&str]) -> Vec<(&'static str, SocketAddr)> {
    let mut all = Vec::new();
    if roles.contains(&"coordinator") {
        all.push(("coordinator.listen", settings.coordinator.listen));
    }
    if roles.contains(&"worker") {
        // What is no address is told when it is listened on.
        let found = settings.worker.exchange_listen.to_socket_addrs().into_iter().flatten();
        all.extend(found.map(|address| ("worker.exchange_listen", address)));
    }
    all
}

/// Refuses listeners at which strangers could join, or says which there are.
pub(crate) fn check(settings: &Settings, roles: &[&str]) -> Result<Vec<String>, Failure> {
    let beyond = |address: &SocketAddr| !address.ip().to_canonical().is_loopback();
    let mut open = listeners(settings, roles);
    open.retain(|(_, address)| !settings.tls.is_on() && beyond(address));
    match (settings.tls.plaintext, open.first()) {
        (Plaintext::Loopback, Some((setting, address))) => Err(Failure::Usage(format!(
            "ERROR: `{setting}` ({address}) is not a loopback address, and there are no certificates: whoever reaches it could join as \
             a worker. Set tls.cert_path, tls.key_path and tls.ca_path, or tls.plaintext = \"always\" (docs/security.md)"
        ))),
        _ => Ok(open
            .into_iter()
            .map(|(setting, address)| {
                format!(
                    "whoever reaches {address} ({setting}) can join as a worker, there are no certificates: tls.plaintext = \"always\""
                )
            })
            .collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [&str; 2] = ["coordinator", "worker"];

    fn settings(coordinator: &str, worker: &str) -> Settings {
        let mut settings = Settings::default();
        settings.coordinator.listen = coordinator.parse().unwrap();
        settings.worker.exchange_listen = worker.to_owned();
        settings
    }

    #[test]
    fn only_loopback_does_without_certificates() {
        assert_eq!(check(&Settings::default(), &BOTH).unwrap(), Vec::<String>::new());
        assert!(check(&settings("[::1]:7", "127.1.2.3:7"), &BOTH).is_ok());
        for (coordinator, worker, role, setting) in [
            ("0.0.0.0:7", "127.0.0.1:0", "coordinator", "coordinator.listen"),
            ("[::]:7", "127.0.0.1:0", "coordinator", "coordinator.listen"),
            ("127.0.0.1:7", "0.0.0.0:7", "worker", "worker.exchange_listen"),
            ("127.0.0.1:7", "10.1.2.3:7", "worker", "worker.exchange_listen"),
        ] {
            let mut settings = settings(coordinator, worker);
            let refused = check(&settings, &[role]).unwrap_err();
            assert_eq!(refused.exit_code(), 2);
            let text = refused.to_string();
            for part in [setting, "tls.plaintext", "docs/security.md"] {
                assert!(text.contains(part), "{text}");
            }
            // The other role does not listen there.
            let other = BOTH.into_iter().find(|other| *other != role).unwrap();
            assert_eq!(check(&settings, &[other]).unwrap(), Vec::<String>::new());
            settings.tls.plaintext = Plaintext::Always;
            let said = check(&settings, &[role]).unwrap();
            assert!(said.len() == 1 && said[0].contains(setting), "{said:?}");
            settings.tls = daemon::tls::TlsConfig { cert_path: Some("c".into()), ..Default::default() };
            assert_eq!(check(&settings, &[role]).unwrap(), Vec::<String>::new());
        }
    }
}
