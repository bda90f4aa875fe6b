//! How the commands talk to the node that runs on this computer: a unix socket, one line of JSON
//! for the question and one for the answer, or several where it takes its time.
//!
//! ```text
//! {"ask":"status"}            ->  {"status":{...}}
//! {"ask":"base","dest":"/b"}  ->  {"progress":{...}} as it goes, at last {"base":{...}}
//! {"ask":"verify"...}         ->  {"verifying":{...}} as it goes, at last {"verified":{...}}
//! {"ask":"act","wish":"stop"...}  ->  {"step":{...}} as it goes, at last {"acted":{...}}
//! anything else               ->  {"refused":"what was wrong with it"}
//! ```
//! Who may ask is a matter of the socket's permissions (mode 0660, group `duolog` where there is
//! one). Keys and passwords never cross it; hashes of passwords do, with the settings of the pair.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use duolog_console::api::actions::Estimate;
use duolog_engine::node::{Verified, VerifyReport};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::actions::{Outcome, Step, Target, Wish};
use crate::check::Gathered;
use crate::config::Fault;
use crate::document::{Changed, Document, Name, Stamp};
use crate::drill::{Drilled, Leg};
use crate::logs::{Query, Running};
use crate::status::Status;

/// The longest question that is read.
const QUESTION_MAX_BYTES: u64 = 128 * 1024;
/// A text of the settings may double where it is all quotes.
const _: () = assert!(2 * crate::document::TEXT_MAX < 100 * 1024, "it fits a question");
/// A question that is not whole by then, or an answer that is not taken, is given up.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Where a node listens unless it is configured otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/duolog/1.sock";

/// What a command asks the node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Question {
    /// How it stands.
    Status,
    /// What a resynchronisation of its peer would come to.
    Estimate,
    /// Take a base copy.
    Base {
        /// Where it goes: an absolute path that does not exist.
        dest: PathBuf,
    },
    /// Compare both copies.
    Verify {
        /// Make what differs equal to what this node has.
        repair: bool,
        /// Bytes to hash each second; zero: as fast as it goes.
        bytes_per_s: u64,
    },
    /// Drop a branch of this node.
    DropBranch {
        /// Its name.
        name: String,
    },
    /// A version of the settings of the pair.
    Settings {
        /// Its number; nothing: the one that counts.
        version: Option<u64>,
        /// The node that made it; nothing: the greater one of that number.
        node: Option<u8>,
    },
    /// All versions of the settings that are kept.
    SettingsHistory,
    /// Change the settings of the pair, on both nodes.
    ChangeSettings {
        /// The version that was changed; nothing where there was none.
        base: Option<Name>,
        /// The new text.
        text: String,
        /// Who the operator is, for the record.
        who: String,
        /// Also where the other node does not answer.
        here: bool,
        /// The command that does it and its arguments, for the record; none: `config`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        words: Vec<String>,
    },
    /// Read certificate and key again.
    ReadCertificates,
    /// The facts that a check judges.
    Check,
    /// Prove the pair.
    Drill {
        /// Who the operator is, for the record.
        who: String,
        /// How long each swap may take, in milliseconds.
        wait_ms: u64,
    },
    /// Lines of the other node's logs.
    OtherLogs(Query),
    /// What a snapshot holds of the other node.
    OtherSupport,
    /// Do what an operator wants, and tell what comes of it.
    Act {
        /// What.
        wish: Wish,
        /// At which node.
        node: Target,
        /// Who the operator is, for the record.
        who: String,
        /// How long it is followed, in milliseconds.
        wait_ms: u64,
    },
}

