//! The link's UDP socket as QUIC uses it. It never waits: [`Drive`](crate::drive::Drive) does, and says
//! here what it saw.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};

/// The socket of one link.
pub(crate) struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    /// Nothing is there to be received, as far as was seen.
    empty: AtomicBool,
    /// The system took no more.
    blocked: AtomicBool,
    receives: Mutex<Option<Waker>>,
    sends: Mutex<Vec<Waker>>,
}

impl Socket {
    /// # Errors
    /// What the system says of the options that QUIC needs.
    pub(crate) fn new(io: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&io).into())?;
        Ok(Self {
            io,
            state,
            empty: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            receives: Mutex::default(),
            sends: Mutex::default(),
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }

    /// Whether somebody waits until the system takes more.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(SeqCst)
    }

    /// Something has come in.
    pub(crate) fn readable(&self) {
        self.empty.store(false, SeqCst);
        let waker = self.receives.lock().unwrap_or_else(PoisonError::into_inner).take();
        waker.into_iter().for_each(Waker::wake);
    }

    /// Nobody waits for it any more: who does holds the socket.
    pub(crate) fn forget(&self) {
        let receives = self.receives.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut sends = self.sends.lock().unwrap_or_else(PoisonError::into_inner);
        drop((receives, std::mem::take(&mut *sends)));
    }

    /// The system takes more.
    pub(crate) fn writable(&self) {
        self.blocked.store(false, SeqCst);
        let wakers =
            std::mem::take(&mut *self.sends.lock().unwrap_or_else(PoisonError::into_inner));
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.state.send((&self.io).into(), transmit);
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.blocked.store(true, SeqCst);
        }
        sent
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if !self.empty.load(SeqCst) {
            match self.state.recv((&self.io).into(), bufs, meta) {
                Ok(count) => {
                    // Asking once more would cost a call that says that there is nothing; what came
                    // meanwhile is found before anybody sleeps.
                    self.empty.store(count < bufs.len(), SeqCst);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.empty.store(true, SeqCst);
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let waker = context.waker().clone();
        *self.receives.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker);
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("io", &self.io).finish_non_exhaustive()
    }
}

/// Waits for one connection until the system takes more.
#[derive(Debug)]
struct Poller(Arc<Socket>);

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = &self.0;
        if !socket.is_blocked() {
            return Poll::Ready(Ok(()));
        }
        let waker = context.waker();
        let mut sends = socket.sends.lock().unwrap_or_else(PoisonError::into_inner);
        if !sends.iter().any(|other| other.will_wake(waker)) {
            sends.push(waker.clone());
        }
        drop(sends);
        // It may have been said in between.
        if socket.is_blocked() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}
