//! How the engine's threads tell the link that the log has grown.
//!
//! A wake costs a fence and a load while the link is busy (it will look again by itself). While it
//! sleeps, the thread that wakes it ships by itself if it can ([`Hand`]), and only otherwise wakes the
//! link's thread, by a write to an eventfd. No wake is lost:
//!
//! ```text
//! engine:  append to the log;   fence;  read `asleep`;  ship, or wake
//! link:    write `asleep`;      fence;  look at the log's end, sleep if it has not moved
//! ```
//! Of the two fences one comes first, so either the link sees the append or the engine sees
//! `asleep`.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock, Weak};

use tokio::sync::Notify;

/// Wakes the link after an append or an advance of the commit position. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Waker(Arc<Shared>);

#[derive(Default)]
struct Shared {
    asleep: AtomicBool,
    notify: Notify,
    hand: OnceLock<Weak<dyn Hand>>,
}

/// What a thread can do for a link that sleeps.
pub(crate) trait Hand: Send + Sync {
    /// Ships what was appended. Never blocks. `false`: the link's thread has to look.
    fn ship(&self) -> bool;
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("asleep", &self.asleep).finish_non_exhaustive()
    }
}

impl Waker {
    /// Tells the link to look at [`end`](crate::Source::end) and
    /// [`committed`](crate::Source::committed) again; both must have been moved before.
    ///
    /// Never blocks; call it after every append and every advance, from any thread. It may read from
    /// the source, so the caller holds nothing that [`Source::read`](crate::Source::read) or
    /// [`Source::end`](crate::Source::end) waits for.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if !self.0.asleep.load(Ordering::Relaxed) {
            return;
        }
        let hand = self.0.hand.get().and_then(Weak::upgrade);
        if hand.is_some_and(|hand| hand.ship()) {
            return;
        }
        if self.0.asleep.swap(false, Ordering::AcqRel) {
            self.0.notify.notify_one();
        }
    }

    /// Says who ships for a link that sleeps, for as long as that one lives.
    pub(crate) fn lends(&self, hand: Weak<dyn Hand>) {
        // Said once, when the link begins.
        self.0.hand.set(hand).ok();
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
