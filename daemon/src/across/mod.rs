//! What one node asks the other that is too long for words between heartbeats: its logs, what a
//! snapshot holds of it. Over the link (`duolog_transport::bulk`), so only while the nodes are
//! connected; never in the way of the log.
//!
//! ```text
//!  duolog logs --node other ── control socket ──> relay ── Asked ──> answer
//!                           <── Answer::Text ...       <── Piece ...
//! ```
//! The other node is authenticated and still not trusted with this one's memory: everything that
//! comes has a bound, of time and of bytes. What it answers is what its own operators see: secrets are hidden
//! there before anything is sent.

mod piece;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use duolog_transport::bulk::{Bulk, BulkError};
use duolog_transport::resync::Pipe;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::check;
use crate::config::Config;
use crate::control::{Answer, Reply};
use crate::dump;
use crate::logs;
use crate::member::Member;
use crate::web::{Inquiry, Own, be_nice};
pub(crate) use piece::{PIECE_MAX, Piece, Pieces, Sender, only};

/// Most bytes of lines that are sent.
const LINES_BYTES_MAX: usize = 32 << 20;
/// Most bytes of any answer, unpacked.
const ANSWER_BYTES_MAX: u64 = 1 << 30;
/// Most bytes of a question.
const QUESTION_BYTES_MAX: usize = 64 << 10;
/// How soon a question that waits for its turn is tried again.
const TURN: Duration = Duration::from_millis(20);
/// Pieces on their way to who asked: while it takes none, none is read.
const WAITING: usize = 4;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Asked {
    /// Lines of a log.
    Logs(logs::Query),
    /// What a snapshot holds of the node.
    Support,
    /// What a check judges.
    Facts {
        /// Name of the computer that asks.
        host: String,
    },
    /// Whether the services there answer a client.
    Probe,
    /// What of the services runs there.
    Running,
    /// What time it is, some times over.
    Clock,
    /// What a user of the console here wants to know of it.
    Console(Inquiry),
}

impl Asked {
    /// How long the whole answer may take.
    const fn limit(&self) -> Duration {
        match self {
            Self::Logs(_) => Duration::from_mins(2),
            Self::Support => Duration::from_mins(10),
            Self::Facts { .. } => Duration::from_mins(1),
            Self::Probe => Duration::from_secs(5),
            Self::Running => Duration::from_secs(30),
            Self::Clock => Duration::from_secs(10),
            Self::Console(inquiry) => inquiry.limit(),
        }
    }
}

/// Why the other node said nothing, or not all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcrossError {
    /// There is no connection now.
    #[error(
        "the other node is not reached: {0}; that is possible while one of the nodes is PRIM and \
         the other one SECOND (see duolog status)"
    )]
    Way(String),
    /// One question at a time crosses.
    #[error("another question to the other node is under way; ask again when it is answered")]
    Busy,
    /// It will not.
    #[error("the other node refused: {0}")]
    Refused(String),
}

impl From<BulkError> for AcrossError {
    fn from(error: BulkError) -> Self {
        if matches!(error, BulkError::Busy) {
            return Self::Busy;
        }
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self::Way(text)
    }
}

/// The way to the other node, and what it is told of this one.
#[derive(Debug)]
pub(crate) struct Across {
    config: Config,
    /// The file that it was read from.
    file: PathBuf,
    /// Of the link that was begun last.
    way: Mutex<Option<Bulk>>,
    member: OnceLock<Weak<Member>>,
    /// What is told to users of the console there.
    own: OnceLock<Weak<Own>>,
}

impl Across {
    pub(crate) fn new(config: Config, file: &Path) -> Self {
        let (file, way) = (file.to_owned(), Mutex::default());
        let (member, own) = (OnceLock::new(), OnceLock::new());
        Self { config, file, way, member, own }
    }

    /// Whom the other node's questions are about.
    pub(crate) fn answer_of(&self, member: Weak<Member>) {
        // Said once, when the process begins.
        self.member.set(member).ok();
    }

    /// What users of the other node's console are told.
    pub(crate) fn tells(&self, own: Weak<Own>) {
        self.own.set(own).ok();
    }

    /// A link was begun: questions go by it from now on.
    pub(crate) fn goes_by(self: &Arc<Self>, way: Bulk) {
        let this = Arc::downgrade(self);
        way.answer_with(Arc::new(move |pipe| match this.upgrade() {
            Some(this) => this.answer(pipe),
            None => Ok(()),
        }));
        *self.way.lock().unwrap_or_else(PoisonError::into_inner) = Some(way);
    }

    /// Asks the other node; `read` takes its answer.
    ///
    /// # Errors
    /// [`AcrossError`].
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        asked: &Asked,
        read: impl FnOnce(&mut Pieces<'_>) -> io::Result<T> + Send + 'static,
    ) -> Result<T, AcrossError> {
        let question =
            serde_json::to_vec(asked).map_err(|why| AcrossError::Way(why.to_string()))?;
        let way = self.way.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let way = way.ok_or(BulkError::NotConnected)?;
        let answered = way.ask(asked.limit(), move |pipe| {
            pipe.send(&question)?;
            let mut pieces = Pieces::new(pipe, ANSWER_BYTES_MAX);
            let read = read(&mut pieces);
            Ok(match pieces.refused() {
                Some(why) => Err(why),
                None => Ok(read?),
            })
        })?;
        answered.map_err(AcrossError::Refused)
    }

