//! The command: asks before, and says what came of it.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::{Drilled, Leg};
use crate::act;
use crate::cli;
use crate::control::{self, Answer, Question};

/// Has a drill done. The exit code says whether it passed.
pub(crate) fn run(options: &cli::Drill) -> anyhow::Result<ExitCode> {
    let socket = crate::socket(options.socket.as_deref(), options.config.as_deref())?;
    let status = control::status(&socket).context("no drill was done")?;
    let warning = format!(
        "node{} is {}: {}\nservices end and start on the other node, and then back; clients lose their \
         connections twice",
        status.node, status.state, status.sentence
    );
    if !options.yes {
        if !io::stdin().is_terminal() {
            bail!("no drill was done: {warning}; there is no terminal to ask on: add --yes");
        }
        eprint!("{warning}\nGo on? [y/N] ");
        io::stderr().flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            eprintln!("nothing was done");
            return Ok(ExitCode::FAILURE);
        }
    }
    let mut on_way = |answer: &Answer| {
        if let Answer::Leg(leg) = answer {
            eprintln!("node{} to node{}: done in {} ms", leg.from, leg.to, leg.ms);
        }
    };
    let question = Question::Drill { who: act::who(), wait_ms: options.wait * 1000 };
    let told = control::ask(&socket, &question, &mut on_way).context("no drill was done")?;
    let Answer::Drilled(drilled) = told else {
        bail!("the node answered another question; use the duolog that it runs with");
    };
    if options.json {
        println!("{}", serde_json::to_string(&drilled)?);
    } else {
        print!("{}", table(&drilled));
    }
    Ok(if drilled.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// For people. Ends with a line feed.
fn table(drilled: &Drilled) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    let mut row = |name: &str, text: String| {
        // Writing to a String does not fail.
        writeln!(out, "{name:<22} {text}").ok();
    };
    row("Services asked by", drilled.probe.clone());
    for Leg { from, to, ms, silent_ms, steps } in &drilled.legs {
        let silent = silent_ms.map(|ms| format!(", services silent for {ms} ms"));
        let silent = silent.unwrap_or_default();
        row(&format!("Swap node{from} to node{to}"), format!("{ms} ms{silent}"));
        for step in steps {
            let text = format!(
                "{:>7} ms  node{} {}: {}",
                step.at_ms, step.node, step.state, step.sentence
            );
            row("", text);
        }
    }
    if drilled.failures.is_empty() {
        row("Services", format!("only on the node that serves, in {} looks", drilled.looks));
    }
    for failure in &drilled.failures {
        row("FAILED", failure.clone());
    }
    let now =
        drilled.ends_on.map_or_else(|| "nobody serves".into(), |node| format!("node{node} serves"));
    row("Began on, ends on", format!("node{}, {now}", drilled.began_on));
    row("Result", if drilled.passed { "passed" } else { "FAILED" }.into());
    out
}