/// What the node answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// How it stands.
    Status(Box<Status>),
    /// How far it came; another answer follows.
    Progress {
        /// Bytes done.
        done: u64,
        /// Bytes in all, as far as is known.
        total: u64,
    },
    /// What a resynchronisation would come to.
    Estimate(Estimate),
    /// How far a verification came; another answer follows.
    Verifying(Verified),
    /// What a verification came to.
    Verified(Box<VerifyReport>),
    /// The base copy is whole.
    Base(BaseTaken),
    /// A branch was dropped.
    Dropped {
        /// Bytes of log that it held.
        bytes: u64,
    },
    /// A version of the settings of the pair; nothing where there is no document yet.
    Settings(Option<Box<Document>>),
    /// Versions of the settings, the one that counts last.
    SettingsHistory(Vec<Stamp>),
    /// The settings were changed.
    SettingsChanged(Box<Changed>),
    /// They were not: the text has these faults.
    SettingsFaulty(Vec<Fault>),
    /// They were read, and count for what begins.
    CertificatesRead {
        /// Fingerprint of the certificate over HTTPS.
        certificate: String,
        /// Fingerprint of the key on the link.
        key: String,
    },
    /// The facts that a check judges.
    Checked(Box<Gathered>),
    /// A swap of a drill was done; another answer follows.
    Leg(Leg),
    /// What a drill came to.
    Drilled(Box<Drilled>),
    /// Text, in pieces; another answer follows.
    Text(String),
    /// The name of a file, whose bytes follow.
    File(String),
    /// Bytes of a file, in base64; another answer follows.
    Bytes(String),
    /// All of it was told, but for what is named here with the reason.
    Told {
        /// Each with its reason.
        missing: Vec<String>,
    },
    /// A node stands differently; another answer follows.
    Step(Step),
    /// What came of an action.
    Acted {
        /// One for each node that was asked, in that order.
        outcomes: Vec<Outcome>,
    },
    /// The question was not understood or cannot be granted.
    Refused(String),
}

impl Answer {
    /// What it says of what was asked for, where it is the last one.
    pub(crate) fn outcome(&self) -> Option<String> {
        Some(match self {
            Self::Progress { .. }
            | Self::Verifying(_)
            | Self::Step(_)
            | Self::Leg(_)
            | Self::Text(_)
            | Self::File(_)
            | Self::Bytes(_) => return None,
            Self::Drilled(drilled) if drilled.passed => "passed".into(),
            Self::Drilled(drilled) => format!("failed: {}", drilled.failures.join("; ")),
            Self::Told { missing } if missing.is_empty() => "answered".into(),
            Self::Told { missing } => format!("answered, without {}", missing.join("; ")),
            Self::Refused(why) => format!("refused: {why}"),
            Self::Acted { outcomes } => {
                let told = outcomes.iter().map(|outcome| {
                    let done = if outcome.done { "done" } else { "begun and not done yet" };
                    format!("node{}: {done}; {}", outcome.node, outcome.standing.state)
                });
                told.collect::<Vec<_>>().join(", ")
            }
            Self::Verified(report) if report.is_equal() => "both copies are equal".into(),
            Self::Verified(_) => "the copies differ, or could not be compared whole".into(),
            Self::Base(taken) => format!("done: {} files, {} bytes", taken.files, taken.bytes),
            Self::Dropped { bytes } => format!("done: {bytes} bytes of log"),
            Self::CertificatesRead { certificate, key } => {
                format!("done: {certificate}, key {key}")
            }
            Self::SettingsChanged(changed) => format!("done: {}", changed.stamp.title()),
            Self::SettingsFaulty(faults) => format!("refused: {} faults", faults.len()),
            Self::Status(_)
            | Self::Estimate(_)
            | Self::Checked(_)
            | Self::Settings(_)
            | Self::SettingsHistory(_) => "answered".into(),
        })
    }
}

/// A base copy that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BaseTaken {
    /// Replay begins here, in bytes of log.
    pub from: u64,
    /// Replay must come at least this far.
    pub consistent_from: u64,
    /// Files copied.
    pub files: u64,
    /// Bytes copied.
    pub bytes: u64,
    /// Where the segments are that a replay needs.
    pub state_dir: PathBuf,
    /// How many bytes of log the node keeps for that.
    pub recovery_window_bytes: u64,
}

/// What a question leads to.
#[derive(Debug)]
pub(crate) enum Reply {
    /// One answer.
    At(Answer),
    /// Answers as they come; the last one says that it is, as [`Answer::Base`] does.
    Later(mpsc::Receiver<Answer>),
}

/// Answers a question of whoever is at the other end, with the record that the answer ends.
pub(crate) type Answerer = Arc<dyn Fn(Question, UCred) -> (Reply, Option<Running>) + Send + Sync>;

