//! What the node answers to those who ask on its control socket, and what of that is recorded:
//! everything that does something. Looks (`status`, `estimate`, `config show`) are not.

use std::sync::Arc;
use std::time::Duration;

use duolog_engine::node::Verifying;
use tokio::net::unix::UCred;

use crate::across::Asked;
use crate::branches;
use crate::certs::Keys;
use crate::control::{Answer, Question, Reply};
use crate::document;
use crate::drill;
use crate::logs::{By, Logs, Running};
use crate::member::Member;
use crate::resync;
use crate::verify;

/// Answers `caller`; the record is to be ended with what comes of it.
pub(crate) fn answer(
    member: &Arc<Member>,
    logs: &Logs,
    question: Question,
    caller: UCred,
) -> (Reply, Option<Running>) {
    // Looked up where it is needed: how a node stands is asked all the time.
    let by = || By::here(caller.uid(), caller.pid());
    match question {
        Question::Status => (Reply::At(Answer::Status(Box::new(member.status()))), None),
        Question::Estimate => (resync::answer_estimate(member.origin().node), None),
        Question::Base { dest } => {
            let to = dest.display().to_string();
            let running = logs.action(by(), "log base", &[to], None);
            (member.origin().take_base(dest), Some(running))
        }
        Question::Verify { repair, bytes_per_s } => {
            let mut arguments = vec![format!("--bytes-per-s={bytes_per_s}")];
            if repair {
                arguments.push("--repair".into());
            }
            let running = logs.action(by(), "verify", &arguments, None);
            let how = Verifying { bytes_per_s, repair };
            (verify::begin(member.verifier(), member.origin().node, how), Some(running))
        }
        Question::DropBranch { name } => {
            let running = logs.action(by(), "branches drop", std::slice::from_ref(&name), None);
            (branches::answer_drop(member.origin().node, &name), Some(running))
        }
        Question::Settings { version, node } => {
            (Reply::At(document::answer_show(&member.documents(), version, node)), None)
        }
        Question::SettingsHistory => {
            (Reply::At(document::answer_history(&member.documents())), None)
        }
        Question::ChangeSettings { base, text, who, here, words } => {
            let mut by = by();
            let who = by.operator(&who);
            // What was changed stands in the history, by its number.
            let mut words = words.into_iter();
            let command = words.next().unwrap_or_else(|| "config".into());
            let mut arguments: Vec<_> = words.collect();
            if let Some(base) = &base {
                arguments.push(format!("--of-version={}", base.version));
            }
            if here {
                arguments.push("--here".into());
            }
            let running = logs.action(by, &command, &arguments, None);
            (document::answer_change(member.documents(), base, text, &who, here), Some(running))
        }
        Question::ReadCertificates => {
            let running = logs.action(by(), "certs renew", &[], None);
            let keys = member.documents();
            let answer = match keys.keys(member.config()).and_then(Keys::reload) {
                Ok((certificate, key)) => Answer::CertificatesRead {
                    certificate: certificate.to_string(),
                    key: key.to_string(),
                },
                Err(error) => Answer::Refused(format!("{error:#}")),
            };
            (Reply::At(answer), Some(running))
        }
        Question::Check => (member.check(), None),
        Question::Drill { who, wait_ms } => {
            let mut by = by();
            let who = by.operator(&who);
            let running = logs.action(by, "drill", &[], None);
            (drill::begin(member, who, Duration::from_millis(wait_ms)), Some(running))
        }
        Question::OtherLogs(query) => (member.ask_across(Asked::Logs(query)), None),
        Question::OtherSupport => {
            let running = logs.action(by(), "snapshot", &["--of-the-other-node".into()], None);
            (member.ask_across(Asked::Support), Some(running))
        }
        Question::Act { wish, node, who, wait_ms } => {
            let mut by = by();
            let who = by.operator(&who);
            let mut arguments = wish.arguments();
            arguments.push(format!("--node={}", node.name()));
            let running = logs.action(by, wish.name(), &arguments, wish.reason());
            (member.act(wish, node, who, Duration::from_millis(wait_ms)), Some(running))
        }
    }
}
