//! Memory and descriptors of the processes of the cluster, from the first point of rest to the last. From `/proc`; elsewhere
//! the table is empty.

use std::{collections::BTreeMap, fmt::Write as _};

use shardwright_integration_tests::{cluster::Cluster, process::Process};

/// How much a process may grow while the same happens again and again, as a part of what it was.
const MAY_GROW: f64 = 0.05;
/// How many descriptors come and go with the connections of the moment.
const DESCRIPTORS_VARY: usize = 8;

#[derive(Clone, Copy)]
struct Measure {
    pid: u32,
    /// Resident memory in KiB.
    memory: u64,
    descriptors: usize,
}

/// The first and the last measure of each process, and how often it was started again between.
#[derive(Default)]
pub struct Growth {
    seen: BTreeMap<String, (Measure, Measure, u32)>,
}

impl Growth {
    /// Measures every process that runs.
    pub fn measure(&mut self, cluster: &Cluster) {
        for process in cluster.processes() {
            let Some(now) = look(process) else { continue };
            let entry = self.seen.entry(process.name().to_owned()).or_insert((now, now, 0));
            if entry.1.pid != now.pid {
                *entry = (now, now, entry.2 + 1);
            }
            entry.1 = now;
        }
    }

    /// Those that were never killed and grew by more than [`MAY_GROW`] in memory or descriptors.
    #[must_use]
    pub fn grown(&self) -> Vec<String> {
        #[allow(clippy::cast_precision_loss, reason = "memory in KiB has 40 bits at most")]
        let more = |first: u64, last: u64| last as f64 > first as f64 * (1.0 + MAY_GROW);
        let lived = self.seen.iter().filter(|(_, (_, _, starts))| *starts == 0);
        let grown = lived.filter(|(_, (first, last, _))| {
            more(first.memory, last.memory) || last.descriptors > first.descriptors + DESCRIPTORS_VARY
        });
        grown.map(|(name, _)| name.clone()).collect()
    }

    /// One line each. A process that was killed counts from its last start that was measured.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "  {:15} {:>11} {:>11} {:>8} {:>10} {:>8}\n",
            "process", "MiB first", "MiB last", "growth", "fds first", "fds last"
        );
        for (name, (first, last, starts)) in &self.seen {
            #[allow(clippy::cast_precision_loss, reason = "memory in KiB has 40 bits at most")]
            let (a, b) = (first.memory as f64, last.memory as f64);
            let note = if *starts > 0 {
                format!("  killed in {starts} round(s), counts anew")
            } else {
                String::new()
            };
            writeln!(
                text,
                "  {name:15} {:>11.1} {:>11.1} {:>+7.1}% {:>10} {:>8}{note}",
                a / 1024.0,
                b / 1024.0,
                (b - a) / a.max(1.0) * 100.0,
                first.descriptors,
                last.descriptors
            )
            .expect("text takes all that is written");
        }
        text
    }
}

fn look(process: &Process) -> Option<Measure> {
    let pid = process.pid()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let memory = memory.split_whitespace().next()?.parse().ok()?;
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    Some(Measure { pid, memory, descriptors })
}
