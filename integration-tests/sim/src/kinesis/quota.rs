//! The service's quotas, as it measures them: calls and bytes in the second before now (docs/kinesis.md 1).

use std::{collections::VecDeque, time::Duration};

const SECOND: Duration = Duration::from_secs(1);
const MIB: u64 = 1024 * 1024;

/// `GetRecords` and `GetShardIterator`, each, per shard and second.
pub(super) const READS_PER_SECOND: usize = 5;

/// At most so many calls in any second.
#[derive(Clone, Default, Debug)]
pub(super) struct Calls {
    recent: VecDeque<Duration>,
}

impl Calls {
    /// Counts a call if it is within the quota.
    pub(super) fn take(&mut self, now: Duration, limit: usize) -> bool {
        while self.recent.front().is_some_and(|&at| at + SECOND <= now) {
            self.recent.pop_front();
        }
        let within = self.recent.len() < limit;
        if within {
            self.recent.push_back(now);
        }
        within
    }
}

/// 2 MiB/s, where an answer of more blocks as long as it takes at that rate: 10 MiB for five seconds.
#[derive(Clone, Default, Debug)]
pub(super) struct ReadBytes {
    debt: u64,
    at: Duration,
    blocked_until: Duration,
}

impl ReadBytes {
    const RATE: u64 = 2 * MIB;

    /// Whether something may be read now.
    pub(super) fn open(&mut self, now: Duration) -> bool {
        let paid = bytes_in(now.saturating_sub(self.at), Self::RATE);
        self.debt = self.debt.saturating_sub(paid);
        self.at = now;
        now >= self.blocked_until && self.debt < Self::RATE
    }

    /// So much was read.
    pub(super) fn spend(&mut self, now: Duration, bytes: usize) {
        let bytes = bytes as u64;
        self.debt += bytes;
        if bytes > Self::RATE {
            self.blocked_until = now + Duration::from_micros(bytes * 1_000_000 / Self::RATE);
        }
    }
}

/// 1,000 records and 1 MiB in a second, with a second's burst.
#[derive(Clone, Default, Debug)]
pub(super) struct Writes {
    records: u64,
    bytes: u64,
    at: Duration,
}

impl Writes {
    const RECORDS: u64 = 1000;

    /// Counts a record if it is within the quota.
    pub(super) fn take(&mut self, now: Duration, bytes: usize) -> bool {
        let since = now.saturating_sub(self.at);
        self.records = self.records.saturating_sub(bytes_in(since, Self::RECORDS));
        self.bytes = self.bytes.saturating_sub(bytes_in(since, MIB));
        self.at = now;
        // A record of more than 1 MiB passes when nothing else was written, and then blocks for as long as it takes.
        let within = self.records < Self::RECORDS && (self.bytes == 0 || self.bytes + bytes as u64 <= MIB);
        if within {
            self.records += 1;
            self.bytes += bytes as u64;
        }
        within
    }
}

fn bytes_in(time: Duration, rate: u64) -> u64 {
    u64::try_from(time.as_micros() * u128::from(rate) / 1_000_000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sixth_call_within_a_second_is_too_many() {
        let mut calls = Calls::default();
        let ms = Duration::from_millis;
        assert!((0..5).all(|i| calls.take(ms(i * 100), 5)));
        assert!(!calls.take(ms(999), 5));
        assert!(calls.take(ms(1000), 5));
        assert!(!calls.take(ms(1050), 5));
    }

    #[test]
    fn ten_mebibytes_block_for_five_seconds() {
        let mut bytes = ReadBytes::default();
        assert!(bytes.open(Duration::ZERO));
        bytes.spend(Duration::ZERO, 10 * 1024 * 1024);
        assert!(!bytes.open(Duration::from_millis(4999)));
        assert!(bytes.open(Duration::from_secs(5)));
    }

    #[test]
    fn a_shard_takes_a_thousand_records_a_second() {
        let mut writes = Writes::default();
        let now = Duration::from_secs(1);
        assert_eq!((0..1500).filter(|_| writes.take(now, 10)).count(), 1000);
        assert!(writes.take(now + Duration::from_millis(2), 10));
    }
}
