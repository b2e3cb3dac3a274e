//! What a process shows of its roles at its telemetry listener: whether they can do their work, and their tasks.

use worker::{Standing, Worker};

use super::Process;

/// Tasks of a role that are shown.
const TASKS_MAX: usize = 1000;

/// A worker is ready while its session with the leader stands.
pub(super) fn worker(worker: &Worker, process: &Process) {
    let (mut standing, health) = (worker.standing(), process.health.clone());
    tokio::spawn(async move {
        loop {
            let now: Standing = *standing.borrow_and_update();
            match now.waits_for() {
                None => health.ready("worker"),
                Some(what) => health.not_ready("worker", what),
            }
            if standing.changed().await.is_err() {
                return health.not_ready("worker", "it has stopped");
            }
        }
    });
    let (view, name) = (worker.view(), worker.name().to_owned());
    process.tasks.add("worker", move || {
        let (tasks, all) = view.tasks(TASKS_MAX);
        let left_out = all - tasks.len();
        serde_json::json!({ "name": name, "tasks": tasks, "left_out": left_out })
    });
}

/// A coordinator is ready while somebody leads, until it is told to stop.
pub(super) fn coordinator(server: &coordinator::Server, process: &Process) {
    let (handle, health, signalled) = (server.handle(), process.health.clone(), process.signalled.clone());
    let mut changing = handle.clone();
    tokio::spawn(async move {
        loop {
            match changing.leader_address() {
                Some(_) => health.ready("coordinator"),
                None => health.not_ready("coordinator", "no coordinator leads"),
            }
            let goes_on = tokio::select! { biased;
                () = signalled.cancelled() => false,
                goes_on = changing.leader_changes() => goes_on,
            };
            if !goes_on {
                return health.not_ready("coordinator", "it stops");
            }
        }
    });
    process.tasks.add("coordinator", move || handle.tasks(TASKS_MAX));
}
