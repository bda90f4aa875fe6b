//! How the engine's threads tell the link that the log has grown.
//!
//! A wake costs a fence and a load while the link is busy (it will look again by itself), and
//! one write to an eventfd when it sleeps. No wake is lost:
//!
//! ```text
//! engine:  append to the log;   fence;  read `asleep`
//! link:    write `asleep`;      fence;  look at the log's end, sleep if it has not moved
//! ```
//! Of the two fences one comes first, so either the link sees the append or the engine sees
//! `asleep`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use tokio::sync::Notify;

/// Wakes the link after an append or an advance of the commit position. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Waker(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    asleep: AtomicBool,
    notify: Notify,
}

impl Waker {
    /// Tells the link to look at [`end`](crate::Source::end) and
    /// [`committed`](crate::Source::committed) again; both must have been moved before.
    ///
    /// Never blocks; call it after every append and every advance, from any thread.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.0.asleep.load(Ordering::Relaxed) && self.0.asleep.swap(false, Ordering::AcqRel) {
            self.0.notify.notify_one();
        }
    }

    /// Says that the link is about to sleep; it must look at its source once more after this.
    pub(crate) fn falls_asleep(&self) {
        self.0.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Says that the link is awake and will look at its source before it sleeps again.
    pub(crate) fn is_awake(&self) {
        self.0.asleep.store(false, Ordering::Relaxed);
    }

    /// Resolves once [`wake`](Self::wake) was called after [`falls_asleep`](Self::falls_asleep);
    /// now and then without, which costs one look at the source.
    pub(crate) async fn woken(&self) {
        self.0.notify.notified().await;
    }
}
