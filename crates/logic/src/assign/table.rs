//! All workers while tasks are dealt out: how many each has, how many it may have, and what is beside what.

use std::{cmp::Ordering, collections::BTreeMap};

use model::{ObjectId, SplitId, TaskId};

use super::{Running, Seats, Transit};

/// One worker.
pub(super) struct Place<'a> {
    pub name: &'a str,
    pub zone: &'a str,
    pub capacity: u64,
    /// Its share, rounded down.
    pub floor: usize,
    /// Tasks that run there or are expected.
    pub count: usize,
    /// Those that are expected.
    pub expected: usize,
}

/// All of them, sorted by name; a worker is its place in the list.
pub(super) struct Table<'a> {
    pub places: Vec<Place<'a>>,
    names: BTreeMap<&'a str, usize>,
    /// Tasks that rounding down left over: how many workers may still go one above their floor.
    extras: usize,
    /// Tasks without a place yet.
    pub homeless: usize,
    /// How many tasks of each worker read a split; of the splits that were asked for.
    readers: BTreeMap<&'a SplitId, Vec<(usize, u32)>>,
    /// How many partitions of a sink each worker has.
    writers: BTreeMap<ObjectId, Vec<usize>>,
}

impl<'a> Table<'a> {
    /// `more`: tasks to come that run nowhere yet, besides those in transit.
    pub fn new(seats: &'a Seats, running: &'a Running, transit: &Transit, more: usize) -> Self {
        let places: Vec<Place> = seats
            .iter()
            .filter(|(_, seat)| seat.capacity > 0)
            .map(|(name, seat)| {
                let expected = transit.to.get(name).copied().unwrap_or(0);
                let capacity = u64::from(seat.capacity);
                Place { name, zone: &seat.zone, capacity, floor: 0, count: expected, expected }
            })
            .collect();
        let names = places.iter().enumerate().map(|(n, place)| (place.name, n)).collect();
        let mut table = Self {
            places,
            names,
            extras: 0,
            homeless: 0,
            readers: BTreeMap::new(),
            writers: BTreeMap::new(),
        };
        for worker in running.values() {
            if let Some(n) = table.find(worker) {
                table.places[n].count += 1;
            }
        }
        let seated: usize = table.places.iter().map(|place| place.expected).sum();
        // Who is expected at a worker that takes none will go anywhere.
        let expected: usize = transit.to.values().sum();
        table.homeless = more + transit.anywhere + expected - seated;
        table.share_out();
        table
    }

    fn share_out(&mut self) {
        let tasks = self.places.iter().map(|place| place.count).sum::<usize>() + self.homeless;
        let capacity: u64 = self.places.iter().map(|place| place.capacity).sum();
        self.extras = tasks;
        for place in &mut self.places {
            let share = tasks as u64 * place.capacity / capacity;
            place.floor = usize::try_from(share).unwrap_or(usize::MAX);
            self.extras -= place.floor;
        }
        let taken = self.places.iter().filter(|place| place.count > place.floor).count();
        self.extras = self.extras.saturating_sub(taken);
    }

    /// How many tasks each worker shall have: its floor, and one of those left over for the fullest.
    pub fn quotas(&self) -> Vec<usize> {
        let tasks = self.places.iter().map(|place| place.count).sum::<usize>() + self.homeless;
        let mut extras = tasks - self.places.iter().map(|place| place.floor).sum::<usize>();
        let mut fullest: Vec<usize> = (0..self.places.len()).collect();
        fullest.sort_by_key(|n| {
            let place = &self.places[*n];
            (std::cmp::Reverse(place.count.saturating_sub(place.floor)), place.name)
        });
        let mut quotas = vec![0; self.places.len()];
        for n in fullest {
            let extra = usize::from(extras > 0);
            extras -= extra;
            quotas[n] = self.places[n].floor + extra;
        }
        quotas
    }

    /// Whether every worker is within its share, rounded down or up.
    pub fn is_even(&self) -> bool {
        let quotas = self.quotas();
        self.places.iter().zip(quotas).all(|(place, quota)| place.count <= quota)
    }

    /// Counts who reads the splits that are asked for, and who writes partitions.
    pub fn look_closer(&mut self, running: &'a Running, asked: impl Fn(&SplitId) -> bool) {
        for (task, worker) in running {
            if task.split().is_none_or(&asked)
                && let Some(n) = self.find(worker)
            {
                self.enter(n, task);
            }
        }
    }

    fn enter(&mut self, n: usize, task: &'a TaskId) {
        match task.split() {
            Some(split) => {
                let readers = self.readers.entry(split).or_default();
                match readers.iter_mut().find(|(reader, _)| *reader == n) {
                    Some((_, tasks)) => *tasks += 1,
                    None => readers.push((n, 1)),
                }
            }
            None => {
                let workers = self.places.len();
                self.writers.entry(task.sink).or_insert_with(|| vec![0; workers])[n] += 1;
            }
        }
    }

