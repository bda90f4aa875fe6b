//! Computers of a pair on this one machine, each with its own network, processes, mounts and
//! shared memory, on a network whose every way can be cut.
//!
//! ```text
//!             10.91.1.0/24 (links, clients)   10.91.2.0/24     10.91.3.0/24
//! node1           .1 way-a                      .1 way-b        .1 way-w
//! node2           .2 way-a                      .2 way-b        .2 way-w
//! witness                                                       .3 way-w
//! client          .4 way-a
//! ```
//! A [`Lan`] is a network namespace with a bridge for each of the three; a [`Host`] is a process 1
//! in namespaces of its own, so that killing that process takes everything on the host along, as
//! a power cut does. Namespaces have no names: they end with their last process, also when the
//! test itself was killed.

pub mod bare;
pub mod clients;
pub mod cluster;
pub mod faults;
mod host;
pub mod installed;
mod lan;
pub mod machine;
pub mod receipts;

pub use host::Host;
pub use lan::{Lan, Segment, VIRTUAL_IP, Who, address, mac};
