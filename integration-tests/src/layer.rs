//! The fault layer around a cluster: between it and the streams, and between its coordinators and etcd.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use faults::{Faults, kinesis::Proxy, tcp::Link};

/// What stands between a cluster and the world. A load and a ledger go around it.
pub struct Layer {
    /// In front of the stream that is read.
    pub source: Faults,
    /// In front of the stream that is written.
    pub sink: Faults,
    /// From each coordinator to etcd.
    pub etcd: Vec<Link>,
    source_proxy: Proxy,
    sink_proxy: Proxy,
}

impl Layer {
    /// In front of one endpoint and one etcd, for so many coordinators; its chance comes from `seed`.
    ///
    /// # Errors
    /// When a URL is none or no port can be bound.
    pub async fn around(endpoint: &str, etcd: &str, coordinators: usize, seed: u64) -> Result<Self> {
        let (source, sink) = (Faults::new(seed), Faults::new(seed.wrapping_add(1)));
        let source_proxy = Proxy::start(endpoint, source.clone()).await?;
        let sink_proxy = Proxy::start(endpoint, sink.clone()).await?;
        Ok(Self {
            source,
            sink,
            etcd: links(&vec![etcd.to_owned(); coordinators]).await?,
            source_proxy,
            sink_proxy,
        })
    }

    /// The endpoint of the stream that is read.
    #[must_use]
    pub fn source_url(&self) -> String {
        self.source_proxy.url()
    }

    /// The endpoint of the stream that is written.
    #[must_use]
    pub fn sink_url(&self) -> String {
        self.sink_proxy.url()
    }

    /// The URL of etcd for each coordinator.
    #[must_use]
    pub fn etcd_urls(&self) -> Vec<String> {
        self.etcd.iter().map(Link::url).collect()
    }
}

/// A link to each of these URLs.
///
/// # Errors
/// When a URL is not `http://address:port`, or no port can be bound.
pub async fn links(urls: &[String]) -> Result<Vec<Link>> {
    let mut links = Vec::new();
    for url in urls {
        let address: SocketAddr =
            url.trim_start_matches("http://").parse().with_context(|| format!("`{url}` has no address"))?;
        links.push(Link::start(address).await?);
    }
    Ok(links)
}
