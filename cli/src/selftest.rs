//! `shardwright selftest`: does this cluster move records? A datagen source makes them, a blackhole sink takes them, and what the
//! cluster itself says of them is the ledger. Nothing outside is needed, and nothing is left behind.
//!
//! The names are new ones each time, so that two at once do not meet. Records that cannot be read or written stop their split
//! (`on_error = 'fail'`) instead of being passed over: a record that counts as delivered was delivered.

use std::{
    fmt,
    io::Write,
    time::{Duration, Instant},
};

use clap::Args;
use proto::v1::{ExecuteRequest, ListSplitsRequest, SplitStatus};
use tokio::signal::unix::{SignalKind, signal};
use tonic::Status;
use ulid::Ulid;

use crate::{
    client::{self, Admin, Target},
    failure::{self, Failure, Stopped},
    status::split_grid,
};

/// How many splits are made: more than one, so that more than one worker has something to do.
const SPLITS: u64 = 4;
/// How long all rows take to arrive.
const ARRIVE_WITHIN: u64 = 2;
/// Most rows a second that the source makes.
const RATE_MAX: u64 = 1_000_000;
/// The position of a split that is delivered as a whole.
const END: &str = "end";
/// Between two looks, and between two attempts at a call.
const PAUSE: Duration = Duration::from_millis(250);
/// How long one look may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long taking everything away may take, beyond the time for the test.
const DROP_WITHIN: Duration = Duration::from_secs(30);

/// Move records through the cluster, from a source that makes them to a sink that forgets them, and count.
#[derive(Args, Debug)]
pub struct SelftestArgs {
    /// How many records
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    records: u64,
    /// How long they may take: seconds, or a number with `s` or `m`
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = span)]
    timeout: Duration,
    /// Write them by key, in so many partitions: rows go from worker to worker then
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=64))]
    partitions: Option<u32>,
}

fn span(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let seconds = match unit {
        "" | "s" => Some(1),
        "m" => Some(60),
        _ => None,
    };
    let seconds = number.parse::<u64>().ok().zip(seconds).and_then(|(number, unit)| number.checked_mul(unit));
    seconds
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs)
        .ok_or_else(|| "write it like 60s or 2m".to_owned())
}

/// What was sent and what of it arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ledger {
    /// What the source made.
    sent: u64,
    /// What stands in the checkpoints of its splits as delivered.
    delivered: u64,
}

impl Ledger {
    /// `None` until every split is delivered to its end; a partition has none.
    fn of(sent: u64, splits: &[SplitStatus]) -> Option<Self> {
        let ended = splits.iter().filter(|split| split.position == END).count();
        let all = u64::try_from(ended).is_ok_and(|ended| ended == SPLITS);
        all.then(|| Self { sent, delivered: delivered(splits) })
    }

    fn missing(self) -> u64 {
        self.sent.saturating_sub(self.delivered)
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, delivered } = self;
        write!(f, "ledger: selftest: sent {sent}, delivered {delivered}, lost {}", self.missing())
    }
}

fn delivered(splits: &[SplitStatus]) -> u64 {
    splits.iter().map(|split| split.records).sum()
}

/// Makes source and sink, waits for the last record, and takes both away again however it went.
pub async fn run(args: SelftestArgs, target: &Target) -> Result<(), Failure> {
    let deadline = Instant::now() + args.timeout;
    let admin = client::connect(target).await?;
    let name = format!("selftest_{}", Ulid::new().to_string().to_lowercase());
    let mut test = Test { admin, target, name, is_made: false, splits: Vec::new() };
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let outcome = tokio::select! {
        outcome = test.moves(&args, deadline) => outcome,
        _ = interrupt.recv() => Err(Failure::Refused("ERROR: interrupted".to_owned())),
        _ = terminate.recv() => Err(Failure::Refused("ERROR: told to stop".to_owned())),
    };
    let dropped = test.clear().await;
    if dropped.is_err() {
        writeln!(std::io::stderr(), "source {} may be left: DROP SOURCE IF EXISTS {0} CASCADE", test.name)?;
    }
    let ledger = outcome?;
    writeln!(std::io::stdout(), "{ledger}")?;
    dropped?;
    if ledger.sent == ledger.delivered {
        return Ok(());
    }
    Err(Failure::Refused(
        "ERROR: every split is at its end, and not as many records arrived as were sent".to_owned(),
    ))
}

/// One source and its sink.
struct Test<'a> {
    admin: Admin,
    target: &'a Target,
    /// Of the source; the sink's name begins with it.
    name: String,
    /// Both statements were answered.
    is_made: bool,
    /// How they were seen last.
    splits: Vec<SplitStatus>,
}

