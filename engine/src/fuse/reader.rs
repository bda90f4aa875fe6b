//! A thread that reads requests and gives each to who answers it: the handler or, where that
//! has no say, itself. It decides nothing else.

use std::io;
use std::sync::Arc;

use memmap2::MmapMut;
use rustix::io::Errno;

use super::abi::{InHeader, UNIQUE_RESEND, WriteIn};
use super::connection::Connection;
use super::decode::{Decoded, decode, split_header};
use super::flags::{InitFlags, OpenFlags};
use super::reply::Reply;
use super::request::Request;
use super::session::{Handler, SessionEnd, Shared};

/// Where the data of a WRITE begins in the buffer: page aligned, whatever the page size.
const DATA_OFFSET: usize = 1 << 16;
/// What precedes that data.
const BEFORE_DATA: usize = size_of::<InHeader>() + size_of::<WriteIn>();
/// Names, targets and extended attributes may be larger than the smallest `max_write`.
const SMALLEST_BODY: usize = 1 << 17;

/// Memory for one request. A request begins such that the data of a WRITE lies page aligned.
pub(super) struct ReadBuffer {
    map: MmapMut,
}

impl ReadBuffer {
    pub(super) fn new(max_write: u32) -> io::Result<Self> {
        let data = usize::try_from(max_write).unwrap_or(usize::MAX).max(SMALLEST_BODY);
        Ok(Self { map: MmapMut::map_anon(DATA_OFFSET + data)? })
    }

    pub(super) fn window(&mut self) -> &mut [u8] {
        &mut self.map[DATA_OFFSET - BEFORE_DATA..]
    }
}

/// One reading thread's share of the session.
pub(super) struct Reader<H> {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    agreed: InitFlags,
    handler: Arc<H>,
    end: SessionEnd,
}

impl<H: Handler> Reader<H> {
    /// The reader counts itself out of `shared` when it is dropped.
    pub(super) fn new(
        shared: &Arc<Shared>,
        connection: &Arc<Connection>,
        agreed: InitFlags,
        handler: &Arc<H>,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            connection: Arc::clone(connection),
            agreed,
            handler: Arc::clone(handler),
            // What remains when the handler panics.
            end: SessionEnd::Failed(Errno::CANCELED),
        }
    }

    /// Serves until the session ends.
    pub(super) fn run(mut self, mut buffer: ReadBuffer) {
        crate::priority::raise();
        self.end = loop {
            match self.shared.device.read(buffer.window()) {
                Ok(len) => self.dispatch(&buffer.window()[..len]),
                // NOENT: the request was taken back before we had it.
                Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => {}
                Err(Errno::NODEV) => break SessionEnd::Unmounted,
                Err(Errno::CONNABORTED) => break SessionEnd::Aborted,
                Err(errno) => {
                    tracing::error!(%errno, "reading requests; the session ends");
                    break SessionEnd::Failed(errno);
                }
            }
        };
    }

    fn dispatch(&self, bytes: &[u8]) {
        let (header, body) = match split_header(bytes) {
            Ok(split) => split,
            Err(malformed) => {
                // Without a header there is no number to answer to.
                tracing::error!(len = bytes.len(), %malformed);
                return;
            }
        };
        let reply = Reply::new(&self.shared.device, header.unique, header.opcode);
        match decode(&header, body, self.agreed) {
            Ok(Decoded::Handler(op)) => self.handler.handle(Request {
                unique: header.unique,
                resent: header.unique & UNIQUE_RESEND != 0,
                node: header.nodeid,
                uid: header.uid,
                gid: header.gid,
                pid: header.pid,
                op,
                reply,
            }),
            Ok(Decoded::NotImplemented) => reply.refuse(Errno::NOSYS),
            Ok(Decoded::Unknown) => {
                tracing::warn!(opcode = header.opcode, "an unknown request; answered ENOSYS");
                reply.refuse(Errno::NOSYS);
            }
            Ok(Decoded::Done) => reply.ok(),
            Ok(Decoded::OpenDir) => open_dir(reply, self.agreed),
            Ok(Decoded::Nothing) => reply.forgo(),
            Err(malformed) => {
                tracing::error!(%malformed, "answered EINVAL");
                reply.refuse(Errno::INVAL);
            }
        }
    }
}

/// ENOSYS makes the kernel open directories by itself, and cache their listings; one that does
/// not know that (before Linux 5.1) would report it.
fn open_dir(reply: Reply, agreed: InitFlags) {
    if agreed.has(InitFlags::NO_OPENDIR_SUPPORT) {
        reply.refuse(Errno::NOSYS);
    } else {
        reply.opened(0, OpenFlags::KEEP_CACHE | OpenFlags::CACHE_DIR);
    }
}

impl<H> Drop for Reader<H> {
    fn drop(&mut self) {
        if matches!(self.end, SessionEnd::Failed(_)) {
            // Nobody reads any more, or not as many as should: better an error than a hang.
            self.connection.abort();
        }
        self.shared.reader_ended(self.end);
    }
}

#[cfg(test)]
mod tests {
    use super::super::abi::{OpenOut, opcode, split};
    use super::super::device::tests::{device, sent};
    use super::*;

    #[test]
    fn directories_are_opened_for_a_kernel_that_cannot_itself() {
        let (device, kernel) = device();
        let reply = || Reply::new(&device, 2, opcode::OPENDIR);
        open_dir(reply(), InitFlags::NO_OPENDIR_SUPPORT);
        assert_eq!(sent(&kernel).0.error, -Errno::NOSYS.raw_os_error());
        open_dir(reply(), InitFlags::NONE);
        let (header, body) = sent(&kernel);
        assert_eq!((header.error, split::<OpenOut>(&body).unwrap().0.open_flags), (0, 0b1010));
    }
}
