//! The open `/dev/fuse`: one descriptor, read by the session's threads and written by whoever
//! answers. It sends bytes and never looks into them.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::abi::{OutHeader, bytes_of};

/// The descriptor that all of a session shares.
#[derive(Debug)]
pub(super) struct Device {
    fd: OwnedFd,
}

impl Device {
    pub(super) const fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Reads one request; `buffer` must hold the largest that was agreed on.
    pub(super) fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::read(&self.fd, buffer)
    }

    /// Sends one answer or notification: a header and `parts`, in one `writev(2)`, so that
    /// answers of several threads never mix.
    pub(super) fn send(&self, unique: u64, error: i32, parts: &[IoSlice<'_>]) -> Result<(), Errno> {
        let body: usize = parts.iter().map(|part| part.len()).sum();
        let len = u32::try_from(size_of::<OutHeader>() + body).map_err(|_| Errno::INVAL)?;
        let header = OutHeader { len, error, unique };
        let head = IoSlice::new(bytes_of(&header));
        let written = match parts {
            [] => rustix::io::write(&self.fd, bytes_of(&header))?,
            [part] => rustix::io::writev(&self.fd, &[head, *part])?,
            [first, second] => rustix::io::writev(&self.fd, &[head, *first, *second])?,
            _ => {
                let mut all = Vec::with_capacity(parts.len() + 1);
                all.push(head);
                all.extend_from_slice(parts);
                rustix::io::writev(&self.fd, &all)?
            }
        };
        // The kernel takes an answer whole or not at all.
        debug_assert_eq!(written, size_of::<OutHeader>() + body);
        Ok(())
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::super::abi::split;
    use super::*;

    /// A device whose other end is read by a test instead of by the kernel.
    pub(in super::super) fn device() -> (Arc<Device>, OwnedFd) {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        (Arc::new(Device::new(ours)), theirs)
    }

    /// The next answer or notification that was sent.
    pub(in super::super) fn sent(from: &OwnedFd) -> (OutHeader, Vec<u8>) {
        let mut bytes = vec![0; 1 << 16];
        let len = rustix::io::read(from, &mut bytes).unwrap();
        let (header, body) = split::<OutHeader>(&bytes[..len]).unwrap();
        assert_eq!(usize::try_from(header.len).unwrap(), len);
        (header, body.to_vec())
    }

    #[test]
    fn an_answer_of_several_parts_is_one_message() {
        let (device, kernel) = device();
        for parts in 0..5 {
            let bytes = [b"a".as_slice(), b"bc", b"def", b"ghij"];
            let slices: Vec<_> = bytes[..parts].iter().map(|part| IoSlice::new(part)).collect();
            device.send(2, 0, &slices).unwrap();
            assert_eq!(sent(&kernel).1, bytes[..parts].concat());
        }
    }
}
