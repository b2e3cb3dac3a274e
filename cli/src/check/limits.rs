//! What the machine gives a worker: file descriptors and memory.

use super::{Mark, Report};
use crate::failure::Failure;

/// A worker has a connection to each destination and to every other worker, and none for each shard: this is plenty.
const FILES_MIN: u64 = 4096;

/// What a worker needs beside its budgets: code, buffers below them, one answer of 10 MiB more than was reserved for each
/// read at a time.
const BESIDE: u64 = 192 << 20;

pub(super) fn look(worker: &worker::Config, report: &mut Report<'_>) -> Result<(), Failure> {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    match open_files(&limits) {
        Some(files) if files < FILES_MIN => {
            let found = format!("{files} open files are allowed, {FILES_MIN} are wanted");
            report.line(
                Mark::Warning,
                "file descriptors",
                found,
                "ulimit -n, or LimitNOFILE= of the unit",
            )?;
        }
        Some(u64::MAX) => report.ok("file descriptors", "no limit")?,
        Some(files) => report.ok("file descriptors", format!("{files} are allowed"))?,
        None => report.ok("file descriptors", "not known on this system")?,
    }
    let wanted = worker.memory_budget.saturating_add(worker.exchange_memory).saturating_add(BESIDE);
    let (found, given) = (format!("a worker with these budgets takes up to {} MiB", wanted >> 20), memory());
    match given {
        Some(given) if given < wanted => {
            let found = format!("{found}, and {} MiB are there", given >> 20);
            let remedy = "raise the limit, or lower worker.memory_budget and worker.exchange_memory";
            report.line(Mark::Failed, "memory", found, remedy)
        }
        Some(given) => report.ok("memory", format!("{found} of {}", given >> 20)),
        None => report.ok("memory", format!("{found}; what is there is not known on this system")),
    }
}

/// The soft limit of open files in the kernel's table; the largest number for none.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = line.split_whitespace().next()?;
    if soft == "unlimited" { Some(u64::MAX) } else { soft.parse().ok() }
}

/// The container's limit, or the machine's memory.
fn memory() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let container = limits.iter().find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok());
    machine.into_iter().chain(container).min()
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max processes             15000                15000                processes\n\
                      Max open files            1024                 1048576              files\n";
        assert_eq!(open_files(limits), Some(1024));
        assert_eq!(
            open_files("Max open files            unlimited            unlimited            files"),
            Some(u64::MAX)
        );
        assert_eq!(open_files(""), None);
        assert_eq!(total("MemTotal:        8000000 kB\nMemFree: 1 kB\n"), Some(8_192_000_000));
    }
}
