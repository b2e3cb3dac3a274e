//! The outbox against the examples of the delivery rules and against a destination that does its worst.

use super::*;
use proptest::prelude::*;

const NOW: Duration = Duration::ZERO;
const BREATH: Duration = Duration::from_secs(6);
const LIMITS: Limits = Limits { rows: 5, bytes: 1000, linger: Duration::ZERO };

fn row(index: u32, key: u64) -> Row {
    Row { chunk: ChunkId(0), index, bytes: 10, key }
}

fn outbox(order: Order, keys: &[u64]) -> Outbox {
    let mut outbox = Outbox::new(order, BREATH);
    for (index, key) in keys.iter().enumerate() {
        outbox.push(row(u32::try_from(index).unwrap(), *key), NOW);
    }
    outbox
}

fn next(outbox: &mut Outbox, now: Duration) -> Option<(RequestId, Vec<u32>)> {
    let request = outbox.next_request(&LIMITS, now)?;
    Some((request.id, request.rows.iter().map(|r| r.index).collect()))
}

fn indexes(rows: &[Row]) -> Vec<u32> {
    rows.iter().map(|r| r.index).collect()
}

#[test]
fn only_the_failed_entry_is_sent_again() {
    let mut outbox = outbox(Order::Key, &[1, 2, 3, 4, 5]);
    let (id, rows) = next(&mut outbox, NOW).unwrap();
    assert_eq!(rows, [0, 1, 2, 3, 4]);
    let resolved = outbox.resolve(id, &Outcome::Answered(vec![(1, Failure::Again)]));
    assert_eq!((indexes(&resolved.done), resolved.again), (vec![0, 2, 3, 4], 1));
    assert_eq!(next(&mut outbox, NOW).unwrap().1, [1]);
}

#[test]
fn a_later_entry_of_a_failed_key_is_sent_again_after_it() {
    let mut outbox = outbox(Order::Key, &[1, 2, 3, 2, 5]);
    let (id, _) = next(&mut outbox, NOW).unwrap();
    let resolved = outbox.resolve(id, &Outcome::Answered(vec![(1, Failure::Again)]));
    assert_eq!(indexes(&resolved.done), [0, 2, 4]);
    assert_eq!(next(&mut outbox, NOW).unwrap().1, [1, 3]);
}

#[test]
fn a_piecemeal_destination_never_gets_two_rows_of_a_key_in_one_request() {
    let mut outbox = outbox(Order::Single, &[1, 2, 1, 3, 2, 1]);
    let (first, rows) = next(&mut outbox, NOW).unwrap();
    assert_eq!(rows, [0, 1, 3]);
    assert!(next(&mut outbox, NOW).is_none());
    outbox.resolve(first, &Outcome::Answered(vec![(1, Failure::Again)]));
    let (second, rows) = next(&mut outbox, NOW).unwrap();
    assert_eq!(rows, [1, 2], "the failed row before what is newer of its key");
    outbox.resolve(second, &Outcome::Answered(vec![]));
    assert_eq!(next(&mut outbox, NOW).unwrap().1, [4, 5]);
}

#[test]
fn without_order_only_the_failed_entry_goes_again_whatever_its_key() {
    let mut outbox = outbox(Order::Free, &[1, 2, 3, 2, 5]);
    let (id, _) = next(&mut outbox, NOW).unwrap();
    outbox.resolve(id, &Outcome::Answered(vec![(1, Failure::Again)]));
    assert_eq!(next(&mut outbox, NOW).unwrap().1, [1]);
}

#[test]
fn a_key_in_flight_holds_back_its_later_rows_and_no_others() {
    let mut outbox = outbox(Order::Key, &[1, 2, 3, 4, 5, 1, 6, 1]);
    let (first, _) = next(&mut outbox, NOW).unwrap();
    let (second, rows) = next(&mut outbox, NOW).unwrap();
    assert_eq!(rows, [6]);
    assert!(next(&mut outbox, NOW).is_none());
    outbox.resolve(first, &Outcome::Answered(vec![]));
    assert_eq!(next(&mut outbox, NOW).unwrap().1, [5, 7]);
    outbox.resolve(second, &Outcome::Answered(vec![]));
}

