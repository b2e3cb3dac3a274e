//! A first listing that is too long for one commit, and a leader that does not get to its end.

use std::sync::{Arc, atomic::Ordering};

use connector::Listing;
use model::{Split, SplitState, StartFrom, Timestamp};
use store::MetadataStore;

use crate::{
    fake_source::{self, CREATION, open, split},
    fake_store::{FakeStore, Fate},
    setup::{Coordinator, source, until_stored, view},
};

/// 250 splits, of which the first one listed descends from the last one.
fn many() -> Vec<Split> {
    let mut splits = vec![open("child", &["s248"])];
    splits.extend((0..249).map(|n| open(&format!("s{n:03}"), &[])));
    splits
}

async fn completed_after(stream: &'static str, fate: Fate) {
    let fake = Arc::new(FakeStore::new());
    let store: Arc<dyn MetadataStore> = fake.clone();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    fake_source::stream(stream, |known| known.splits = many());
    // The second part loses its answer, and with it the leader its office.
    fake.lose_answer("s150", fate);
    let listing = Listing { creation: CREATION, splits: many(), now: None, retention: None };
    let created = leader.create_source(source("clicks", stream), Some(&listing)).await.unwrap();
    assert_eq!(fake.lost.load(Ordering::SeqCst), 1);
    let half = view(&store).await;
    let written = half.splits.len();
    assert!((100..=200).contains(&written), "{written} splits were written in parts");
    assert!(
        !half.splits.contains_key(&(created.id, split("child"))),
        "a child never stands without its parent"
    );
    assert!(half.objects[&created.id].value.listing_due);
    let next = coordinator.leader().await;
    assert!(next.revision() > leader.revision());
    until_stored(&store, "the next leader has completed the listing", |view| view.splits.len() == 250).await;
    let whole = view(&store).await;
    for ((_, split), record) in &whole.splits {
        let (start, state) = (&record.value.start, &record.value.state);
        assert_eq!((start, state), (&StartFrom::At(Timestamp(5_000)), &SplitState::Listed), "{split}");
    }
    assert!(!whole.objects[&created.id].value.listing_due);
    // What comes from now on begins at its horizon.
    fake_source::stream(stream, |known| known.splits.push(open("late", &["s000"])));
    let late = (created.id, split("late"));
    until_stored(&store, "the late one is listed", |view| view.splits.contains_key(&late)).await;
    assert_eq!(view(&store).await.splits[&late].value.start, StartFrom::Horizon);
}

#[tokio::test]
async fn a_first_listing_that_a_leader_could_not_finish_is_completed_from_the_same_start() {
    completed_after("unfinished", Fate::Vanished).await;
}

#[tokio::test]
async fn a_part_of_a_first_listing_whose_answer_was_lost_is_not_written_anew() {
    completed_after("unanswered", Fate::Landed).await;
}

/// The spec may change meanwhile: the mark stays with the source.
#[tokio::test]
async fn a_source_that_is_altered_before_its_listing_is_whole_is_still_due() {
    let fake = Arc::new(FakeStore::new());
    let store: Arc<dyn MetadataStore> = fake.clone();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    fake_source::stream("altered", |known| known.fails = Some("away".to_owned()));
    let created = leader.create_source(source("clicks", "altered"), None).await.unwrap();
    leader.update_source("clicks", |_| Ok(())).await.unwrap();
    assert!(view(&store).await.objects[&created.id].value.listing_due);
    fake_source::stream("altered", |known| {
        known.fails = None;
        known.splits = many();
    });
    until_stored(&store, "it is listed", |view| {
        view.splits.len() == 250 && !view.objects[&created.id].value.listing_due
    })
    .await;
    let at = StartFrom::At(Timestamp(5_000));
    assert!(view(&store).await.splits.values().all(|record| record.value.start == at));
}
