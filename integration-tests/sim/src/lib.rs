//! The simulation: coordinators and workers with their real code, and around them a store, a Kinesis, a destination and a
//! network that are all in this process and all driven by one seed.
//!
//! Each simulated process has its own single-threaded runtime with a paused clock; `world` lets them run in turn, a few
//! milliseconds at a time, and everything between them goes over `net`. So a process can be killed (its runtime is dropped),
//! suspended (it is not run, and then its clock jumps), or live under a clock that is wrong. The same seed gives the same run.

pub mod act;
pub mod books;
pub mod cluster;
mod directed;
pub mod faults;
pub mod judge;
pub mod kinesis;
pub mod ledger;
pub mod mutants;
pub mod net;
pub mod os;
pub mod place;
pub mod runner;
pub mod scenario;
pub mod socket;
mod spite;
pub mod stage;
pub mod store;
pub mod trace;
pub mod trial;
pub mod user;
pub mod world;
