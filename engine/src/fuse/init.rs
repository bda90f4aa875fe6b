//! The first exchange with the kernel: which protocol, which features, how large a request.
//! It happens once a mount, before any other request.

use std::sync::Arc;

use rustix::io::Errno;

use super::abi::{InitIn, InitInExtension, InitOut, opcode, split};
use super::device::Device;
use super::flags::InitFlags;
use super::mount::{MAX_IO_BYTES, MountError};
use super::reader::ReadBuffer;
use super::reply::Reply;
use super::request::split_header;
use super::session::Negotiated;

/// The protocol that this is written for, and the oldest minor version that works.
const MAJOR: u32 = 7;
const MINOR: u32 = 45;
const OLDEST_MINOR: u32 = 31;

/// Requests that nobody waits for (read-ahead, write-back, RELEASE): how many the kernel may
/// have under way, and from how many on it holds back read-ahead.
const MAX_BACKGROUND: u16 = 256;
const CONGESTED: u16 = 192;

/// The smallest page of a kernel. With larger ones, requests are larger than asked for at most
/// up to `max_write`, which holds all the same.
const PAGE_BYTES: u32 = 4096;
/// Pages that a request may have without `MAX_PAGES`.
const DEFAULT_PAGES: u32 = 32;

/// What the kernel's offer, less what is masked, comes to.
pub(super) fn agree(init: &InitIn, offered: InitFlags, masked: InitFlags) -> Negotiated {
    let mut flags = offered & InitFlags::ALL_WANTED & !masked;
    if !flags.has(InitFlags::INIT_EXT) {
        // Without it the kernel reads only the low half.
        flags = flags & InitFlags::from_halves(u32::MAX, 0);
    }
    let max_write = if flags.has(InitFlags::MAX_PAGES) {
        MAX_IO_BYTES
    } else {
        DEFAULT_PAGES * PAGE_BYTES
    };
    Negotiated {
        minor: init.minor.min(MINOR),
        flags,
        offered,
        max_write,
    }
}

/// Reads INIT and answers it.
pub(super) fn negotiate(device: &Arc<Device>, masked: InitFlags) -> Result<Negotiated, MountError> {
    let mut buffer = ReadBuffer::new(MAX_IO_BYTES).map_err(MountError::Thread)?;
    loop {
        let bytes = match device.read(buffer.window()) {
            Ok(len) => &buffer.window()[..len],
            Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => continue,
            Err(errno) => return Err(MountError::Init(errno)),
        };
        let (header, body) = split_header(bytes).map_err(|_| MountError::Init(Errno::PROTO))?;
        let reply = Reply::new(device, header.unique, header.opcode);
        let init = split::<InitIn>(body).filter(|_| header.opcode == opcode::INIT);
        let Some((init, rest)) = init else {
            reply.refuse(Errno::PROTO);
            return Err(MountError::Init(Errno::PROTO));
        };
        if init.major > MAJOR {
            // The kernel steps down to our major version, and asks again.
            reply.structure(&InitOut {
                major: MAJOR,
                minor: MINOR,
                ..InitOut::default()
            });
            continue;
        }
        if init.major < MAJOR || init.minor < OLDEST_MINOR {
            reply.refuse(Errno::PROTO);
            return Err(MountError::Protocol {
                major: init.major,
                minor: init.minor,
            });
        }
        let low = InitFlags::from_halves(init.flags, 0);
        let offered = match split::<InitInExtension>(rest) {
            Some((more, _)) if low.has(InitFlags::INIT_EXT) => {
                InitFlags::from_halves(init.flags, more.flags2)
            }
            _ => low,
        };
        let agreed = agree(&init, offered, masked);
        let (flags, flags2) = agreed.flags.halves();
        let pages = agreed.max_write / PAGE_BYTES;
        reply.structure(&InitOut {
            major: MAJOR,
            minor: MINOR,
            max_readahead: init.max_readahead.min(MAX_IO_BYTES),
            flags,
            flags2,
            max_background: MAX_BACKGROUND,
            congestion_threshold: CONGESTED,
            max_write: agreed.max_write,
            time_gran: 1,
            max_pages: u16::try_from(pages).unwrap_or(u16::MAX),
            ..InitOut::default()
        });
        return Ok(agreed);
    }
}
