//! Time and the processes that live in it. The world moves in small steps: what is due on the network happens, then each process
//! runs until its own clock is there too. One thread, a fixed order, no waiting: a minute takes as long as its work.

use std::{collections::BTreeMap, future::Future, time::Duration};

use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
    time::Instant,
};

use crate::{net::Net, os, place::Place};

/// How far the world moves at a time. Parcels arrive at the end of a step.
pub const STEP: Duration = Duration::from_millis(4);

/// A machine with a clock, and perhaps a process on it.
struct Machine {
    process: Option<Process>,
    /// What its monotonic clock shows.
    clock: Duration,
    /// How fast that clock runs; 1.0 is right.
    rate: f64,
    /// How wrong its wall clock is.
    ahead: Duration,
    suspended: bool,
}

struct Process {
    runtime: Runtime,
    /// The machine's clock and the runtime's at its start.
    began: (Duration, Instant),
    main: JoinHandle<()>,
}

/// Everything that runs.
pub struct World {
    net: Net,
    machines: BTreeMap<Place, Machine>,
}

impl World {
    /// Machines at these places, without processes.
    #[must_use]
    pub fn new(net: Net, places: impl IntoIterator<Item = Place>) -> Self {
        let machine = || Machine {
            process: None,
            clock: Duration::ZERO,
            rate: 1.0,
            ahead: Duration::ZERO,
            suspended: false,
        };
        let machines = places.into_iter().map(|place| (place, machine())).collect();
        Self { net, machines }
    }

    /// The network and the time.
    #[must_use]
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// Sets the clocks of a machine, before its process starts: how fast, and how far the wall clock is ahead.
    pub fn set_clock(&mut self, place: Place, rate: f64, ahead: Duration) {
        let machine = self.machine(place);
        machine.rate = rate;
        machine.ahead = ahead;
    }

    /// Starts a process: `main` is made inside it. One that is there is killed.
    pub fn start<F>(&mut self, place: Place, main: impl FnOnce() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.kill(place);
        let machine = self.machine(place);
        machine.show_clocks();
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O needs nothing of the machine");
        let began = runtime.block_on(async { Instant::now() });
        let main = {
            let _inside = runtime.enter();
            runtime.spawn(main())
        };
        machine.process = Some(Process { runtime, began: (machine.clock, began), main });
        machine.suspended = false;
        self.net.note(place, "starts");
    }

    /// Ends a process at once; the kernel closes its connections.
    pub fn kill(&mut self, place: Place) {
        let machine = self.machine(place);
        machine.show_clocks();
        if machine.process.take().is_some() {
            self.net.note(place, "is killed");
        }
    }

    /// Whether a process runs there (or is suspended).
    #[must_use]
    pub fn runs(&self, place: Place) -> bool {
        self.machines.get(&place).is_some_and(|machine| machine.process.is_some())
    }

    /// The processes that ended by themselves; they are gone now.
    pub fn reap(&mut self) -> Vec<Place> {
        let over = |machine: &Machine| machine.process.as_ref().is_some_and(|p| p.main.is_finished());
        let gone: Vec<Place> =
            self.machines.iter().filter(|(_, machine)| over(machine)).map(|(place, _)| *place).collect();
        for &place in &gone {
            self.machine(place).process = None;
            self.net.note(place, "has ended");
        }
        gone
    }

    /// Stops giving it time. Its clock goes on.
    pub fn suspend(&mut self, place: Place) {
        self.machine(place).suspended = true;
        self.net.note(place, "is suspended");
    }

    /// Gives it time again: its clock jumps.
    pub fn resume(&mut self, place: Place) {
        self.machine(place).suspended = false;
        self.net.note(place, "goes on");
    }

    /// One step.
    pub fn step(&mut self) {
        self.leap(STEP);
    }

    /// A step as long as a day may be, for when hardly anything runs.
    pub fn leap(&mut self, span: Duration) {
        let until = self.net.now() + span;
        self.net.run_until(until);
        for machine in self.machines.values_mut() {
            machine.run_to(span.mul_f64(machine.rate));
        }
    }

    fn machine(&mut self, place: Place) -> &mut Machine {
        self.machines.get_mut(&place).unwrap_or_else(|| panic!("there is no machine {place}"))
    }
}

impl Machine {
    fn show_clocks(&self) {
        os::set_clocks(self.clock, self.clock + self.ahead);
    }

    fn run_to(&mut self, step: Duration) {
        self.clock += step;
        let Some(process) = self.process.as_ref().filter(|_| !self.suspended) else { return };
        self.show_clocks();
        let (clock, instant) = process.began;
        let target = instant + self.clock.saturating_sub(clock);
        process.runtime.block_on(async {
            // After a suspension all that fell due meanwhile is due at once.
            let gap = target.saturating_duration_since(Instant::now());
            if gap > step * 4 {
                tokio::time::advance(gap - step).await;
            }
            tokio::time::sleep_until(target).await;
        });
    }
}
