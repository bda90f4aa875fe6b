//! What is long and not urgent, asked of the other node: its logs, what a snapshot holds of it.
//!
//! ```text
//!  Bulk::ask: a worker here ── Pipe ── stream of the lowest priority ── Pipe ── the answerer there
//! ```
//! A question has a stream of its own on the connection that ships the log, and lives no longer
//! than it. Neither end is trusted to end: each question has a time, after which its stream is
//! dropped. What is not read holds up that stream alone: one node asks one question at a time, and
//! what it has not taken in yet is at most half of what the connection may hold, so the log and its
//! acknowledgements always have room. What questions and answers mean is the owner's affair.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::control::StreamKind;
use crate::error::LinkError;
use crate::protocol::Protocol;
use crate::resync::{Pipe, Work, run};

/// Answers a question: reads it, and sends what there is to say.
pub type Answerer = Arc<dyn Fn(&mut Pipe) -> io::Result<()> + Send + Sync>;

/// The longest that a question may be answered; who asked may give up sooner.
pub const ANSWER_TIME: Duration = Duration::from_mins(10);
/// Bytes a second of an answer at most, as they cross the wire.
pub const BYTES_PER_S: u64 = 8 << 20;
/// How long a stream may take to say what it is.
const KIND_TIME: Duration = Duration::from_secs(5);
/// Questions that are answered at a time.
const ANSWERED_MAX: usize = 2;
/// A stream that is not wanted ends with this.
const UNWANTED: VarInt = VarInt::from_u32(1);
/// Behind the log and behind a resynchronisation.
const WORK: Work = Work {
    thread: "duolog-bulk",
    priority: -2,
    kind: StreamKind::Bulk,
    broke: LinkError::Question,
};

/// Why the other node was not asked, or did not answer whole.
#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    /// There is no connection, or none that knows questions.
    #[error("the nodes are not connected, or the other one is of a release before 0.2.0")]
    NotConnected,
    /// Another question is being answered.
    #[error("another question to the other node is under way; ask again when it is answered")]
    Busy,
    /// It took too long.
    #[error("the other node did not answer whole within {seconds} s")]
    TooLong {
        /// How long was waited.
        seconds: u64,
    },
    /// The stream ended, or the worker failed.
    #[error("the answer of the other node broke off")]
    Broke(#[source] LinkError),
    /// No thread or no event queue.
    #[error("a question to the other node could not be begun")]
    Begin(#[source] io::Error),
}

/// The way for questions of a link. Clones are the same way; it has an end when the link has one.
#[derive(Clone, Default)]
pub struct Bulk(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// The connection that stands.
    live: Mutex<Option<Connection>>,
    answerer: OnceLock<Answerer>,
    asking: AtomicBool,
    answered: AtomicUsize,
}

impl fmt::Debug for Bulk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulk").finish_non_exhaustive()
    }
}

/// A question is under way.
struct Asking<'a>(&'a AtomicBool);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A question is being answered.
struct Answered(Arc<Inner>);

impl Drop for Answered {
    fn drop(&mut self) {
        self.0.answered.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Bulk {
    /// Says who answers the other node's questions here; the first one that is said counts. Until
    /// then they are turned away.
    pub fn answer_with(&self, answerer: Answerer) {
        // Said once, when the link begins.
        self.0.answerer.set(answerer).ok();
    }

    /// Asks the other node: `work` sends the question and reads the answer, on a thread of its own.
    /// Blocks for at most `limit`; where that passes, the worker's pipe breaks and nobody waits for
    /// it.
    ///
    /// # Errors
    /// [`BulkError`]; what came before is the worker's to throw away.
    pub fn ask<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&mut Pipe) -> io::Result<T> + Send + 'static,
    ) -> Result<T, BulkError> {
        let connection = self.live().clone().ok_or(BulkError::NotConnected)?;
        if self.0.asking.swap(true, Ordering::AcqRel) {
            return Err(BulkError::Busy);
        }
        let _asking = Asking(&self.0.asking);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(BulkError::Begin)?;
        let asked = async {
            let stream = LinkError::Stream { stream: crate::streams::name(StreamKind::Bulk) };
            let (mut send, recv) = connection.open_bi().await?;
            send.write_all(&[StreamKind::Bulk.byte()]).await.map_err(|_| stream)?;
            run(send, recv, true, WORK, work).await
        };
        match runtime.block_on(async { timeout(limit, asked).await }) {
            Ok(done) => done.map_err(BulkError::Broke),
            Err(_) => Err(BulkError::TooLong { seconds: limit.as_secs() }),
        }
    }

    fn live(&self) -> std::sync::MutexGuard<'_, Option<Connection>> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection stands, until what is returned is dropped. Within the link's runtime. An end
    /// of a release that knows no questions is never asked one.
    pub(crate) fn stands(&self, connection: &Connection) -> Stands {
        let knows = Protocol::of(connection).has_questions();
        *self.live() = knows.then(|| connection.clone());
        let mut serving = JoinSet::new();
        serving.spawn(serve(self.clone(), connection.clone()));
        Stands { way: self.clone(), _serving: serving }
    }

    /// Answers one question.
    async fn answer(self, send: SendStream, recv: RecvStream) {
        let busy = self.0.answered.fetch_add(1, Ordering::AcqRel) >= ANSWERED_MAX;
        let answered = Answered(self.0.clone());
        let (mut send, mut recv) = (send, recv);
        let mut kind = [0];
        let read = timeout(KIND_TIME, recv.read_exact(&mut kind)).await;
        let wanted = matches!(read, Ok(Ok(()))) && kind[0] == StreamKind::Bulk.byte() && !busy;
        let Some(answerer) = self.0.answerer.get().filter(|_| wanted).cloned() else {
            tracing::debug!(busy, "a question of the other node is turned away");
            // The connection may be gone, and then there is nobody to turn away.
            send.reset(UNWANTED).ok();
            recv.stop(UNWANTED).ok();
            return;
        };
        let work = move |pipe: &mut Pipe| {
            // Until the work is done, not until nobody waits for it any more: who resets streams must
            // not have more than so many threads at work here.
            let _answered = answered;
            pipe.pace(Some(BYTES_PER_S));
            answerer(pipe)
        };
        match timeout(ANSWER_TIME, run(send, recv, true, WORK, work)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a question was not answered whole"),
            Err(_) => tracing::warn!("a question of the other node was not answered in time"),
        }
    }
}

async fn serve(way: Bulk, connection: Connection) {
    let mut answers = JoinSet::new();
    while let Ok((send, recv)) = connection.accept_bi().await {
        answers.spawn(way.clone().answer(send, recv));
        while answers.try_join_next().is_some() {}
    }
}

/// A connection that stands for questions.
pub(crate) struct Stands {
    way: Bulk,
    /// Ends what is being answered when it is dropped.
    _serving: JoinSet<()>,
}

impl Drop for Stands {
    fn drop(&mut self) {
        *self.way.live() = None;
    }
}
