//! Memory and descriptors of the processes of the cluster, from the first point of rest to the last. From `/proc`; elsewhere
//! the table is empty.

use std::{collections::BTreeMap, fmt::Write as _};

use shardwright_integration_tests::{cluster::Cluster, process::Process};

/// How much a process may grow while the same happens again and again, as a part of what it was.
const MAY_GROW: f64 = 0.05;
/// The least part of all growth that either half of the time has where something leaks; a heap that a backlog has made larger
/// grew in one of them.
const GOES_ON: f64 = 0.25;
/// How many descriptors come and go with the connections of the moment.
const DESCRIPTORS_VARY: usize = 8;

#[derive(Clone, Copy)]
struct Measure {
    pid: u32,
    /// Resident memory in KiB.
    memory: u64,
    descriptors: usize,
}

/// What was measured of a process since it was started last, and how often it was started again.
#[derive(Default)]
struct Life {
    measures: Vec<Measure>,
    starts: u32,
}

impl Life {
    fn add(&mut self, now: Measure) {
        if self.measures.last().is_some_and(|last| last.pid != now.pid) {
            self.measures.clear();
            self.starts += 1;
        }
        self.measures.push(now);
    }

    /// The first, the middle one and the last.
    fn points(&self) -> Option<[Measure; 3]> {
        let middle = self.measures.get(self.measures.len() / 2)?;
        Some([*self.measures.first()?, *middle, *self.measures.last()?])
    }

    /// Whether it grew by more than [`MAY_GROW`] and did so all the time, or holds more and more descriptors. One that was killed
    /// in between is too young to tell.
    fn grows(&self) -> bool {
        let Some([first, middle, last]) = self.points().filter(|_| self.starts == 0) else { return false };
        #[allow(clippy::cast_precision_loss, reason = "memory in KiB has 40 bits at most")]
        let [a, b, c] = [first, middle, last].map(|measure| measure.memory as f64);
        let all = c - a;
        let leaks = all > a * MAY_GROW && b - a > all * GOES_ON && c - b > all * GOES_ON;
        leaks || last.descriptors > first.descriptors + DESCRIPTORS_VARY
    }
}

/// The measures of each process.
#[derive(Default)]
pub struct Growth {
    lives: BTreeMap<String, Life>,
}

impl Growth {
    /// Measures every process that runs.
    pub fn measure(&mut self, cluster: &Cluster) {
        for process in cluster.processes() {
            if let Some(now) = look(process) {
                self.lives.entry(process.name().to_owned()).or_default().add(now);
            }
        }
    }

    /// Those that grow and do not stop.
    #[must_use]
    pub fn grown(&self) -> Vec<&str> {
        self.lives.iter().filter(|(_, life)| life.grows()).map(|(name, _)| name.as_str()).collect()
    }

    /// One line each. A process that was killed counts from its last start that was measured.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "  {:15} {:>11} {:>11} {:>11} {:>8} {:>10} {:>8}\n",
            "process", "MiB first", "MiB middle", "MiB last", "growth", "fds first", "fds last"
        );
        for (name, life) in &self.lives {
            let Some([first, middle, last]) = life.points() else { continue };
            #[allow(clippy::cast_precision_loss, reason = "memory in KiB has 40 bits at most")]
            let [a, b, c] = [first, middle, last].map(|measure| measure.memory as f64);
            let note = match life.starts {
                0 => String::new(),
                starts => format!("  killed in {starts} round(s), counts anew"),
            };
            writeln!(
                text,
                "  {name:15} {:>11.1} {:>11.1} {:>11.1} {:>+7.1}% {:>10} {:>8}{note}",
                a / 1024.0,
                b / 1024.0,
                c / 1024.0,
                (c - a) / a.max(1.0) * 100.0,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn grows(memory: &[u64]) -> bool {
        let mut life = Life::default();
        memory.iter().for_each(|memory| life.add(Measure { pid: 1, memory: *memory, descriptors: 20 }));
        life.grows()
    }

    #[test]
    fn what_grows_all_the_time_leaks_and_what_grew_once_does_not() {
        assert!(grows(&[1000, 1020, 1035, 1050, 1070]));
        assert!(!grows(&[1000, 1010, 1020, 1030, 1040]), "little");
        assert!(!grows(&[1000, 1080, 1080, 1080, 1080]), "early");
        assert!(!grows(&[1000, 1001, 1000, 1002, 1080]), "late");
        assert!(!grows(&[]));
        let mut life = Life::default();
        life.add(Measure { pid: 1, memory: 1000, descriptors: 20 });
        life.add(Measure { pid: 1, memory: 1000, descriptors: 29 });
        assert!(life.grows(), "descriptors");
        life.add(Measure { pid: 2, memory: 10, descriptors: 1 });
        assert!(!life.grows() && life.starts == 1);
    }
}
