//! How long a plan takes for a large cluster. Not run by itself: `cargo test --release -p shardwright-logic --test speed -- --ignored`.

mod world;

use std::time::Instant;

use model::Epoch;
use shardwright_logic::{
    assign::cost::Sample,
    plan::{RunReport, list, plan},
};
use world::{SECOND, World};

/// The world: 10,000 splits for two sinks on 50 workers.
#[test]
#[ignore = "a measurement, for an optimized build"]
fn a_plan_of_20_000_tasks() {
    let began = Instant::now();
    let mut world = World::new(10_000, 2, 50);
    println!("made in {:?}", began.elapsed());
    let mut revision = 0;
    let mut time = |world: &mut World, what: &str| {
        let began = Instant::now();
        let plan = plan(&world.desired, &world.observed, &world.timing, world.now);
        println!("{what}: {:?}, {} actions", began.elapsed(), plan.actions.len());
        for action in &plan.actions {
            revision += 1;
            world.observed.apply(action, Epoch { generation: 1, revision }, world.now);
        }
    };
    world.beat(SECOND);
    time(&mut world, "first placement");
    for _ in 0..40 {
        world.beat(SECOND);
    }
    let sample = Sample { bytes_per_second: 1e5, ..Sample::default() };
    let reports: Vec<_> =
        world.observed.assignments.iter().map(|(task, (epoch, _))| (task.clone(), *epoch)).collect();
    let began = Instant::now();
    for (task, epoch) in reports {
        world.observed.reported(task, RunReport { epoch, failed: None, sample }, world.now);
    }
    println!("20,000 reports: {:?}", began.elapsed());
    time(&mut world, "nothing to do");
    time(&mut world, "nothing to do, again");
    let began = Instant::now();
    let list = list(&world.desired, &world.observed, "p1", &world.timing, world.now);
    println!("the list of one of the workers: {:?}, {} runs", began.elapsed(), list.run.len());
    world.start_worker("w99", true);
    world.beat(SECOND);
    time(&mut world, "a worker joined");
    time(&mut world, "while it is filled");
}
