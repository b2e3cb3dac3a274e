//! What the demo prints.

use std::{io::Write, time::Duration};

use shardwright_integration_tests::{admin::Admin, cluster::Cluster, endpoint::Endpoint, load::Load};
use tokio::time::Instant;

use crate::events::Happened;

/// `1.2 s`
pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// A line each second, for ever.
pub async fn progress(admin: &Admin, load: &Load, start: Instant) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        let Ok(status) = admin.status().await else {
            println!(
                "  {:>4.0} s  sent {:>6}  (no leader answers)",
                start.elapsed().as_secs_f64(),
                load.sent()
            );
            continue;
        };
        let sinks: Vec<String> =
            status.sinks.iter().map(|s| format!("{} {:>6}", s.name, s.records)).collect();
        let lag = status.splits.iter().filter_map(|s| s.lag_ms).max().unwrap_or(0);
        let live = status.workers.iter().filter(|w| w.state == "live").count();
        println!(
            "  {:>4.0} s  sent {:>6}  {}  lag {:.1} s  workers {live}",
            start.elapsed().as_secs_f64(),
            load.sent(),
            sinks.join("  "),
            lag as f64 / 1000.0
        );
        std::io::stdout().flush().ok();
    }
}

/// The table of events.
pub fn events(happened: &[Happened]) {
    let width = happened.iter().map(|h| h.what.len()).max().unwrap_or(0);
    println!("\n  {:>7}  {:width$}  {:>8}  healed means", "at", "event", "healed");
    for event in happened {
        println!(
            "  {:>7}  {:width$}  {:>8}  {}",
            seconds(event.at),
            event.what,
            seconds(event.healed),
            event.meaning
        );
    }
}

/// How to look at a cluster that goes on running.
pub fn keep(cluster: &Cluster, endpoint: &Endpoint) {
    let server = cluster.urls().swap_remove(0);
    println!("\nthe cluster goes on; Ctrl-C ends it. To look at it:");
    println!("  export SHARDWRIGHT_SERVER={server}");
    println!("  shardwright status --watch");
    println!("  shardwright sql -c 'SELECT * FROM orders_progress'");
    println!("  shardwright events --follow");
    println!("  aws --endpoint-url {} kinesis list-shards --stream-name {}", endpoint.url(), crate::SOURCE);
    println!("  ls {}", cluster.dir().display());
}
