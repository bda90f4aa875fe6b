//! The first exchange with the kernel: which protocol, which features, how large a request.
//! It happens once a mount, before any other request.

use std::sync::Arc;

use rustix::io::Errno;

use super::abi::{InitIn, InitInExtension, InitOut, opcode, split};
use super::decode::split_header;
use super::device::Device;
use super::flags::InitFlags;
use super::mount::{MAX_IO_BYTES, MountError};
use super::reader::ReadBuffer;
use super::reply::Reply;

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
    let max_write =
        if flags.has(InitFlags::MAX_PAGES) { MAX_IO_BYTES } else { DEFAULT_PAGES * PAGE_BYTES };
    Negotiated { minor: init.minor.min(MINOR), flags, offered, max_write }
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
            reply.structure(&InitOut { major: MAJOR, minor: MINOR, ..InitOut::default() });
            continue;
        }
        if init.major < MAJOR || init.minor < OLDEST_MINOR {
            reply.refuse(Errno::PROTO);
            return Err(MountError::Protocol { major: init.major, minor: init.minor });
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

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::thread;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::super::abi::{InHeader, OutHeader, bytes_of};
    use super::*;

    /// What the kernel of Debian 12 (6.1) offers.
    const LINUX_6_1: InitFlags = InitFlags(0x3_73ff_fffb);

    /// The kernel's side: asks, returns the answer.
    fn ask(kernel: &OwnedFd, major: u32, minor: u32, offered: InitFlags) -> (OutHeader, InitOut) {
        let (flags, flags2) = offered.halves();
        let init = InitIn { major, minor, max_readahead: 131_072, flags };
        let more = InitInExtension { flags2, unused: [0; 11] };
        let mut body = bytes_of(&init).to_vec();
        if offered.has(InitFlags::INIT_EXT) {
            body.extend_from_slice(bytes_of(&more));
        }
        let len = u32::try_from(size_of::<InHeader>() + body.len()).unwrap();
        let header = InHeader { len, opcode: opcode::INIT, unique: 2, ..InHeader::default() };
        rustix::io::write(kernel, &[bytes_of(&header), &body].concat()).unwrap();
        let mut bytes = [0; 200];
        let len = rustix::io::read(kernel, &mut bytes).unwrap();
        let (header, body) = split::<OutHeader>(&bytes[..len]).unwrap();
        (header, split(body).map_or_else(InitOut::default, |(out, _)| out))
    }

    fn with_kernel<T: Send>(
        masked: InitFlags,
        kernel: impl FnOnce(&OwnedFd) -> T + Send,
    ) -> (Result<Negotiated, MountError>, T) {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let device = Arc::new(Device::new(ours));
        thread::scope(|scope| {
            let kernel = scope.spawn(move || kernel(&theirs));
            (negotiate(&device, masked), kernel.join().unwrap())
        })
    }

    #[test]
    fn an_older_kernel_gets_what_it_offers() {
        let (agreed, (header, out)) =
            with_kernel(InitFlags::NONE, |kernel| ask(kernel, 7, 37, LINUX_6_1));
        let agreed = agreed.unwrap();
        assert_eq!((header.error, out.major, out.minor), (0, 7, MINOR));
        assert_eq!(agreed.minor, 37);
        assert!(agreed.flags.has(InitFlags::HANDLE_KILLPRIV_V2 | InitFlags::NO_OPENDIR_SUPPORT));
        assert!(!agreed.flags.has(InitFlags::HAS_RESEND));
        assert_eq!(InitFlags::from_halves(out.flags, out.flags2), agreed.flags);
        assert_eq!((out.max_write, out.max_pages, out.max_readahead), (1 << 20, 256, 131_072));
    }

    #[test]
    fn the_oldest_kernel_has_half_of_the_flags() {
        let offered = InitFlags(0x03ff_fffb);
        let (agreed, (_, out)) = with_kernel(InitFlags::NONE, |kernel| ask(kernel, 7, 31, offered));
        let agreed = agreed.unwrap();
        assert_eq!(agreed.flags, offered & InitFlags::ALL_WANTED);
        assert_eq!(out.flags2, 0);
    }

    #[test]
    fn what_is_masked_is_not_agreed_on() {
        for &(name, flag) in InitFlags::WANTED {
            let (agreed, (_, out)) =
                with_kernel(flag, |kernel| ask(kernel, 7, 45, InitFlags(u64::MAX)));
            let agreed = agreed.unwrap();
            let sent = InitFlags::from_halves(out.flags, out.flags2);
            assert_eq!(sent & flag, InitFlags::NONE, "{name}");
            assert_eq!(sent, agreed.flags, "{name}");
            let high = flag == InitFlags::INIT_EXT;
            assert_eq!(agreed.flags.0 >> 32 == 0, high, "{name}: the high half needs INIT_EXT");
            let small = flag == InitFlags::MAX_PAGES;
            assert_eq!(out.max_write, if small { 131_072 } else { 1 << 20 }, "{name}");
        }
    }

    #[test]
    fn a_newer_major_version_steps_down_and_an_older_one_is_refused() {
        let (agreed, first) = with_kernel(InitFlags::NONE, |kernel| {
            let first = ask(kernel, 8, 0, InitFlags(u64::MAX));
            ask(kernel, 7, 45, InitFlags(u64::MAX));
            first
        });
        assert_eq!((first.0.error, first.1.major), (0, 7));
        assert_eq!(agreed.unwrap().flags, InitFlags::ALL_WANTED);
        let (refused, (header, _)) =
            with_kernel(InitFlags::NONE, |kernel| ask(kernel, 7, 30, InitFlags(u64::MAX)));
        assert!(matches!(refused, Err(MountError::Protocol { major: 7, minor: 30 })));
        assert_eq!(header.error, -Errno::PROTO.raw_os_error());
    }
}
