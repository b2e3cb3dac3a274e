//! Objects that are dropped, beside others that are created and in numbers.

use std::sync::{Arc, atomic::Ordering};

use connector::Listing;
use model::{Creation, ObjectKind, SourceSpec};
use shardwright_coordinator::{ErrorKind, Leader};
use store::MetadataStore;

use crate::{
    fake_source::CREATION,
    fake_store::{FakeStore, Fate},
    setup::{Coordinator, sink, source, until_stored},
};

/// A source without splits.
async fn empty_source(leader: &Leader) -> Arc<SourceSpec> {
    let listing = Listing { creation: Creation(CREATION.0), splits: Vec::new(), now: None, retention: None };
    leader.create_source(source("clicks", "dropping"), Some(&listing)).await.unwrap()
}

#[tokio::test]
async fn no_sink_is_created_on_a_source_while_it_is_dropped() {
    let fake = Arc::new(FakeStore::new());
    let store: Arc<dyn MetadataStore> = fake.clone();
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    let clicks = empty_source(&leader).await;
    // The sink is stored, and its leader does not know it yet.
    fake.lose_answer("/name/sink/", Fate::Held);
    let created = {
        let (leader, clicks) = (leader.clone(), Arc::clone(&clicks));
        tokio::spawn(async move { leader.create_sink(sink("out", &clicks), &clicks).await })
    };
    crate::setup::until("the answer is held back", || fake.held.load(Ordering::SeqCst) == 1).await;
    let let_go = async { fake.let_go.notify_one() };
    let (dropped, ()) = tokio::join!(leader.drop_object(ObjectKind::Source, "clicks", false), let_go);
    created.await.unwrap().unwrap();
    assert_eq!(dropped.unwrap_err().kind, ErrorKind::InUse);
    assert!(leader.source("clicks").is_some());
}

#[tokio::test]
async fn a_source_goes_with_more_sinks_than_one_transaction_takes() {
    let store: Arc<dyn MetadataStore> = Arc::new(FakeStore::new());
    let coordinator = Coordinator::start(&store).await;
    let leader = coordinator.leader().await;
    let clicks = empty_source(&leader).await;
    for n in 0..150 {
        leader.create_sink(sink(&format!("out{n:03}"), &clicks), &clicks).await.unwrap();
    }
    let dropped = leader.drop_object(ObjectKind::Source, "clicks", true).await.unwrap();
    assert_eq!(dropped.objects.len(), 151);
    assert_eq!(dropped.objects[150], (ObjectKind::Source, "clicks".to_owned()), "the source goes last");
    until_stored(&store, "nothing is left", |view| view.objects.is_empty()).await;
}
