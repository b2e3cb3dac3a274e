//! How much of the processor this process uses: told to the leader with each heartbeat, for those who decide how many workers
//! there should be.

use std::time::Instant;

/// Where Linux says what a process has used.
const STAT: &str = "/proc/self/stat";
/// Its unit is a hundredth of a second for every process of Linux, whatever the kernel counts in.
const TICKS_PER_SECOND: f64 = 100.0;

/// What was used until when.
pub(crate) struct Cpu {
    before: Option<(Instant, f64)>,
    cores: u32,
}

impl Cpu {
    /// From now on; `told`: else everything reads as unknown.
    pub(crate) fn new(told: bool) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let before = if told { used().map(|used| (Instant::now(), used)) } else { None };
        Self { before, cores: u32::try_from(cores).unwrap_or(u32::MAX) }
    }

    /// CPU seconds a second since it was asked last, and the cores that may be used; (0, 0) where it is not known.
    pub(crate) fn rate(&mut self) -> (f64, u32) {
        let (Some((at, before)), Some(now)) = (self.before, self.before.and_then(|_| used())) else {
            return (0.0, 0);
        };
        let passed = at.elapsed().as_secs_f64();
        if passed <= 0.0 {
            return (0.0, self.cores);
        }
        self.before = Some((Instant::now(), now));
        ((now - before).max(0.0) / passed, self.cores)
    }
}

/// Seconds of CPU, in user mode and in the kernel.
fn used() -> Option<f64> {
    parse(&std::fs::read_to_string(STAT).ok()?)
}

/// Fields 14 and 15; the second one is a name in parentheses that may contain anything.
fn parse(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_does_not_confuse() {
        let stat = "42 (a b) c) S 1 42 42 0 -1 4194304 900 0 0 0 250 50 0 0 20 0 9 0 77 1 2";
        assert_eq!(parse(stat), Some(3.0));
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_busy_thread_is_seen() {
        let mut cpu = Cpu::new(true);
        let until = Instant::now() + std::time::Duration::from_millis(300);
        while Instant::now() < until {
            std::hint::black_box(0);
        }
        let (rate, cores) = cpu.rate();
        assert!(rate > 0.0 && cores > 0, "{rate} of {cores}");
        assert_eq!(Cpu::new(false).rate(), (0.0, 0));
    }
}
