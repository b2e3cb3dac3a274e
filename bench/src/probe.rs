//! What a process has used, read from `/proc`: the same way for every process that is measured.

use anyhow::{Context, Result};

/// Kernel clock ticks a second, as `/proc` counts them: 100 on every architecture of Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds of a process so far: user and system, all threads.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("reading its CPU time")?;
    // The name, in parentheses, may hold spaces; fields are counted after it (proc_pid_stat(5): 14 and 15 of all).
    let fields = stat.rsplit_once(')').context("an odd /proc/PID/stat")?.1;
    let tick = |index: usize| fields.split_whitespace().nth(index).and_then(|text| text.parse::<f64>().ok());
    let (user, system) = (tick(11).context("no utime")?, tick(12).context("no stime")?);
    Ok((user + system) / TICKS_PER_SECOND)
}

/// Whether a process has ended and nobody has waited for it: what it used stands still and can be read.
pub(crate) fn is_zombie(pid: u32) -> Result<bool> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("reading its state")?;
    let fields = stat.rsplit_once(')').context("an odd /proc/PID/stat")?.1;
    Ok(fields.trim_start().starts_with('Z'))
}

/// Memory of a process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Resident now, MiB.
    pub(crate) resident: f64,
    /// The most that was ever resident, MiB.
    pub(crate) peak: f64,
}

/// Memory of a process.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    Ok(Memory { resident: status(pid, "VmRSS:")? / 1024.0, peak: status(pid, "VmHWM:")? / 1024.0 })
}

/// Threads of a process.
pub(crate) fn threads(pid: u32) -> Result<f64> {
    status(pid, "Threads:")
}

fn status(pid: u32, name: &str) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).context("reading its status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).context("an odd /proc/PID/status")?;
    line.split_whitespace().next().and_then(|text| text.parse().ok()).context("an odd /proc/PID/status")
}

/// The machine in one line.
pub(crate) fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or_else(|| "?".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let (cpu, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let gibibytes =
        field(&memory, "MemTotal").split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) >> 20;
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{} × {}, {gibibytes} GiB, Linux {}", cores, field(&cpu, "model name"), kernel.trim())
}

/// What one of the loops used, as it prints it.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Used {
    /// Records read.
    pub(crate) records: u64,
    /// CPU seconds.
    pub(crate) cpu_seconds: f64,
    /// Peak memory, MiB.
    pub(crate) peak: f64,
}

/// Prints what this process has used.
pub(crate) fn print_own(records: u64) -> Result<()> {
    let pid = std::process::id();
    let used = Used { records, cpu_seconds: cpu_seconds(pid)?, peak: memory(pid)?.peak };
    println!("{}", serde_json::to_string(&used)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process_has_used_something() {
        let pid = std::process::id();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while cpu_seconds(pid).unwrap() < 0.03 {
            assert!(std::time::Instant::now() < deadline, "a loop that spins uses no CPU");
        }
        let memory = memory(pid).unwrap();
        assert!(memory.resident > 0.5 && memory.peak >= memory.resident, "{memory:?}");
        assert!(threads(pid).unwrap() >= 1.0);
    }
}