#[test]
fn as_one_key_there_is_one_request_at_a_time() {
    let mut outbox = outbox(Order::Whole, &[0; 7]);
    let (id, rows) = next(&mut outbox, NOW).unwrap();
    assert_eq!(rows, [0, 1, 2, 3, 4]);
    assert!(next(&mut outbox, NOW).is_none());
    let resolved = outbox.resolve(id, &Outcome::Answered(vec![(2, Failure::Again)]));
    assert_eq!(indexes(&resolved.done), [0, 1]);
    assert_eq!(next(&mut outbox, NOW).unwrap().1, [2, 3, 4, 5, 6]);
}

#[test]
fn what_returns_goes_before_what_is_newer_in_any_order_of_answers() {
    let mut outbox = outbox(Order::Key, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    let (a, _) = next(&mut outbox, NOW).unwrap();
    let (b, _) = next(&mut outbox, NOW).unwrap();
    outbox.resolve(a, &Outcome::NotSent);
    outbox.resolve(b, &Outcome::Answered(vec![(0, Failure::Again)]));
    assert_eq!(next(&mut outbox, NOW).unwrap().1, [0, 1, 2, 3, 4]);
    assert_eq!(next(&mut outbox, NOW).unwrap().1, [5, 10]);
}

#[test]
fn newer_rows_of_an_ambiguous_key_wait_for_the_last_breath() {
    let mut outbox = outbox(Order::Key, &[1, 2, 3, 4, 5, 1, 6]);
    let (id, _) = next(&mut outbox, NOW).unwrap();
    outbox.resolve(id, &Outcome::Unknown);
    assert_eq!(outbox.quiet_at(), BREATH);
    let (id, rows) = next(&mut outbox, Duration::from_secs(1)).unwrap();
    assert_eq!(rows, [0, 1, 2, 3, 4], "the same rows may go again at once");
    outbox.resolve(id, &Outcome::Answered(vec![]));
    assert_eq!(next(&mut outbox, Duration::from_secs(1)).unwrap().1, [6], "another key goes on");
    assert!(next(&mut outbox, Duration::from_secs(5)).is_none());
    assert_eq!(outbox.wake_at(Duration::from_secs(5)), Some(BREATH));
    assert_eq!(next(&mut outbox, BREATH).unwrap().1, [5]);
}

#[test]
fn holds_are_forgotten_while_attempts_of_other_keys_are_ambiguous_again_and_again() {
    let mut outbox = outbox(Order::Key, &[]);
    for second in 0..100 {
        let now = Duration::from_secs(second);
        outbox.push(row(0, second), now);
        let (id, _) = next(&mut outbox, now).unwrap();
        outbox.resolve(id, &Outcome::Unknown);
        let (id, _) = next(&mut outbox, now).unwrap();
        outbox.resolve(id, &Outcome::Answered(vec![]));
        assert!(outbox.holds.keys() <= 12, "{} keys after {second} s", outbox.holds.keys());
        // Whose attempt may still land waits, and nobody else.
        let oldest = second.saturating_sub(5);
        outbox.push(row(1, oldest), now);
        assert!(next(&mut outbox, now).is_none());
        assert_eq!(outbox.wake_at(now), Some(Duration::from_secs(oldest) + BREATH));
        outbox.give_up(|_| true);
    }
}

#[test]
fn an_attempt_that_is_repeated_ends_when_its_last_one_does() {
    let mut outbox = outbox(Order::Key, &[1, 1]);
    let limits = Limits { rows: 1, ..LIMITS };
    for second in 0..3 {
        let id = outbox.next_request(&limits, Duration::from_secs(second)).unwrap().id;
        outbox.resolve(id, &Outcome::Unknown);
    }
    let now = Duration::from_secs(3);
    assert_eq!(outbox.wake_at(now), Some(Duration::from_secs(2) + BREATH), "the first two hold nothing back");
}

#[test]
fn an_entry_of_unknown_outcome_holds_back_even_its_neighbour() {
    let mut outbox = outbox(Order::Key, &[1, 1, 2]);
    let (id, _) = next(&mut outbox, NOW).unwrap();
    let resolved = outbox.resolve(id, &Outcome::Answered(vec![(0, Failure::Unknown)]));
    assert_eq!(indexes(&resolved.done), [2]);
    let (id, rows) = next(&mut outbox, NOW).unwrap();
    assert_eq!(rows, [0]);
    outbox.resolve(id, &Outcome::Answered(vec![]));
    assert!(next(&mut outbox, Duration::from_secs(5)).is_none());
    assert_eq!(next(&mut outbox, BREATH).unwrap().1, [1]);
}

/// Sends everything to a destination that refuses each request with one of these rows in it: the sizes of the requests, and
/// the rows that were refused alone.
fn refusing(order: Order, rows: u32, bad: &[u32]) -> (Vec<usize>, Vec<u32>) {
    let limits = Limits { rows: 512, bytes: u64::MAX, linger: Duration::ZERO };
    let mut outbox = outbox(order, &(0..u64::from(rows)).collect::<Vec<_>>());
    let (mut sizes, mut refused, mut done) = (vec![], vec![], HashSet::new());
    while let Some(request) = outbox.next_request(&limits, NOW) {
        sizes.push(request.rows.len());
        let is_bad = request.rows.iter().any(|row| bad.contains(&row.index));
        let outcome = if is_bad { Outcome::Refused } else { Outcome::Answered(vec![]) };
        let resolved = outbox.resolve(request.id, &outcome);
        refused.extend(indexes(&resolved.refused));
        done.extend(indexes(&resolved.done));
    }
    assert_eq!((outbox.pending(), done.len() + refused.len()), (0, rows as usize));
    (sizes, refused)
}

#[test]
fn one_bad_row_among_n_costs_log_n_requests_and_one() {
    for order in [Order::Key, Order::Single, Order::Free, Order::Whole] {
        for bad in [0, 1, 200, 255, 256, 510, 511] {
            let (sizes, refused) = refusing(order, 512, &[bad]);
            assert_eq!(refused, [bad]);
            // The refused one, nine halves, the row alone, and what was free to go with others in the end.
            assert!(sizes.len() <= 1 + 9 + 1 + 1, "row {bad}, {order:?}: {sizes:?}");
        }
    }
    assert_eq!(refusing(Order::Key, 512, &[]).0, [512]);
    let (sizes, refused) = refusing(Order::Key, 512, &[7, 300]);
    assert_eq!(refused, [7, 300]);
    assert!(sizes.len() <= 2 * 12, "{sizes:?}");
    assert_eq!(refusing(Order::Whole, 5, &[0, 1, 2, 3, 4]).1, [0, 1, 2, 3, 4]);
}

#[test]
fn nothing_overtakes_a_half_that_waits() {
    let mut outbox = outbox(Order::Key, &[1, 2, 3, 4, 4, 5]);
    let (id, rows) = next(&mut outbox, NOW).unwrap();
    assert_eq!(rows, [0, 1, 2, 3, 4]);
    outbox.resolve(id, &Outcome::Refused);
    outbox.push(row(6, 4), NOW);
    let (tried, rows) = next(&mut outbox, NOW).unwrap();
    assert_eq!(rows, [0, 1]);
    assert_eq!(next(&mut outbox, NOW).unwrap().1, [5], "row 6 has the key of rows 3 and 4");
    assert!(next(&mut outbox, NOW).is_none());
    outbox.resolve(tried, &Outcome::NotSent);
    let (tried, rows) = next(&mut outbox, NOW).unwrap();
    assert_eq!(rows, [0, 1], "an outage says nothing of either half");
    outbox.resolve(tried, &Outcome::Refused);
    let (tried, rows) = next(&mut outbox, NOW).unwrap();
    assert_eq!(rows, [0]);
    assert!(next(&mut outbox, NOW).is_none());
    let resolved = outbox.resolve(tried, &Outcome::Refused);
    assert_eq!(indexes(&resolved.refused), [0]);
    assert_eq!(
        next(&mut outbox, NOW).unwrap().1,
        [1, 2, 3, 4, 6],
        "the others go together and with what is newer"
    );
}

#[test]
fn a_row_that_landed_late_is_followed_by_the_rows_behind_it_once_more() {
    let mut outbox = outbox(Order::Key, &[1, 2, 1, 1, 2]);
    let (id, _) = next(&mut outbox, NOW).unwrap();
    outbox.restart(id, Duration::from_secs(2));
    let resolved = outbox.resolve(id, &Outcome::Answered(vec![(0, Failure::Late), (4, Failure::Unknown)]));
    assert_eq!((indexes(&resolved.done), resolved.again), (vec![0, 1], 3));
    assert_eq!(next(&mut outbox, NOW).unwrap().1, [2, 3, 4]);
    assert_eq!(outbox.quiet_at(), Duration::from_secs(2) + BREATH, "counted from the last attempt");
}

/// Rows of chunks 0 (given up later) and 1, each of key 7 and one of its own.
fn two_runs() -> Outbox {
    let mut outbox = Outbox::new(Order::Key, BREATH);
    for (chunk, keys) in [(0, [7, 1]), (1, [7, 2])] {
        for (index, key) in (0..).zip(keys) {
            outbox.push(Row { chunk: ChunkId(chunk), ..row(index, key) }, NOW);
        }
    }
    outbox
}

#[test]
fn what_is_given_up_is_not_sent() {
    let mut outbox = two_runs();
    outbox.give_up(|chunk| chunk == ChunkId(0));
    assert_eq!((outbox.pending(), outbox.pending_bytes), (2, 20));
    let request = outbox.next_request(&LIMITS, NOW).unwrap();
    assert!(request.rows.iter().all(|row| row.chunk == ChunkId(1)));
}

#[test]
fn what_is_given_up_under_way_keeps_its_keys_busy_and_what_may_land_holds_newer_rows_back() {
    let one = Limits { rows: 2, ..LIMITS };
    let mut outbox = two_runs();
    let first = outbox.next_request(&one, NOW).unwrap();
    outbox.give_up(|chunk| chunk == ChunkId(0));
    assert!(outbox.is_given_up(first.id, 0));
    let second = outbox.next_request(&one, NOW).unwrap();
    assert_eq!(second.rows[0].key, 2, "key 7 is still under way");
    let resolved = outbox.resolve(first.id, &Outcome::Unknown);
    assert_eq!(resolved.again, 0);
    outbox.resolve(second.id, &Outcome::Answered(vec![]));
    assert!(outbox.next_request(&one, NOW).is_none(), "the given-up row may still land");
    assert_eq!(outbox.wake_at(NOW), Some(BREATH));
    assert_eq!(outbox.next_request(&one, BREATH).unwrap().rows[0].key, 7);
}

#[test]
fn a_search_for_a_bad_row_that_was_given_up_holds_nothing_back() {
    let mut outbox = two_runs();
    let whole = outbox.next_request(&LIMITS, NOW).unwrap();
    outbox.resolve(whole.id, &Outcome::Refused);
    outbox.give_up(|chunk| chunk == ChunkId(0));
    let mut sent = 0;
    while let Some(request) = outbox.next_request(&LIMITS, NOW) {
        sent += request.rows.len();
        outbox.resolve(request.id, &Outcome::Answered(vec![]));
    }
    assert_eq!((sent, outbox.pending()), (2, 0));
}

#[test]
fn a_request_refused_as_a_whole_after_some_of_it_was_given_up_blames_nobody() {
    let mut outbox = two_runs();
    let whole = outbox.next_request(&LIMITS, NOW).unwrap();
    outbox.give_up(|chunk| chunk == ChunkId(0));
    let resolved = outbox.resolve(whole.id, &Outcome::Refused);
    assert_eq!((resolved.refused.len(), resolved.again), (0, 2));
    assert_eq!(outbox.next_request(&LIMITS, NOW).unwrap().rows.len(), 2);
}

#[test]
fn the_first_row_waits_for_company_but_not_for_ever() {
    let limits = Limits { linger: Duration::from_millis(50), ..LIMITS };
    let mut outbox = outbox(Order::Key, &[1, 2]);
    assert!(outbox.next_request(&limits, Duration::from_millis(49)).is_none());
    assert_eq!(outbox.wake_at(Duration::from_millis(49)), Some(Duration::from_millis(50)));
    assert_eq!(outbox.next_request(&limits, Duration::from_millis(50)).unwrap().rows.len(), 2);
    outbox.push(row(2, 3), Duration::from_millis(60));
    assert!(outbox.next_request(&limits, Duration::from_millis(60)).is_none());
    outbox.close();
    assert_eq!(outbox.next_request(&limits, Duration::from_millis(60)).unwrap().rows.len(), 1);
}

#[test]
fn what_cannot_fill_a_request_waits_while_another_is_under_way() {
    let ms = Duration::from_millis;
    let limits = Limits { linger: ms(50), ..LIMITS };
    let mut outbox = outbox(Order::Single, &[1, 2, 1, 2]);
    let (first, second) = (outbox.next_request(&limits, ms(50)).unwrap(), ms(60));
    assert_eq!(first.rows.len(), 2);
    // Keys 3 and 4 are free at once, but five rows would be a full request.
    outbox.push(row(4, 3), NOW);
    outbox.push(row(5, 4), NOW);
    assert!(outbox.next_request(&limits, second).is_none());
    assert_eq!(outbox.wake_at(second), Some(ms(100)));
    for n in 6..9 {
        outbox.push(row(n, u64::from(n)), NOW);
    }
    assert_eq!(outbox.next_request(&limits, second).unwrap().rows.len(), 5, "full: nothing to wait for");
    outbox.resolve(first.id, &Outcome::Answered(vec![]));
    assert!(outbox.next_request(&limits, ms(70)).is_none());
    assert_eq!(outbox.next_request(&limits, ms(110)).unwrap().rows.len(), 2, "not for longer than linger");
}

/// What the destination does with the next request.
#[derive(Clone, Debug)]
enum Fate {
    Take,
    /// Entries whose bit is set fail; those of the second mask with unknown outcome, landing later if the third says so.
    Some {
        fail: u32,
        unknown: u32,
        late: u32,
        delay: u64,
    },
    Nothing,
    /// Entries whose bit is set are refused at first and land when they are tried once more.
    Late(u32),
    /// Nobody says; entries of the mask land after the delay, each or not at all.
    Unknown {
        land: u32,
        delay: u64,
    },
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        3 => Just(Fate::Take),
        2 => (any::<u32>(), any::<u32>(), any::<u32>(), 0_u64..6000)
            .prop_map(|(fail, unknown, late, delay)| Fate::Some { fail, unknown, late, delay }),
        1 => Just(Fate::Nothing),
        1 => any::<u32>().prop_map(Fate::Late),
        3 => (any::<u32>(), 0_u64..6000).prop_map(|(land, delay)| Fate::Unknown { land, delay }),
    ]
}

