//! `duolog verify`: are both copies equal? The node that serves finds out while it goes on; this is
//! the thread that it does so on, and the command that asks for it. Hashing, marks and repair are
//! the engine's.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use duolog_engine::node::{Node, NodeError, Verified, Verifying};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use crate::cli::VerifyCopies;
use crate::control::{self, Answer, Question, Reply};
use crate::status::bytes;

/// Answers on their way to who asked; how far it came is left out when more wait.
const WAITING: usize = 4;
/// How often it is told how far it came.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// One verification at a time in a process.
static BUSY: AtomicBool = AtomicBool::new(false);

struct Turn;

impl Turn {
    fn take() -> Option<Self> {
        (!BUSY.swap(true, Ordering::AcqRel)).then_some(Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        BUSY.store(false, Ordering::Release);
    }
}

/// Begins a verification. It is broken off when who asked goes away.
pub(crate) fn begin(node: Option<Arc<Node>>, how: Verifying) -> Reply {
    let Some(node) = node else {
        let why = "the node still recovers its log; ask again when it is ready";
        return Reply::At(Answer::Refused(why.into()));
    };
    let (say, answers) = mpsc::channel(WAITING);
    let thread = std::thread::Builder::new().name("duolog-verify".into()).spawn(move || {
        let last = verify(&node, &how, &say).unwrap_or_else(Answer::Refused);
        if say.blocking_send(last).is_err() {
            tracing::info!("who asked for the verification went away");
        }
    });
    match thread {
        Ok(_) => Reply::Later(answers),
        Err(error) => Reply::At(Answer::Refused(format!("cannot start a thread: {error}"))),
    }
}

fn verify(node: &Node, how: &Verifying, say: &mpsc::Sender<Answer>) -> Result<Answer, String> {
    let Some(_turn) = Turn::take() else {
        return Err("another verification is under way; wait for it".into());
    };
    let mut told = Instant::now();
    let mut on_progress = |verified: &Verified| {
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            // Left out when the one who asked is slower.
            say.try_send(Answer::Verifying(*verified)).ok();
        }
        !say.is_closed()
    };
    match node.verify(how, &mut on_progress) {
        Ok(report) => {
            tracing::info!(
                files = report.verified.files,
                bytes = report.verified.bytes,
                differences = report.verified.differences,
                unanswered = report.verified.unanswered,
                "both copies were compared"
            );
            Ok(Answer::Verified(Box::new(report)))
        }
        Err(NodeError::NotLeading) => Err(
            "only the primary of a pair whose second copy is up to date can compare both copies; \
             ask that node, or wait until both are members"
                .into(),
        ),
        Err(error) => Err(format!("{:#}", anyhow::Error::new(error))),
    }
}

/// `duolog verify`: exit code 0 when both copies are equal, or were made equal; 1 otherwise.
pub(crate) fn run(options: &VerifyCopies) -> anyhow::Result<ExitCode> {
    let socket = crate::socket(options.socket.as_deref(), options.config.as_deref())?;
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} files  {msg}")?;
    let bar = ProgressBar::new(0).with_style(style);
    let question = Question::Verify { repair: options.repair, bytes_per_s: options.bytes_per_s };
    let answer = control::ask(&socket, &question, &mut |answer| {
        if let Answer::Verifying(verified) = answer {
            bar.set_length(verified.files_total);
            bar.set_position(verified.files);
            bar.set_message(bytes(verified.bytes));
        }
    });
    bar.finish_and_clear();
    let Answer::Verified(report) = answer.context("the copies were not compared")? else {
        bail!("the node answered another question; use the duolog that it runs with");
    };
    let verified = &report.verified;
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        for found in &report.differences {
            let what = match found.bytes {
                0 => "names or attributes".to_owned(),
                count => format!("bytes {} to {}", found.offset, found.offset + u64::from(count)),
            };
            let repaired = if found.repaired { ", repaired" } else { "" };
            println!("{}: {what} differ{repaired}", found.path);
        }
        println!(
            "{} files, {}: {} differences, {} ranges without an answer",
            verified.files,
            bytes(verified.bytes),
            verified.differences,
            verified.unanswered
        );
        if let Some(evidence) = &report.evidence {
            println!("kept as {evidence} in the state directory of the node that was asked");
        }
    }
    let repaired = report.differences.iter().filter(|found| found.repaired).count() as u64;
    let equal = verified.differences == repaired && verified.unanswered == 0 && !report.broken_off;
    Ok(if equal { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