    pub fn find(&self, worker: &str) -> Option<usize> {
        self.names.get(worker).copied()
    }

    pub fn name(&self, n: usize) -> &'a str {
        self.places[n].name
    }

    pub fn has_room(&self, n: usize) -> bool {
        let place = &self.places[n];
        place.count < place.floor || (place.count == place.floor && self.extras > 0)
    }

    pub fn take(&mut self, n: usize, task: &'a TaskId) {
        if self.places[n].count == self.places[n].floor {
            self.extras = self.extras.saturating_sub(1);
        }
        self.places[n].count += 1;
        self.enter(n, task);
    }

    fn with_room(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.places.len()).filter(|n| self.has_room(*n))
    }

    /// Compares `count / capacity` of two workers without division.
    pub fn per_capacity(&self, (a, a_count): (usize, usize), (b, b_count): (usize, usize)) -> Ordering {
        (a_count as u64 * self.places[b].capacity).cmp(&(b_count as u64 * self.places[a].capacity))
    }

    /// Which of two workers is emptier for its capacity, after one more.
    fn emptier(&self, a: usize, b: usize) -> Ordering {
        self.per_capacity((a, self.places[a].count + 1), (b, self.places[b].count + 1))
    }

    /// Of the workers with room, the one that is emptiest for its capacity; the first by name of those.
    pub fn emptiest(&self) -> Option<usize> {
        self.with_room().min_by(|a, b| self.emptier(*a, *b))
    }

    /// How many tasks of a worker read this split.
    pub fn reads(&self, n: usize, split: &SplitId) -> u32 {
        let readers = self.readers.get(split).into_iter().flatten();
        readers.filter(|(reader, _)| *reader == n).map(|(_, tasks)| *tasks).sum()
    }

    /// Workers that read this split.
    pub fn readers(&self, split: &SplitId) -> impl Iterator<Item = (usize, u32)> + '_ {
        self.readers.get(split).into_iter().flatten().copied()
    }

    /// A worker with room that reads this split already; the one with the most tasks on it.
    pub fn beside(&self, split: &SplitId) -> Option<usize> {
        let found = self.readers(split).filter(|(n, _)| self.has_room(*n));
        found.max_by_key(|(n, tasks)| (*tasks, std::cmp::Reverse(*n))).map(|(n, _)| n)
    }

    /// How many partitions of a sink a worker has.
    pub fn writes(&self, n: usize, sink: ObjectId) -> usize {
        self.writers.get(&sink).map_or(0, |workers| workers[n])
    }

    /// Whether one worker is a better place than another for a partition of this sink: fewer of them there, fewer in its zone,
    /// emptier.
    pub fn apart_of(&self, sink: ObjectId, a: usize, b: usize) -> Ordering {
        let here = |n: usize| self.writes(n, sink) + 1;
        let zone = |n: usize| -> usize {
            let same = |other: &usize| self.places[*other].zone == self.places[n].zone;
            (0..self.places.len()).filter(same).map(|other| self.writes(other, sink)).sum()
        };
        self.per_capacity((a, here(a)), (b, here(b)))
            .then_with(|| zone(a).cmp(&zone(b)))
            .then_with(|| self.emptier(a, b))
    }

    /// The worker with room at which a partition is furthest from the others of its sink.
    pub fn apart(&self, task: &TaskId) -> Option<usize> {
        self.with_room().min_by(|a, b| self.apart_of(task.sink, *a, *b))
    }

    /// Whether one worker may pass a task on to another for nothing: it is above its share, rounded down, and the other is not.
    pub fn may_pass_on(&self, from: usize, to: usize) -> bool {
        let (from, to) = (&self.places[from], &self.places[to]);
        from.count > from.floor && to.count <= to.floor
    }

    /// Whether a task may go without bringing partitions of one sink together.
    pub fn stays_apart(&self, task: &TaskId, from: usize, to: usize) -> bool {
        let after = self.writes(to, task.sink) + 1;
        let here = self.writes(from, task.sink);
        task.partition().is_none() || self.per_capacity((to, after), (from, here)) != Ordering::Greater
    }

    /// A partition or a task of a split goes from one worker to another.
    pub fn pass_on(&mut self, from: usize, to: usize, task: &'a TaskId) {
        match task.split() {
            Some(split) => {
                let readers = self.readers.entry(split).or_default();
                readers.iter_mut().filter(|(reader, _)| *reader == from).for_each(|(_, tasks)| *tasks -= 1);
                readers.retain(|(_, tasks)| *tasks > 0);
            }
            None => {
                if let Some(workers) = self.writers.get_mut(&task.sink) {
                    workers[from] = workers[from].saturating_sub(1);
                }
            }
        }
        self.enter(to, task);
    }

    /// The sinks that have partitions, with how many each worker has.
    pub fn sinks(&self) -> impl Iterator<Item = (ObjectId, &[usize])> + '_ {
        self.writers.iter().map(|(sink, workers)| (*sink, workers.as_slice()))
    }
}