impl Test<'_> {
    /// Until every record is delivered, or the deadline.
    async fn moves(&mut self, args: &SelftestArgs, deadline: Instant) -> Result<Ledger, Failure> {
        let (name, records) = (self.name.clone(), args.records);
        let rate = (records / ARRIVE_WITHIN).clamp(1, RATE_MAX);
        let source = format!(
            "CREATE SOURCE IF NOT EXISTS {name} (number BIGINT, text VARCHAR) WITH (connector = 'datagen', \
             datagen.split.num = '{SPLITS}', datagen.rows.per.second = '{rate}', fields.number.kind = 'sequence', \
             fields.number.start = '1', fields.number.end = '{records}') FORMAT PLAIN ENCODE JSON (on_error = 'fail')"
        );
        let distribution = args.partitions.map_or_else(String::new, |partitions| {
            format!(", primary_key = 'number', distribution = 'key({partitions})'")
        });
        let sink = format!(
            "CREATE SINK IF NOT EXISTS {name}_sink FROM {name} WITH (connector = 'blackhole', on_error = 'fail'\
             {distribution}) FORMAT PLAIN ENCODE JSON"
        );
        for statement in [source, sink] {
            self.execute(&statement, deadline).await?;
        }
        self.is_made = true;
        while Instant::now() < deadline {
            match self.look().await {
                Ok(splits) => self.splits = splits,
                Err(status) if failure::unreachable(&status) => self.connect_again().await,
                Err(status) => return Err(Failure::of_status(&status, None)),
            }
            if let Some(ledger) = Ledger::of(records, &self.splits) {
                return Ok(ledger);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(self.late(records)?)
    }

    /// How every split is for the sink, those that have ended too.
    async fn look(&mut self) -> Result<Vec<SplitStatus>, Status> {
        let request = ListSplitsRequest { source: self.name.clone(), sink: String::new(), ended: true };
        client::within(ANSWER, async {
            let mut rows = self.admin.list_splits(request).await?.into_inner();
            let mut splits = Vec::new();
            while let Some(split) = rows.message().await? {
                splits.push(split);
            }
            Ok(splits)
        })
        .await
    }

    /// Carries out a statement; a call that broke is made again under its id.
    async fn execute(&mut self, statement: &str, deadline: Instant) -> Result<(), Failure> {
        let request = ExecuteRequest { statement: statement.to_owned(), request_id: Ulid::new().to_string() };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answered = client::within(left, async {
                let mut replies = self.admin.execute(request.clone()).await?.into_inner();
                while replies.message().await?.is_some() {}
                Ok::<(), Stopped>(())
            });
            match answered.await {
                Ok(()) => return Ok(()),
                Err(Stopped::Call(status)) if failure::unreachable(&status) && Instant::now() < deadline => {
                    self.connect_again().await;
                }
                Err(Stopped::Call(status)) => return Err(Failure::of_status(&status, Some(statement))),
                Err(Stopped::Output(failure)) => return Err(failure),
            }
        }
    }

    /// Another coordinator may live, if this one does not.
    async fn connect_again(&mut self) {
        tokio::time::sleep(PAUSE).await;
        if let Ok(again) = client::connect(self.target).await {
            self.admin = again;
        }
    }

    /// Takes source and sink away, if they came to be.
    async fn clear(&mut self) -> Result<(), Failure> {
        let statement = format!("DROP SOURCE IF EXISTS {} CASCADE", self.name);
        self.execute(&statement, Instant::now() + DROP_WITHIN).await?;
        if !self.is_made {
            // A statement that nobody waited for may have been carried out meanwhile.
            tokio::time::sleep(4 * PAUSE).await;
            self.execute(&statement, Instant::now() + DROP_WITHIN).await?;
        }
        Ok(())
    }

    /// What is missing at the deadline, and what each split waits for.
    fn late(&self, records: u64) -> Result<Failure, Failure> {
        let mut out = std::io::stderr();
        if self.splits.is_empty() {
            writeln!(
                out,
                "no split is known: `shardwright status` shows whether the source could be listed"
            )?;
        } else {
            split_grid(&self.splits).print_table(&mut out)?;
        }
        for split in self.splits.iter().filter(|split| split.position != END) {
            let waits_for =
                if split.waits_for.is_empty() { "nothing that is known" } else { &split.waits_for };
            let at = match split.position.as_str() {
                "" => String::new(),
                position => format!(" at `{position}`"),
            };
            writeln!(out, "{} is {}{at} and waits for {waits_for}", split.split, split.state)?;
        }
        let missing = Ledger { sent: records, delivered: delivered(&self.splits) }.missing();
        Ok(Failure::Refused(format!("ERROR: {missing} of {records} records were not delivered in time")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(position: &str, records: u64) -> SplitStatus {
        SplitStatus { position: position.to_owned(), records, ..SplitStatus::default() }
    }

    #[test]
    fn the_ledger_is_closed_when_every_split_is_at_its_end() {
        let mut splits = vec![split("end", 3), split("end", 3), split("end", 2)];
        assert_eq!(Ledger::of(10, &splits), None, "one split is not listed yet");
        splits.push(split("after 1", 2));
        assert_eq!(Ledger::of(10, &splits), None, "its end is not delivered");
        splits[3] = split("end", 2);
        let ledger = Ledger::of(10, &splits).unwrap();
        assert_eq!(ledger.to_string(), "ledger: selftest: sent 10, delivered 10, lost 0");
        splits[3] = split("end", 1);
        let ledger = Ledger::of(10, &splits).unwrap();
        assert_eq!(ledger.to_string(), "ledger: selftest: sent 10, delivered 9, lost 1");
    }

    #[test]
    fn a_time_is_seconds_unless_it_says_otherwise() {
        let seconds = |text| span(text).map(|span| span.as_secs());
        assert_eq!((seconds("90"), seconds("60s"), seconds("2m")), (Ok(90), Ok(60), Ok(120)));
        for wrong in ["", "s", "0", "5h", "-1", "99999999999999999999"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
