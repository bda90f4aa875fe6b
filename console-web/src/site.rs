//! What the routes share: the node, the sessions, the actions that were asked for, the stream.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::actions::Actions;
use crate::api::problem::{Problem, Why};
use crate::backend::{About, Node};
use crate::events::Hub;
use crate::sessions::Sessions;

/// Questions to the node that may block at a time, of all users together. Each has a thread meanwhile.
const BLOCKING_MAX: usize = 8;
/// Snapshots at a time; each has a thread for as long as whoever wants it takes to read it.
const SNAPSHOTS_MAX: usize = 2;
/// Streams of logs at a time: each asks a question a second, one at a time to the other node.
const FOLLOWERS_MAX: usize = 32;

/// All that the routes share.
pub(crate) struct Site {
    pub node: Node,
    pub about: About,
    pub sessions: Sessions,
    pub actions: Arc<Actions>,
    pub hub: Arc<Hub>,
    blocking: Arc<Semaphore>,
    /// For snapshots on their way.
    pub snapshots: Arc<Semaphore>,
    /// For those who follow a log.
    pub followers: Arc<Semaphore>,
}

/// It, shared.
pub(crate) type Shared = Arc<Site>;

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site").field("about", &self.about).finish_non_exhaustive()
    }
}

impl Site {
    pub(crate) fn new(node: Node) -> Self {
        let hub = Arc::new(Hub::default());
        Self {
            about: node.about(),
            sessions: Sessions::default(),
            actions: Arc::new(Actions::new(hub.clone())),
            hub,
            node,
            blocking: Arc::new(Semaphore::new(BLOCKING_MAX)),
            snapshots: Arc::new(Semaphore::new(SNAPSHOTS_MAX)),
            followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)),
        }
    }

    /// Does what may block on a thread of its own.
    ///
    /// # Errors
    /// What it says; or that it broke off.
    pub(crate) async fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let broke = |_| Problem::new(Why::Unavailable, "the answer broke off; see the module log");
        let place = self.blocking.clone().acquire_owned().await;
        let place = place.map_err(|_| Problem::new(Why::Unavailable, "the node ends"))?;
        let work = move || {
            let done = work();
            drop(place);
            done
        };
        tokio::task::spawn_blocking(work).await.map_err(broke)?
    }
}
