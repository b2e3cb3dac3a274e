use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::StreamExt as _;
use store::{Commit, ErrorKind, Guard, Key, Keyspace, MetadataStore, Write, suite};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::*;
use crate::{
    net::{Link, Net},
    place::Place,
};

const ME: Place = Place::Coordinator(0);
const SECOND: Duration = Duration::from_secs(1);

/// A store, one process, and a network that follows tokio's paused clock.
struct Bench {
    net: Net,
    /// Ends with the bench.
    _steps: JoinSet<()>,
    server: Server,
    model: Arc<Mutex<Model>>,
    client: Client,
    keys: Keyspace,
}

fn bench(seed: u64) -> Bench {
    let net = Net::new(seed);
    let (stepped, start) = (net.clone(), Instant::now());
    let mut steps = JoinSet::new();
    steps.spawn(async move {
        loop {
            stepped.run_until(start.elapsed());
            sleep(Duration::from_millis(4)).await;
        }
    });
    let model = Arc::<Mutex<Model>>::default();
    Bench {
        server: Server::new(net.clone(), model.clone()),
        client: Client::new(net.clone(), ME, model.clone()),
        keys: Keyspace::new("c"),
        model,
        net,
        _steps: steps,
    }
}

impl Bench {
    fn worker(&self, name: &str) -> Key {
        self.keys.worker(name)
    }

    fn put(&self, name: &str) -> Vec<Write> {
        vec![Write::Put(self.worker(name), "x".into())]
    }

    async fn done(&self, name: &str) -> u64 {
        match self.client.commit(&[], self.put(name)).await.unwrap() {
            Commit::Done(revision) => revision,
            Commit::Lost(present) => panic!("lost: {present:?}"),
        }
    }

    /// How many keys there are, told from outside.
    fn count(&self) -> usize {
        self.model.lock().unwrap().snapshot(&self.keys.all()).entries.len()
    }

    fn set_links(&self, closed: bool, broken: f64) {
        for way in [(ME, Place::Store), (Place::Store, ME)] {
            self.net.set_link(way.0, way.1, Link { closed, ..Link::default() }, broken);
        }
    }

