//! A socket for the frames of one protocol on one device (packet(7)). What is in a frame is none
//! of its business.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::device::Device;

/// Bytes of the longest frame that is read.
const FRAME_MAX: usize = 1514;

/// Sends and receives whole frames.
#[derive(Debug)]
pub(crate) struct Frames {
    socket: Socket,
    to: SockAddr,
}

impl Frames {
    /// Frames of `ethertype` (RFC 9542), from and to that device alone.
    pub(crate) fn open(device: &Device, ethertype: u16) -> io::Result<Self> {
        // Protocol 0: nothing arrives before the socket is bound to the device.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        let to = address(device, ethertype)?;
        socket.bind(&to)?;
        Ok(Self { socket, to })
    }

    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send_to(frame, &self.to).map(drop)
    }

    /// The next frame that `pick` finds something in; `None` when none came until then. A time
    /// that is over reads what is there already.
    pub(crate) fn receive<T>(
        &self,
        until: Instant,
        mut pick: impl FnMut(&[u8]) -> Option<T>,
    ) -> io::Result<Option<T>> {
        receive(&self.socket, until, |bytes| pick(bytes))
    }
}

/// The same of any socket.
pub(crate) fn receive<T>(
    socket: &Socket,
    until: Instant,
    mut pick: impl FnMut(&[u8]) -> Option<T>,
) -> io::Result<Option<T>> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let waits = !left.is_zero();
        socket.set_nonblocking(!waits)?;
        if waits {
            socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        }
        let mut buffer = [MaybeUninit::uninit(); FRAME_MAX];
        match socket.recv(&mut buffer) {
            Ok(len) => {
                // SAFETY: recv has written the first `len` bytes.
                let bytes = unsafe { buffer[..len].assume_init_ref() };
                if let Some(found) = pick(bytes) {
                    return Ok(Some(found));
                }
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut if waits => {}
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return Ok(None),
                io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
}

/// The address of a device for frames of that type.
fn address(device: &Device, ethertype: u16) -> io::Result<SockAddr> {
    let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let index = i32::try_from(device.index).map_err(too_large)?;
    let mut mac = [0; 8];
    mac[..6].copy_from_slice(&[0xff; 6]);
    let place = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(too_large)?,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: mac,
    };
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: a sockaddr_ll is plain bytes and no longer than the storage, which is made for any
    // socket address.
    unsafe {
        *storage.view_as::<libc::sockaddr_ll>() = place;
    }
    let len = u32::try_from(size_of::<libc::sockaddr_ll>()).map_err(too_large)?;
    // SAFETY: the storage holds an address of that length.
    Ok(unsafe { SockAddr::new(storage, len) })
}
