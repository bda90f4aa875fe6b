//! Authenticated datagrams between the two nodes and the witness: heartbeats over every path, and
//! the messages of the failover machine.
//!
//! What comes out of here was made by whom it says, for this pair, in this run of both ends, and
//! comes once; it may be lost, late or in another order. Nobody else ever gets a byte in answer.
//! This crate decides nothing: what a heartbeat or a message means is the failover machine's.
//!
//! ```text
//! packet    one datagram as bytes          session   whether it is believed, now and here
//! keys      who can make one               channel   messages numbered, over several paths
//! wire      messages as bytes              beat      the thread with the sockets (ways)
//! gateway   an echo, where no witness is   last      the last word of a node that is gone
//! ```

mod beat;
mod channel;
mod clock;
pub mod gateway;
mod keys;
mod last;
mod packet;
pub mod priority;
mod seal;
mod session;
mod ways;
mod wire;

pub use beat::{Beat, BeatConfig, BeatError, Heard, Path, PathStatus, WitnessAt};
pub use clock::now;
pub use keys::{KeyError, Keys, SECRET_LEN, Secret, random};
pub use last::{Told, tell_gone};
pub use packet::{
    DATAGRAM_MAX, HEADER_LEN, Kind, PAYLOAD_MAX, Packet, PacketError, Party, TAG_LEN, VERSION,
    is_authentic,
};
pub use seal::{SEAL_LEN, Seal};
pub use session::{BARE_LEN, Session, Taken, WINDOW, Window};
pub use ways::bind;
pub use wire::{MESSAGE_MAX, NUMBER_LEN, REPLY_MAX, WORD_MAX, Wire};
