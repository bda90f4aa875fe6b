//! Joins the engine's two ends of a resynchronisation to the stream that the transport carries it
//! over, and tells operators how far it is and what one would come to. Decides nothing: whether a
//! node may be resynchronised now is for whoever owns its link.

use std::io;
use std::sync::Arc;

use anyhow::bail;
use duolog_console::api::actions::Estimate;
use duolog_engine::node::Node;
use duolog_engine::resync::{self, Part, Progress, ResyncError};
use duolog_transport::resync::{Give, Pipe, Take};
use duolog_wal::NodeId;
use tokio::sync::mpsc;

use crate::cli::Listing;
use crate::config::Config;
use crate::control::{self, Answer, Question, Reply};
use crate::status::{Resync, ResyncPart, ResyncsGiven, bytes};

const _: () = assert!(
    resync::MESSAGE_MAX <= duolog_transport::resync::MESSAGE_MAX,
    "a message of the engine fits one of the transport"
);

/// The transport's pipe, as the engine sees it.
struct Wire<'a>(&'a mut Pipe);

impl resync::Pipe for Wire<'_> {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.0.send(message)
    }

    fn receive(&mut self, message: &mut Vec<u8>) -> io::Result<()> {
        self.0.receive(message)
    }

    fn pace(&mut self, bytes_per_s: Option<u64>) {
        self.0.pace(bytes_per_s);
    }

    fn wire_bytes(&self) -> u64 {
        self.0.wire_bytes()
    }
}

/// The work of the end that has.
pub(crate) fn giver(node: &Arc<Node>) -> Give {
    let node = Arc::clone(node);
    Box::new(move |pipe| resync::give(&node, &mut Wire(pipe)).map_err(|error| failed(&error)))
}

/// The work of the end that lacks.
pub(crate) fn taker(node: &Arc<Node>) -> Take {
    let node = Arc::clone(node);
    Box::new(move |pipe| resync::take(&node, &mut Wire(pipe)).map_err(|error| failed(&error)))
}

/// With all its causes: the other end gets the text and nothing else.
fn failed(error: &ResyncError) -> io::Error {
    let mut line = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    io::Error::other(line)
}

/// How far it is, of this node or from it: the engine's word as a document.
pub(crate) fn progress(node: &Node) -> Option<Resync> {
    let Progress { part, done_bytes, total_bytes, sent_bytes, seconds_left } =
        node.resync_progress()?;
    let part = match part {
        Part::Gives => ResyncPart::Gives,
        Part::Takes => ResyncPart::Takes,
        Part::CatchesUp => ResyncPart::CatchesUp,
    };
    Some(Resync { part, done_bytes, total_bytes, sent_bytes, seconds_left })
}

/// What those from this node came to since it was started.
pub(crate) fn given(node: &Node) -> ResyncsGiven {
    let resync::Given { begun, finished, content_bytes, message_bytes, wire_bytes } =
        node.resyncs_given();
    ResyncsGiven { begun, finished, content_bytes, message_bytes, wire_bytes }
}

/// How far it is, in words.
pub(crate) fn sentence(resync: &Resync, node: NodeId) -> String {
    let (done, total) = (bytes(resync.done_bytes), bytes(resync.total_bytes));
    let left = match resync.seconds_left {
        Some(seconds) => format!(", about {seconds} s left"),
        None => String::new(),
    };
    match resync.part {
        ResyncPart::Gives => format!("{} is resynchronised: {done} of {total}{left}", node.peer()),
        ResyncPart::Takes => {
            format!("is resynchronised from {}: {done} of {total}{left}", node.peer())
        }
        ResyncPart::CatchesUp => {
            format!("applies what was written during its resynchronisation: {done} of {total}")
        }
    }
}

/// Asks the node that serves what a resynchronisation of the other one would come to.
pub(crate) fn estimate(options: &Listing) -> anyhow::Result<()> {
    let config = Config::load(&options.config)?;
    let socket = &config.control_socket;
    let Answer::Estimate(estimate) = control::ask(socket, &Question::Estimate, &mut |_| {})? else {
        bail!("the node answered another question; use the duolog that it runs with");
    };
    if options.json {
        println!("{}", serde_json::to_string(&estimate)?);
    } else {
        println!("{}", words(&estimate, config.node.peer()));
    }
    Ok(())
}

/// Answers that question; finding out reads the log, and takes a thread of its own.
pub(crate) fn answer_estimate(node: Option<Arc<Node>>) -> Reply {
    let refused = |why: String| Reply::At(Answer::Refused(why));
    let Some(node) = node else {
        return refused("the node still recovers its log; ask again when it is ready".into());
    };
    if node.leads().is_none() {
        let peer = node.config().node.peer();
        return refused(format!("this node does not serve: ask {peer}, which would send"));
    }
    let (say, answers) = mpsc::channel(1);
    let thread = std::thread::Builder::new().name("duolog-estimate".into()).spawn(move || {
        let resync::Estimate { bytes, changed_only, seconds } = node.estimate_resync();
        // Who asked may have gone away.
        say.blocking_send(Answer::Estimate(Estimate { bytes, changed_only, seconds })).ok();
    });
    match thread {
        Ok(_) => Reply::Later(answers),
        Err(error) => refused(format!("cannot start a thread: {error}")),
    }
}

fn words(estimate: &Estimate, peer: NodeId) -> String {
    let (size, seconds) = (bytes(estimate.bytes), estimate.seconds);
    if estimate.changed_only {
        format!(
            "{peer} lacks {size} that changed here: about {seconds} s, and what it wrote on its \
             own on top of that"
        )
    } else {
        format!(
            "what {peer} lacks is not known: {size} are compared, about {seconds} s where most of \
             it is equal, and what differs is sent"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_read_how_far_it_is() {
        let gives = Resync {
            part: ResyncPart::Gives,
            done_bytes: 1 << 20,
            total_bytes: 10 << 20,
            sent_bytes: 5,
            seconds_left: Some(7),
        };
        let said = sentence(&gives, NodeId::Node1);
        assert_eq!(said, "node2 is resynchronised: 1024 KiB of 10.0 MiB, about 7 s left");
        let takes = Resync { part: ResyncPart::Takes, seconds_left: None, ..gives };
        assert!(sentence(&takes, NodeId::Node1).starts_with("is resynchronised from node2: "));
        let estimate = Estimate { bytes: 100 << 20, changed_only: true, seconds: 2 };
        assert!(words(&estimate, NodeId::Node2).contains("node2 lacks 100 MiB that changed here"));
    }
}
