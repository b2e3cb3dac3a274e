//! How long a plan takes for a large cluster. Not run by itself: `cargo test --release -p shardwright-logic --test speed -- --ignored`.

mod world;

use std::{collections::BTreeSet, time::Instant};

use model::Epoch;
use shardwright_logic::{
    assign::{Rules, Running, Seat, Seats, Transit, balance, cost::Sample, exchange, spread},
    plan::{RunReport, list, plan},
};
use world::{SECOND, World};

/// The balancer's part of it, when there is nothing to do.
fn balancing(world: &World) {
    let running: Running = world
        .observed
        .assignments
        .iter()
        .map(|(task, (_, run))| (task.clone(), run.worker.clone()))
        .collect();
    let seat = |name: &String| (name.clone(), Seat { capacity: 1, zone: String::new() });
    let seats: Seats = world.workers.keys().map(seat).collect();
    let (transit, fixed) = (Transit::default(), BTreeSet::new());
    let rules = Rules { history: &world.observed.history, fixed: &fixed, now: world.now, force: false };
    let began = Instant::now();
    assert_eq!(balance(&running, &transit, &seats, &rules), vec![]);
    assert_eq!(spread(&running, &transit, &seats, &rules), vec![]);
    let costs = world.observed.loads.iter().map(|(task, load)| (task, load.cost())).collect();
    assert_eq!(exchange(&running, &transit, &seats, &costs, &rules), vec![]);
    println!("of that, the balancer: {:?}", began.elapsed());
}

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
    balancing(&world);
    world.start_worker("w99", true);
    world.beat(SECOND);
    time(&mut world, "a worker joined");
    time(&mut world, "while it is filled");
}
