//! Authenticated datagrams between the two nodes and the witness: heartbeats over every path, and
//! the messages of the failover machine.
//!
//! What comes out of here was made by whom it says, for this pair, in this run of both ends, and
//! comes once; it may be lost, late or in another order. Nobody else ever gets a byte in answer.
//! This crate decides nothing: what a heartbeat or a message means is the failover machine's.

mod keys;
mod packet;
mod session;

pub use keys::{KeyError, Keys, SECRET_LEN, Secret, check_mode};
pub use packet::{
    DATAGRAM_MAX, HEADER_LEN, Kind, PAYLOAD_MAX, Packet, PacketError, Party, TAG_LEN, VERSION,
    is_authentic,
};
pub use session::{BARE_LEN, Session, Taken, WINDOW, Window};
