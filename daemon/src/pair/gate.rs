//! A gate between a connection and the node: once it is closed nothing passes any more, not even
//! what was under way.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A gate, open at first.
#[derive(Debug, Default)]
pub(super) struct Gate {
    closed: Mutex<bool>,
}

/// Whoever holds it is inside; closing waits for it.
#[derive(Debug)]
pub(super) struct Pass<'a>(#[expect(dead_code, reason = "held, never read")] MutexGuard<'a, bool>);

impl Gate {
    /// Goes in, if the gate is open.
    pub(super) fn pass(&self) -> Option<Pass<'_>> {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        (!*closed).then_some(Pass(closed))
    }

    /// Closes the gate for good: when it returns nobody is inside.
    pub(super) fn close(&self) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn closing_waits_for_whoever_is_inside_and_lets_nobody_in_afterwards() {
        let gate = Arc::new(Gate::default());
        let pass = gate.pass().unwrap();
        let (done, closed) = channel();
        let closer = std::thread::spawn({
            let gate = gate.clone();
            move || {
                gate.close();
                done.send(()).unwrap();
            }
        });
        assert!(closed.recv_timeout(Duration::from_millis(50)).is_err());
        drop(pass);
        closed.recv_timeout(Duration::from_secs(30)).unwrap();
        closer.join().unwrap();
        assert!(gate.pass().is_none());
    }
}