/// Something that landed: when, what, and what else its request carried.
struct Landed {
    at: u64,
    row: Row,
    beside: Vec<u32>,
}

/// A destination that keeps what landed. Like the real ones it takes the entries of a request one by one.
#[derive(Default)]
struct World {
    landed: Vec<Landed>,
    done: HashSet<u32>,
    /// Rows that make it refuse the whole request.
    bad: HashSet<u32>,
}

impl World {
    fn land(&mut self, at: u64, rows: &[Row], which: impl Fn(usize) -> bool) {
        let beside = indexes(rows);
        let landing = rows.iter().enumerate().filter(|(i, row)| which(*i) && !self.bad.contains(&row.index));
        let landing: Vec<_> = landing.collect();
        self.landed.extend(landing.into_iter().map(|(_, row)| Landed {
            at,
            row: *row,
            beside: beside.clone(),
        }));
    }

    fn answer(&mut self, now: u64, started: u64, rows: &[Row], fate: &Fate) -> Outcome {
        let bit = |mask: u32, i: usize| mask >> (i % 32) & 1 == 1;
        let refuses = matches!(fate, Fate::Take | Fate::Some { .. } | Fate::Late(_))
            && rows.iter().any(|row| self.bad.contains(&row.index));
        match *fate {
            _ if refuses => Outcome::Refused,
            Fate::Take => {
                self.land(now, rows, |_| true);
                Outcome::Answered(vec![])
            }
            Fate::Some { fail, unknown, late, delay } => {
                self.land(now, rows, |i| !bit(fail, i));
                self.land(now.max(started + delay), rows, |i| {
                    bit(fail, i) && bit(unknown, i) && bit(late, i)
                });
                let failure = |i| if bit(unknown, i) { Failure::Unknown } else { Failure::Again };
                let failed = (0..rows.len()).filter(|i| bit(fail, *i)).map(|i| (i, failure(i)));
                Outcome::Answered(failed.collect())
            }
            Fate::Nothing => Outcome::NotSent,
            Fate::Late(late) => {
                self.land(now, rows, |i| !bit(late, i));
                self.land(now + 1, rows, |i| bit(late, i));
                let late = (0..rows.len()).filter(|i| bit(late, *i));
                Outcome::Answered(late.map(|i| (i, Failure::Late)).collect())
            }
            Fate::Unknown { land, delay } => {
                self.land(started + delay, rows, |i| bit(land, i));
                Outcome::Unknown
            }
        }
    }

