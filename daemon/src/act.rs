//! `duolog start`, `stop`, `swap` and the like: asks before, follows, and says what came of it.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::actions::{Outcome, Target, WHO_MAX, Wish};
use crate::cli::ActOn;
use crate::control::{self, Answer, Question};
use crate::status::{State, Status};

/// Exit code of an action that was begun and is not done.
const NOT_DONE: u8 = 4;

/// Asks the node on this computer to have it done.
pub(crate) fn run(options: &ActOn, wish: &Wish) -> anyhow::Result<ExitCode> {
    let follow = &options.follow;
    let socket = crate::socket(follow.socket.as_deref(), follow.config.as_deref())?;
    if !follow.yes && !confirmed(wish, options.node, &socket)? {
        eprintln!("nothing was done");
        return Ok(ExitCode::FAILURE);
    }
    let question = Question::Act {
        wish: wish.clone(),
        node: options.node,
        who: who(),
        wait_ms: follow.wait * 1000,
    };
    let on_way = &mut |answer: &Answer| {
        if let Answer::Step(step) = answer {
            eprintln!("node{}: {}: {}", step.node, step.standing.state, step.standing.sentence);
        }
    };
    let answer = control::ask(&socket, &question, on_way)
        .with_context(|| format!("{} was not done", wish.name()))?;
    let Answer::Acted { outcomes } = answer else {
        bail!("the node answered another question; use the duolog that it runs with");
    };
    if follow.json {
        println!("{}", serde_json::to_string(&outcomes)?);
    } else {
        for outcome in &outcomes {
            println!("{}", told(outcome, wish));
        }
    }
    let done = outcomes.iter().all(|outcome| outcome.done);
    Ok(if done { ExitCode::SUCCESS } else { ExitCode::from(NOT_DONE) })
}

fn told(outcome: &Outcome, wish: &Wish) -> String {
    let Outcome { node, done, standing } = outcome;
    let stands = format!("{}: {}", standing.state, standing.sentence);
    if *done {
        format!("node{node}: {} done; {stands}", wish.name())
    } else {
        format!("node{node}: {} begun and not done yet; {stands}; see duolog status", wish.name())
    }
}

/// Whether the operator means it. What takes nothing away is not asked about.
fn confirmed(wish: &Wish, target: Target, socket: &Path) -> anyhow::Result<bool> {
    if matches!(
        wish,
        Wish::Start { .. }
            | Wish::Failover { .. }
            | Wish::Maintenance { .. }
            | Wish::StartAtBoot { .. }
            | Wish::AutoRejoin { .. }
            | Wish::ErrorDetection { .. }
            | Wish::Checkers { .. }
    ) {
        return Ok(true);
    }
    let status =
        control::status(socket).with_context(|| format!("{} was not done", wish.name()))?;
    let warning = warning(wish, target, &status);
    if !io::stdin().is_terminal() {
        bail!(
            "{} was not done: {warning}; there is no terminal to ask whether that is meant: add \
             --yes",
            wish.name()
        );
    }
    eprint!("{warning}\nGo on? [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// What an action takes away.
fn warning(wish: &Wish, target: Target, status: &Status) -> String {
    let here = format!("node{} is {}: {}", status.node, status.state, status.sentence);
    let (one, other) = (status.node, 3 - status.node);
    let asked = match target {
        Target::Here => format!("node{one}"),
        Target::Other => format!("node{other}"),
        Target::Both => "both nodes".into(),
    };
    let serves = matches!(status.state, State::Prim | State::Alone);
    let takes = match (wish, target) {
        (Wish::Stop, Target::Both) => "nobody serves then".to_owned(),
        (Wish::Stop, _) => format!(
            "{asked} stops; if it serves, its services end, and the other node takes over if it \
             is up to date, else nobody serves"
        ),
        (Wish::Restart, _) => format!("services of {asked} end and are started again"),
        (Wish::Swap, _) => {
            let to = if serves { other } else { one };
            format!("services end and start on node{to}; clients lose their connections once")
        }
        (Wish::SwapWithoutSync { .. }, _) => {
            let (from, to) = if serves { (one, other) } else { (other, one) };
            format!(
                "node{to} serves with what it has; what it lacks stays behind on node{from} as a \
                 branch and is not in the database any more"
            )
        }
        (Wish::ForceStart { .. }, _) => format!(
            "{asked} serves with what it has, whatever the other node did or does: if that one \
             still serves, there are two databases, and one of them will be left behind as a \
             branch"
        ),
        (Wish::KeepWrites { .. }, _) => {
            format!("the writes of {asked} stay; those of the other node are kept as a branch")
        }
        _ => String::new(),
    };
    format!("{here}\n{takes}")
}

/// The operator, for the record.
pub(crate) fn who() -> String {
    let name = ["SUDO_USER", "LOGNAME", "USER"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|name| !name.is_empty() && !name.chars().any(char::is_control));
    let mut who = name.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    who.truncate(who.floor_char_boundary(WHO_MAX));
    who
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::prim;

    fn status(state: State) -> Status {
        Status { state, ..prim() }
    }

    #[test]
    fn a_warning_names_the_node_that_is_left_behind() {
        let wish = Wish::SwapWithoutSync { reason: "fire".into() };
        let text = warning(&wish, Target::Here, &status(State::Prim));
        assert!(text.contains("node2 serves with") && text.contains("behind on node1"), "{text}");
        let text = warning(&wish, Target::Here, &status(State::Second));
        assert!(text.contains("node1 serves with") && text.contains("behind on node2"), "{text}");
        let text = warning(&Wish::Stop, Target::Both, &status(State::Prim));
        assert!(text.ends_with("nobody serves then"), "{text}");
        assert!(text.starts_with("node1 is PRIM: every commit"), "{text}");
    }
}
