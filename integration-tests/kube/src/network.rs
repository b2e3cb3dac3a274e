//! The addresses of a run: a small network of loopback, 127.x.y.0/24, of which each pod and each service has one, so that all
//! may listen at the same port. A listener at the last address says that the network is taken, so that two runs never share one.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, bail};
use rand::Rng;

/// The port that is held at the last address.
const CLAIM: u16 = 7070;

/// A network of this run.
pub struct Network {
    /// 127.x.y
    prefix: [u8; 3],
    last: u8,
    _claim: TcpListener,
}

impl Network {
    /// Takes a network that nobody uses.
    ///
    /// # Errors
    /// When there is none: the system serves 127.0.0.1 only, or somebody listens at port 7070 of all addresses.
    pub fn claim() -> Result<Self> {
        let mut last = None;
        for _ in 0..50 {
            // Others on this machine may use 127.0.0.x and 127.0.1.x.
            let prefix = [127, rand::rng().random_range(64..128), rand::rng().random()];
            match TcpListener::bind((Ipv4Addr::new(127, prefix[1], prefix[2], 254), CLAIM)) {
                Ok(listener) => return Ok(Self { prefix, last: 0, _claim: listener }),
                Err(error) => last = Some(error),
            }
        }
        bail!("no network of 127.0.0.0/8 can be had: {last:?}")
    }

    /// An address that was not given out for the longest time.
    pub fn address(&mut self) -> Ipv4Addr {
        self.last = self.last % 250 + 1;
        Ipv4Addr::new(self.prefix[0], self.prefix[1], self.prefix[2], self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_networks_have_no_address_in_common() {
        let (mut one, mut other) = (Network::claim().unwrap(), Network::claim().unwrap());
        let mut addresses: Vec<_> = (0..250).flat_map(|_| [one.address(), other.address()]).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 500);
        assert!(addresses.iter().all(|address| address.is_loopback() && address.octets()[3] != 254));
    }
}
