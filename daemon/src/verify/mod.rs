//! `duolog verify`: are both copies equal? The node that serves finds out while it goes on; this is
//! the thread that it does so on, and the command that asks for it. Hashing, marks and repair are
//! the engine's.

mod verifier;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use duolog_console::api::status::VerifiedBy;
use duolog_engine::node::{Node, Verified, Verifying};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

pub(crate) use self::verifier::Verifier;
use crate::cli::VerifyCopies;
use crate::control::{self, Answer, Question, Reply};
use crate::status::bytes;

/// Answers on their way to who asked; how far it came is left out when more wait.
const WAITING: usize = 4;
/// How often it is told how far it came.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Begins a verification that an operator wants. It is broken off when who asked goes away.
pub(crate) fn begin(verifier: Arc<Verifier>, node: Option<Arc<Node>>, how: Verifying) -> Reply {
    let Some(node) = node else {
        let why = "the node still recovers its log; ask again when it is ready";
        return Reply::At(Answer::Refused(why.into()));
    };
    let (say, answers) = mpsc::channel(WAITING);
    let thread = std::thread::Builder::new().name("duolog-verify".into()).spawn(move || {
        let last = verify(&verifier, &node, &how, &say).unwrap_or_else(Answer::Refused);
        if say.blocking_send(last).is_err() {
            tracing::info!("who asked for the verification went away");
        }
    });
    match thread {
        Ok(_) => Reply::Later(answers),
        Err(error) => Reply::At(Answer::Refused(format!("cannot start a thread: {error}"))),
    }
}

fn verify(
    verifier: &Verifier,
    node: &Node,
    how: &Verifying,
    say: &mpsc::Sender<Answer>,
) -> Result<Answer, String> {
    let mut told = Instant::now();
    let mut on_progress = |verified: &Verified| {
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            // Left out when the one who asked is slower.
            say.try_send(Answer::Verifying(*verified)).ok();
        }
        !say.is_closed()
    };
    let report = verifier.verify(node, how, VerifiedBy::Operator, &mut on_progress);
    let report = report.map_err(|error| format!("{:#}", anyhow::Error::new(error)))?;
    Ok(Answer::Verified(Box::new(report)))
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
            println!("what each node had is kept in {evidence} below its state directory");
        }
    }
    Ok(if report.is_equal() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