    /// The same, and waits for its turn, at most so long.
    ///
    /// # Errors
    /// [`AcrossError`].
    pub(crate) fn ask_in_turn<T: Send + 'static>(
        &self,
        asked: &Asked,
        patience: Duration,
        read: impl Fn(&mut Pieces<'_>) -> io::Result<T> + Clone + Send + 'static,
    ) -> Result<T, AcrossError> {
        let until = Instant::now() + patience;
        loop {
            match self.ask(asked, read.clone()) {
                Err(AcrossError::Busy) if Instant::now() < until => {
                    std::thread::park_timeout(TURN);
                }
                answered => return answered,
            }
        }
    }

    /// Asks the other node and tells who asked here, as it comes.
    pub(crate) fn relay(self: &Arc<Self>, asked: Asked) -> Reply {
        let (say, answers) = mpsc::channel(WAITING);
        let this = Arc::clone(self);
        let thread = std::thread::Builder::new().name("duolog-across".into()).spawn(move || {
            let tell = say.clone();
            let told = this.ask(&asked, move |pieces| pass_on(pieces, &tell));
            let last = told.unwrap_or_else(|error| Answer::Refused(error.to_string()));
            // Who asked may have gone away.
            say.blocking_send(last).ok();
        });
        match thread {
            Ok(_) => Reply::Later(answers),
            Err(error) => Reply::At(Answer::Refused(format!("cannot start a thread: {error}"))),
        }
    }

    /// Answers a question of the other node.
    fn answer(&self, pipe: &mut Pipe) -> io::Result<()> {
        // The thread is this question's alone; what a commit waits for goes before it.
        be_nice();
        let mut question = Vec::new();
        pipe.receive(&mut question)?;
        let asked = match serde_json::from_slice(&question) {
            Ok(asked) if question.len() <= QUESTION_BYTES_MAX => asked,
            Ok(_) => return Sender(pipe).refuse("the question is too long"),
            Err(error) => return Sender(pipe).refuse(&format!("it is not understood: {error}")),
        };
        tracing::debug!(?asked, "the other node asks");
        let mut to = Sender(pipe);
        match asked {
            Asked::Logs(query) => self.send_lines(&query, &mut to),
            Asked::Clock => check::tell_clock(&mut to),
            Asked::Console(inquiry) => match self.own.get().and_then(Weak::upgrade) {
                Some(own) => own.answer(inquiry, &mut to),
                None => to.refuse("it ends, or has just begun"),
            },
            Asked::Facts { .. } | Asked::Probe | Asked::Running => {
                match (asked, self.member.get().and_then(Weak::upgrade).as_deref()) {
                    (Asked::Facts { host }, Some(member)) => {
                        to.last(&check::facts(member, Some(host)))
                    }
                    (Asked::Probe, Some(Member::Pair(pair))) => to.last(&pair.probe()),
                    (_, Some(Member::Pair(pair))) => to.last(&pair.running().unwrap_or_default()),
                    _ => to.refuse("it ends, or has just begun"),
                }
            }
            Asked::Support => match dump::send_own(&self.config, &self.file, &mut to) {
                Ok(missing) => to.last(&missing),
                Err(error) => to.refuse(&format!("{error:#}")),
            },
        }
    }

    fn send_lines(&self, query: &logs::Query, to: &mut Sender<'_>) -> io::Result<()> {
        match logs::lines(&self.config.logs.dir, query, LINES_BYTES_MAX) {
            Ok((lines, left_out)) => {
                let mut text = String::new();
                for line in lines {
                    text.push_str(&line);
                    text.push('\n');
                    if text.len() >= PIECE_MAX {
                        to.text(&std::mem::take(&mut text))?;
                    }
                }
                to.text(&text)?;
                let why = || format!("the oldest lines: at most {LINES_BYTES_MAX} bytes are sent");
                to.last(&left_out.then(why).into_iter().collect::<Vec<_>>())
            }
            Err(error) => to.refuse(&format!("its log cannot be read: {error}")),
        }
    }
}

/// Tells who asked here what the other node says.
fn pass_on(pieces: &mut Pieces<'_>, to: &mpsc::Sender<Answer>) -> io::Result<Answer> {
    while let Some(piece) = pieces.next()? {
        let answer = match piece {
            Piece::Name(name) => Answer::File(name),
            Piece::Data(bytes) => Answer::Bytes(STANDARD.encode(bytes)),
            Piece::Text(text) => Answer::Text(text),
        };
        to.blocking_send(answer).map_err(|_| io::Error::other("who asked went away"))?;
    }
    Ok(Answer::Told { missing: pieces.last()? })
}
