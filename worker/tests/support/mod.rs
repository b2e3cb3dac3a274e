//! A coordinator that says what the test tells it to, and connectors that a test can look into.

#![allow(dead_code, reason = "each test uses its own part of it")]

pub mod connectors;
pub mod coordinator;

use std::time::{Duration, Instant};

/// Polls until the condition gives something; fails after ten seconds.
pub async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
