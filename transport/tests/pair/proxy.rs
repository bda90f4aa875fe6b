//! A wire that can be cut: forwards UDP between a dialer and a listener while it is let.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::loopback;

/// The wire. Dropping it ends its threads.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    state: Arc<Wire>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Wire {
    cut: AtomicBool,
    ended: AtomicBool,
    forwarded: AtomicU64,
}

impl Proxy {
    /// A wire to that listener.
    pub(crate) fn to(listener: SocketAddr) -> Self {
        let near = UdpSocket::bind(loopback(0)).unwrap();
        let far = UdpSocket::bind(loopback(0)).unwrap();
        far.connect(listener).unwrap();
        let addr = near.local_addr().unwrap();
        let state = Arc::new(Wire::default());
        let dialer = Arc::new(AtomicU64::new(0));
        let mut threads = Vec::new();
        for upwards in [true, false] {
            let (near, far) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            let (state, dialer) = (state.clone(), dialer.clone());
            threads.push(std::thread::spawn(move || {
                let from = if upwards { &near } else { &far };
                from.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                let mut packet = vec![0; 65536];
                while !state.ended.load(Ordering::Relaxed) {
                    // A time-out, or the answer of a listener that is gone.
                    let Ok((len, sender)) = from.recv_from(&mut packet) else {
                        continue;
                    };
                    if upwards {
                        dialer.store(u64::from(sender.port()), Ordering::Relaxed);
                    }
                    if state.cut.load(Ordering::Relaxed) {
                        continue;
                    }
                    state.forwarded.fetch_add(1, Ordering::Relaxed);
                    let sent = if upwards {
                        far.send(&packet[..len])
                    } else {
                        let port = u16::try_from(dialer.load(Ordering::Relaxed)).unwrap();
                        near.send_to(&packet[..len], loopback(port))
                    };
                    // A full buffer loses a packet, as wires do.
                    sent.ok();
                }
            }));
        }
        Self { addr, state, threads }
    }

    /// Loses every packet from now on, or none.
    pub(crate) fn cut(&self, cut: bool) {
        self.state.cut.store(cut, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}
