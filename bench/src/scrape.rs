//! One GET of a loopback port, and the sums of a metrics page.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The body of a page.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (_, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
    Ok(body.to_owned())
}

/// The sum of all series of a metric whose labels contain a text; `None` while there is none.
pub(crate) fn sum(page: &str, name: &str, labels: &str) -> Option<f64> {
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let series = page.lines().filter(of_name).filter(|line| line.contains(labels));
    let values: Vec<f64> = series.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_over_the_series_of_one_name_with_these_labels() {
        let page = "# TYPE calls counter\ncalls{method=\"Txn\",code=\"OK\"} 3\ncalls{method=\"Txn\",code=\"No\"} 2\n\
                    calls{method=\"Range\"} 100\ncalls_total 7\n";
        assert_eq!(sum(page, "calls", "method=\"Txn\""), Some(5.0));
        assert_eq!(sum(page, "calls_total", ""), Some(7.0));
        assert_eq!(sum(page, "call", ""), None);
    }
}
