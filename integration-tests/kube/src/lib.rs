//! What Kubernetes would do with the chart's manifests, done on this machine with plain processes: so that a rolling upgrade of a
//! cluster under load can be tested.
//!
//! `helm template` renders; [`manifest`] reads; [`set`], [`budget`], [`environment`] and [`place`] decide, without I/O;
//! [`kubelet`] runs the container of a pod as a process of its own loopback address, with its probes and its end; [`service`] is
//! the address of a service; [`cluster`] closes the loop between what the manifests want and what runs. [`trial`] is the test.
//!
//! What it does not know it refuses: Deployments, containers beside the first one, init containers, volumes of other kinds.

pub mod budget;
pub mod cluster;
pub mod environment;
pub mod helm;
pub mod kubelet;
pub mod manifest;
pub mod network;
pub mod place;
pub mod pod;
pub mod probe;
pub mod service;
pub mod set;
pub mod stall;
pub mod trial;
pub mod volume;