/// Why the socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// A node with the same socket runs.
    #[error("another node already listens on {}; stop it, or give this one another instance in [node], or a control_socket of its own", path.display())]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is not a socket is in the way.
    #[error("{} is in the way and is not a socket; remove it, or configure another control_socket", path.display())]
    NotASocket {
        /// What is there.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot listen on the control socket {}; check that its directory can be written", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a node could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// Nobody listens.
    #[error("no node runs here: nothing listens on {}; start it with duolog run --config FILE, or name its socket with --socket or --config", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// The caller may not ask.
    #[error("may not use {}; become root or a member of the socket's group", path.display())]
    NotAllowed {
        /// The socket.
        path: PathBuf,
    },
    /// It takes longer than a question may.
    #[error(
        "the node on {} does not answer: it waits for something itself, mostly for a disk (what does dmesg say?) or for \
         a processor; ask again, and look at the other node", path.display()
    )]
    Silent {
        /// The socket.
        path: PathBuf,
    },
    /// The connection failed.
    #[error("asking the node on {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The answer is of another version.
    #[error("the node on {} answered what this duolog does not understand; use the duolog that it runs with", path.display())]
    NotUnderstood {
        /// The socket.
        path: PathBuf,
        /// What was wrong with the answer.
        source: serde_json::Error,
    },
    /// The answer is one to another question.
    #[error("the node on {} answered another question; use the duolog that it runs with", path.display())]
    Other {
        /// The socket.
        path: PathBuf,
    },
    /// The node will not.
    #[error("the node refused: {0}")]
    Refused(String),
}

/// The socket, open; removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Opens the socket. One that nobody listens on any more, as a crash leaves it, is replaced.
    ///
    /// Within a tokio runtime. The process's umask decides about the moment before the mode is
    /// set, so call this before it is cleared.
    pub(crate) fn open(path: &Path) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Io { path: path.to_owned(), source };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
            Ok(there) if !there.file_type().is_socket() => {
                return Err(ListenError::NotASocket { path: path.to_owned() });
            }
            Ok(_) => match StdStream::connect(path) {
                Ok(_) => return Err(ListenError::Taken { path: path.to_owned() }),
                Err(_) => fs::remove_file(path).map_err(failed)?,
            },
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
        if let Some(group) = group("duolog")
            && let Err(error) = std::os::unix::fs::chown(path, None, Some(group))
        {
            tracing::warn!(%error, "the control socket stays with its owner's group");
        }
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Answers until the future is dropped. Each caller is served by itself: a slow one holds
    /// nobody up.
    pub(crate) async fn serve(&self, answer: Answerer) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let answer = answer.clone();
                    tokio::spawn(async move {
                        if let Err(error) = serve_one(stream, answer).await {
                            tracing::debug!(%error, "a caller on the control socket went away");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the control socket does not accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the control socket was gone");
        }
    }
}

async fn serve_one(mut stream: UnixStream, answer: Answerer) -> io::Result<()> {
    let caller = stream.peer_cred()?;
    let (read, mut write) = stream.split();
    let mut line = Vec::new();
    let mut read = tokio::io::BufReader::new(read.take(QUESTION_MAX_BYTES));
    within(read.read_until(b'\n', &mut line)).await?;
    let (reply, running) = match serde_json::from_slice(&line) {
        Ok(question) => answer(question, caller),
        Err(error) => {
            let why = format!("the question is not understood: {error}");
            (Reply::At(Answer::Refused(why)), None)
        }
    };
    let mut outcome = None;
    let told = tell(reply, &mut write, &mut outcome).await;
    if let Some(running) = running {
        running.end(&outcome.unwrap_or_else(|| "nobody waited for its outcome".into()));
    }
    told
}

/// Tells every answer; `outcome` is what the last one says.
async fn tell(
    mut reply: Reply,
    write: &mut (impl AsyncWriteExt + Unpin),
    outcome: &mut Option<String>,
) -> io::Result<()> {
    loop {
        let (said, more) = match reply {
            Reply::At(answer) => (answer, None),
            Reply::Later(mut answers) => match answers.recv().await {
                Some(answer) => (answer, Some(answers)),
                None => return Ok(()),
            },
        };
        *outcome = said.outcome();
        let mut text = serde_json::to_vec(&said)?;
        text.push(b'\n');
        within(write.write_all(&text)).await?;
        let Some(answers) = more else { return Ok(()) };
        reply = Reply::Later(answers);
    }
}