    fn story(&self) -> String {
        self.net.trace().lines().iter().map(|line| format!("{line}\n")).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn the_simulated_store_passes_the_suite() {
    let bench = bench(1);
    let server = bench.server.clone();
    suite::run(Arc::new(bench.client.clone()), || async move { server.break_watches() }).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_server_passes_the_suite_too() {
    let bench = bench(2);
    let server = bench.server.clone();
    suite::run(Arc::new(bench.client.clone()), || async move {
        server.fail(Outage::Down, 4 * SECOND);
        sleep(5 * SECOND).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_refuses_and_a_commit_waits_within_its_deadline() {
    let bench = bench(3);
    bench.server.fail(Outage::Down, SECOND);
    bench.done("early").await;
    bench.server.fail(Outage::Down, 10 * SECOND);
    let begun = Instant::now();
    let error = bench.client.commit(&[], bench.put("late")).await.unwrap_err();
    assert_eq!((error.kind, error.ambiguous), (ErrorKind::Unavailable, false), "{error}");
    assert!(begun.elapsed() <= 3 * SECOND, "{:?}", begun.elapsed());
    assert!(bench.client.list(&bench.keys.all()).await.is_err());
    sleep(10 * SECOND).await;
    assert_eq!(bench.count(), 1, "a refused commit never comes to be");
}

#[tokio::test(start_paused = true)]
async fn a_hung_store_carries_out_later_what_its_callers_gave_up() {
    let bench = bench(4);
    bench.server.fail(Outage::Hung, 8 * SECOND);
    let error = bench.client.commit(&[], bench.put("late")).await.unwrap_err();
    assert_eq!((error.kind, error.ambiguous), (ErrorKind::Unavailable, true), "{error}");
    assert_eq!(bench.count(), 0);
    sleep(6 * SECOND).await;
    assert_eq!(bench.count(), 1, "{}", bench.story());
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_a_commit_is_ambiguous_and_not_carried_out() {
    let bench = bench(5);
    bench.server.fail(Outage::NoLeader, 10 * SECOND);
    let begun = Instant::now();
    let error = bench.client.commit(&[], bench.put("a")).await.unwrap_err();
    assert_eq!((error.kind, error.ambiguous), (ErrorKind::Unavailable, true), "{error}");
    assert!(begun.elapsed() < SECOND, "it is not made again: {:?}", begun.elapsed());
    sleep(11 * SECOND).await;
    assert_eq!(bench.count(), 0);
    bench.done("a").await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_is_lost_landed_once_and_is_ambiguous() {
    let bench = bench(6);
    bench.server.forget(1.0, 60 * SECOND);
    // Some break and some are silent.
    for n in 0..8 {
        let name = format!("w{n}");
        let guards = [Guard::Absent(bench.worker(&name))];
        let error = bench.client.commit(&guards, bench.put(&name)).await.unwrap_err();
        assert!(error.ambiguous && error.kind == ErrorKind::Unavailable, "{error}");
        assert_eq!(bench.count(), n + 1);
    }
    assert!(bench.story().contains("answer is lost"));
    bench.server.heal();
    bench.done("after").await;
}

#[tokio::test(start_paused = true)]
async fn a_late_commit_lands_after_its_successor_or_whenever_or_never() {
    let bench = bench(19);
    let (mut landed, mut spited) = (0, 0);
    for n in 0..40 {
        let name = format!("w{n}");
        bench.server.delay(1.0, 60 * SECOND);
        let error = bench.client.commit(&[], bench.put(&name)).await.unwrap_err();
        assert!(error.ambiguous, "{error}");
        bench.server.heal();
        let mut watch = bench.client.watch(&bench.worker(&name)).await.unwrap();
        let own = bench.done(&name).await;
        sleep(Duration::from_millis(20)).await;
        let now = bench.client.list(&bench.worker(&name)).await.unwrap().entries[0].mod_revision;
        spited += usize::from(now > own);
        sleep(7 * SECOND).await;
        let now = bench.client.list(&bench.worker(&name)).await.unwrap().entries[0].mod_revision;
        landed += usize::from(now > own);
        assert!(timeout(SECOND, watch.next()).await.is_ok());
    }
    assert!(spited > 4 && spited < landed && landed < 40, "{spited} of {landed}\n{}", bench.story());
}

#[tokio::test(start_paused = true)]
async fn a_guard_stops_a_late_commit() {
    let bench = bench(20);
    for n in 0..20 {
        let (name, lane) = (format!("w{n}"), format!("lane{n}"));
        let before = bench.done(&lane).await;
        bench.server.delay(1.0, 60 * SECOND);
        let guards = [Guard::Unchanged(bench.worker(&lane), before)];
        let writes = [bench.put(&name), bench.put(&lane)].concat();
        assert!(bench.client.commit(&guards, writes).await.unwrap_err().ambiguous);
        bench.server.heal();
        let next = bench.client.commit(&guards, bench.put(&lane)).await.unwrap();
        sleep(7 * SECOND).await;
        let there = !bench.client.list(&bench.worker(&name)).await.unwrap().entries.is_empty();
        assert_eq!(there, matches!(next, Commit::Lost(_)), "{}", bench.story());
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_held_back_by_a_partition_lands_when_it_heals() {
    let bench = bench(7);
    bench.set_links(true, 0.0);
    let error = bench.client.commit(&[], bench.put("late")).await.unwrap_err();
    assert!(error.ambiguous, "{error}");
    sleep(20 * SECOND).await;
    assert_eq!(bench.count(), 0);
    bench.set_links(false, 0.0);
    sleep(SECOND).await;
    assert_eq!(bench.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_by_the_stores_time_unless_the_store_was_away() {
    let bench = bench(8);
    let leader = bench.keys.leader();
    for (outage, kept) in [(None, false), (Some(Outage::Hung), false), (Some(Outage::Down), true)] {
        let lease = bench.client.lease(2 * SECOND).await.unwrap();
        let writes = vec![Write::PutLeased(leader.clone(), "me".into(), lease)];
        assert!(matches!(bench.client.commit(&[], writes).await, Ok(Commit::Done(_))));
        sleep(Duration::from_millis(1_900)).await;
        assert!(bench.client.keep_alive(lease).await.unwrap());
        if let Some(outage) = outage {
            bench.server.fail(outage, 3 * SECOND);
        }
        sleep(3 * SECOND + SECOND / 2).await;
        assert_eq!(bench.count() == 1, kept, "{outage:?}\n{}", bench.story());
        assert_eq!(bench.client.keep_alive(lease).await.unwrap(), kept, "{outage:?}");
        sleep(3 * SECOND).await;
        assert_eq!(bench.count(), 0, "{outage:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn watches_lag_and_wake_all_the_same() {
    let bench = bench(9);
    let mut watch = bench.client.watch(&bench.keys.all()).await.unwrap();
    bench.server.lag_watches(3 * SECOND, 10 * SECOND);
    bench.done("a").await;
    assert!(timeout(2 * SECOND, watch.next()).await.is_err(), "it lags");
    timeout(2 * SECOND, watch.next()).await.expect("it wakes");
    bench.server.heal();
    bench.done("a").await;
    timeout(SECOND, watch.next()).await.expect("it lags no more");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_was_broken_or_compacted_away_wakes_and_goes_on() {
    let bench = bench(10);
    let mut watch = bench.client.watch(&bench.keys.all()).await.unwrap();
    for n in 0..6 {
        if n % 2 == 0 {
            bench.server.break_watches();
        } else {
            bench.server.compact_watches();
        }
        timeout(SECOND, watch.next()).await.expect("a break wakes");
        assert!(timeout(20 * SECOND, watch.next()).await.is_err(), "once");
        bench.done("a").await;
        timeout(SECOND, watch.next()).await.expect("it was opened again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_never_leaves_a_watch_dead() {
    // What was held back is delivered, or lost with its connection.
    for broken in [0.0, 1.0] {
        let bench = bench(11);
        let other = Client::new(bench.net.clone(), Place::Coordinator(1), bench.model.clone());
        let mut watch = bench.client.watch(&bench.keys.all()).await.unwrap();
        for length in [SECOND, 5 * SECOND, 60 * SECOND] {
            bench.set_links(true, broken);
            other.commit(&[], bench.put("a")).await.unwrap();
            assert!(timeout(length, watch.next()).await.is_err(), "woken through a partition");
            bench.set_links(false, broken);
            timeout(10 * SECOND, watch.next()).await.expect("woken when it heals");
            while timeout(10 * SECOND, watch.next()).await.is_ok() {}
            other.commit(&[], bench.put("a")).await.unwrap();
            timeout(SECOND, watch.next()).await.expect("it is alive");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_hears_nothing_because_only_answers_are_cut_off_is_opened_again() {
    let bench = bench(12);
    let mut watch = bench.client.watch(&bench.keys.all()).await.unwrap();
    bench.net.set_link(Place::Store, ME, Link { closed: true, ..Link::default() }, 1.0);
    assert!(timeout(30 * SECOND, watch.next()).await.is_err());
    bench.net.set_link(Place::Store, ME, Link::default(), 1.0);
    timeout(5 * SECOND, watch.next()).await.expect("it is opened again, and wakes");
}

#[tokio::test(start_paused = true)]
async fn a_listing_overtaken_by_compaction_is_of_one_revision_nevertheless() {
    let bench = bench(13);
    for n in 0..400 {
        bench.done(&format!("{n:03}")).await;
    }
    bench.server.slow(Duration::from_millis(300), 600 * SECOND);
    let other = Client::new(bench.net.clone(), Place::Coordinator(1), bench.model.clone());
    let (model, keys) = (bench.model.clone(), bench.keys.clone());
    let storm = tokio::spawn(async move {
        for n in 0..12 {
            let removed = vec![Write::Delete(keys.worker(&format!("{n:03}")))];
            let Commit::Done(at) = other.commit(&[], removed).await.unwrap() else { panic!("lost") };
            model.lock().unwrap().compact(at).unwrap();
        }
    });
    for _ in 0..3 {
        let Ok(snapshot) = bench.client.list(&bench.keys.all()).await else { continue };
        // Keys of revision 2…401 are there, removed one by one at 402, 403, ….
        assert_eq!(snapshot.entries.len() as u64, 400 - (snapshot.revision - 401), "{}", snapshot.revision);
    }
    storm.await.unwrap();
    let health = bench.client.maintain(None).await.unwrap();
    assert_eq!(bench.client.list(&bench.keys.all()).await.unwrap().entries.len(), 388);
    assert!(health.alarms.is_empty() && health.size_bytes > 0);
}

#[tokio::test(start_paused = true)]
async fn history_grows_until_it_is_compacted() {
    let bench = bench(14);
    let mut last = 0;
    for _ in 0..50 {
        last = bench.done("a").await;
    }
    let before = bench.client.maintain(None).await.unwrap().size_bytes;
    let after = bench.client.maintain(Some(last)).await.unwrap().size_bytes;
    assert!(after * 40 < before, "{before} to {after}");
    assert_eq!(bench.client.maintain(Some(last)).await.unwrap().size_bytes, after, "twice is as well");
    assert!(bench.client.maintain(Some(last + 9)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_full_store_takes_deletions_only() {
    let bench = bench(15);
    bench.done("a").await;
    bench.model.lock().unwrap().set_alarm(NOSPACE, true);
    let error = bench.client.commit(&[], bench.put("b")).await.unwrap_err();
    assert_eq!((error.kind, error.ambiguous), (ErrorKind::Full, false), "{error}");
    assert_eq!(bench.client.maintain(None).await.unwrap().alarms, [NOSPACE]);
    let removed = vec![Write::Delete(bench.worker("a"))];
    assert!(matches!(bench.client.commit(&[], removed).await, Ok(Commit::Done(_))));
    bench.server.heal();
    bench.done("b").await;
}

#[tokio::test(start_paused = true)]
async fn the_story_tells_of_commits_and_not_of_keep_alives() {
    let bench = bench(16);
    let lease = bench.client.lease(5 * SECOND).await.unwrap();
    bench.done("a").await;
    bench.client.commit(&[Guard::Absent(bench.worker("a"))], bench.put("b")).await.unwrap();
    let lines = bench.net.trace().len();
    for _ in 0..5 {
        assert!(bench.client.keep_alive(lease).await.unwrap());
    }
    assert_eq!(bench.net.trace().len(), lines);
    let story = bench.story();
    assert!(story.contains("c0 2: +worker/a\n"), "{story}");
    assert!(story.contains("c0 lost at 2 (worker/a is there since 2): +worker/b\n"), "{story}");
}

#[tokio::test(start_paused = true)]
async fn one_seed_gives_one_story() {
    let play = |seed| async move {
        let bench = bench(seed);
        bench.server.slow(SECOND, 100 * SECOND);
        bench.server.forget(0.3, 100 * SECOND);
        for n in 0..20 {
            bench.client.commit(&[], bench.put(&format!("w{n}"))).await.ok();
        }
        bench.net.trace().hash()
    };
    let (first, again, other) = (play(17).await, play(17).await, play(18).await);
    assert_eq!(first, again);
    assert_ne!(first, other);
}
