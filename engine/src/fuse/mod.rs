//! The FUSE kernel adapter: a session over `/dev/fuse` that turns what the kernel asks into a
//! typed [`Op`] and a typed answer into the bytes that the kernel expects.
//!
//! It knows the kernel's protocol and nothing of logs or stores: it never decides what a file
//! holds, never delays an answer and never makes one up, except where the protocol itself wants
//! one (see [`Op`]). A [`Handler`] decides; its [`Reply`] may be answered later, from any
//! thread.
//!
//! Runs on Linux 5.4 (protocol 7.31) and later; made for 6.1 (7.37) to 6.18 (7.45). Every
//! feature beyond the oldest is negotiated, and [`MountOptions::masked_flags`] pretends that
//! the kernel lacks one.

mod abi;
mod connection;
mod decode;
mod device;
mod directory;
mod flags;
mod init;
mod mount;
mod notify;
mod reader;
mod reply;
mod request;
mod session;

pub use connection::Connection;
pub use directory::{DirBuffer, DirEntry};
pub use flags::{InitFlags, OpenFlags};
pub use mount::{MountError, MountOptions, MountWay, is_dead_mount, remove_dead, usable};
pub use notify::{Notifier, NotifyError};
pub use reply::{Attr, Entry, Reply, StatFs};
pub use request::{Forget, Forgets, Op, Request, SetAttr, TimeOrNow, Timestamp};
pub use rustix::io::Errno;
pub use session::{Handler, Negotiated, Session, SessionEnd, UnmountError};

/// The node id of the root of every mount.
pub const ROOT: u64 = 1;