async fn within<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(TIMEOUT, step)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Asks the node that listens on `path`; `on_way` is told answers that others follow.
///
/// # Errors
/// Names what to do when nobody listens or the caller may not ask.
pub(crate) fn ask(
    path: &Path,
    question: &Question,
    on_way: &mut dyn FnMut(&Answer),
) -> Result<Answer, AskError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            AskError::NotRunning { path: path.to_owned() }
        }
        io::ErrorKind::PermissionDenied => AskError::NotAllowed { path: path.to_owned() },
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            AskError::Silent { path: path.to_owned() }
        }
        _ => AskError::Io { path: path.to_owned(), source },
    };
    let mut stream = StdStream::connect(path).map_err(failed)?;
    // Copies and actions take as long as they take; a node that ends closes the socket.
    let timeout = (*question == Question::Status).then_some(TIMEOUT);
    stream.set_read_timeout(timeout).map_err(failed)?;
    stream.set_write_timeout(Some(TIMEOUT)).map_err(failed)?;
    let mut text = serde_json::to_vec(question).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    stream.write_all(&text).map_err(failed)?;
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).map_err(failed)? == 0 {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_str(&line) {
            Ok(Answer::Refused(why)) => return Err(AskError::Refused(why)),
            Ok(answer) if answer.outcome().is_none() => on_way(&answer),
            Ok(answer) => return Ok(answer),
            Err(source) => return Err(AskError::NotUnderstood { path: path.to_owned(), source }),
        }
    }
}

/// Asks how the node stands that listens on `path`.
///
/// # Errors
/// As [`ask`].
pub(crate) fn status(path: &Path) -> Result<Status, AskError> {
    match ask(path, &Question::Status, &mut |_| {})? {
        Answer::Status(status) => Ok(*status),
        _ => Err(AskError::Other { path: path.to_owned() }),
    }
}

/// The number of a group, from the file that local groups are in.
fn group(name: &str) -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_question_is_answered_and_nonsense_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/control.sock");
        let runtime = runtime();
        let listener = {
            let _within = runtime.enter();
            Listener::open(&path).unwrap()
        };
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        std::thread::spawn(move || {
            let answer = Arc::new(|question, caller: UCred| {
                assert_eq!(caller.uid(), rustix::process::geteuid().as_raw());
                if question == Question::Status {
                    return (Reply::At(Answer::Refused("not today".into())), None);
                }
                let (say, answers) = mpsc::channel(8);
                for done in 1..=3 {
                    say.try_send(Answer::Progress { done, total: 3 }).unwrap();
                }
                say.try_send(Answer::Refused("nor tomorrow".into())).unwrap();
                (Reply::Later(answers), None)
            });
            runtime.block_on(listener.serve(answer));
        });
        let refused = ask(&path, &Question::Status, &mut |_| {}).unwrap_err();
        assert!(matches!(refused, AskError::Refused(why) if why == "not today"));
        let mut seen = Vec::new();
        let base = Question::Base { dest: "/b".into() };
        let mut on_way = |answer: &Answer| {
            if let Answer::Progress { done, .. } = answer {
                seen.push(*done);
            }
        };
        let refused = ask(&path, &base, &mut on_way).unwrap_err();
        assert!(matches!(refused, AskError::Refused(why) if why == "nor tomorrow"));
        assert_eq!(seen, [1, 2, 3]);

        let mut stream = StdStream::connect(&path).unwrap();
        stream.write_all(b"{\"ask\":\"the way\"}\n").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        assert!(line.contains("not understood"), "{line}");
    }

    #[test]
    fn a_node_that_does_not_run_is_named_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nobody.sock");
        let error = status(&path).unwrap_err();
        assert!(error.to_string().contains("start it with duolog run"), "{error}");
        // A crash leaves the socket behind; nobody listens on it.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(matches!(status(&path), Err(AskError::NotRunning { .. })));
    }

    #[test]
    fn a_socket_in_use_is_never_taken_over_and_a_dead_one_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let runtime = runtime();
        let _within = runtime.enter();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = Listener::open(&path).unwrap();
        assert!(matches!(Listener::open(&path), Err(ListenError::Taken { .. })));
        drop(first);
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Listener::open(&path), Err(ListenError::NotASocket { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