    /// Per key in the order of landing: a first delivery skips nothing but what its own request carried, and the last
    /// record of a key is its newest.
    fn check(mut self, keys: &[u64]) {
        self.landed.sort_by_key(|l| l.at);
        let mut landed: HashSet<u32> = HashSet::new();
        let mut last: HashMap<u64, u32> = HashMap::new();
        for Landed { at, row, beside } in &self.landed {
            let older = (0..row.index).filter(|i| keys[*i as usize] == row.key && !self.bad.contains(i));
            let skipped: Vec<u32> = older.filter(|i| !landed.contains(i) && !beside.contains(i)).collect();
            assert!(skipped.is_empty(), "{row:?} landed at {at} before {skipped:?}");
            landed.insert(row.index);
            last.insert(row.key, row.index);
        }
        for (key, row) in last {
            let is_good = |i: &u32| keys[*i as usize] == key && !self.bad.contains(i);
            let newest = (0..u32::try_from(keys.len()).unwrap()).rev().find(is_good);
            assert_eq!(Some(row), newest, "an old value of key {key} landed last");
        }
    }
}

fn run(order: Order, keys: &[u64], fates: &[Fate], picks: &[usize], bad: &HashSet<u32>) {
    let mut outbox = outbox(order, keys);
    let (mut world, mut now) = (World { bad: bad.clone(), ..World::default() }, 0_u64);
    let (mut fates, mut picks) = (fates.iter(), picks.iter().cycle());
    let mut open: Vec<(u64, Request)> = vec![];
    let at = Duration::from_millis;
    loop {
        while open.len() < 3
            && let Some(request) = outbox.next_request(&LIMITS, at(now))
        {
            open.push((now, request));
        }
        if open.is_empty() {
            match outbox.wake_at(at(now)) {
                Some(wake) => now = u64::try_from(wake.as_millis()).unwrap(),
                None => break,
            }
            continue;
        }
        let (started, request) = open.swap_remove(picks.next().unwrap_or(&0) % open.len());
        let outcome = world.answer(now, started, &request.rows, fates.next().unwrap_or(&Fate::Take));
        let resolved = outbox.resolve(request.id, &outcome);
        world.done.extend(resolved.done.iter().map(|r| r.index));
        for row in resolved.refused {
            assert!(world.bad.contains(&row.index), "{row:?} is good");
            world.done.insert(row.index);
        }
        now += 10;
    }
    assert_eq!((outbox.pending(), outbox.in_flight()), (0, 0));
    assert_eq!(world.done.len(), keys.len(), "lost");
    for landed in &world.landed {
        assert!(landed.at < now || at(landed.at) <= outbox.quiet_at(), "something lands after all is quiet");
    }
    if order != Order::Free {
        world.check(keys);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// I10 and P12: nothing is lost, keys stay in order, and no late landing ends up after a newer value of its key.
    #[test]
    fn nothing_is_lost_and_keys_stay_in_order(
        keys in prop::collection::vec(0_u64..6, 1..40),
        fates in prop::collection::vec(fate(), 0..40),
        picks in prop::collection::vec(0_usize..3, 1..20),
        order in prop_oneof![4 => Just(Order::Key), 2 => Just(Order::Whole), 1 => Just(Order::Free)],
        bad in prop_oneof![2 => Just(HashSet::new()), 3 => prop::collection::hash_set(0_u32..40, 0..5)],
    ) {
        let keys = if order == Order::Whole { vec![0; keys.len()] } else { keys };
        run(order, &keys, &fates, &picks, &bad);
    }
}
