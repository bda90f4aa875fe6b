//! The binary `duolog`: reads the command line and hands over. Nothing is decided here but the
//! exit code; `docs/cli.md` lists them.

// Before all others: they print by its macros.
#[macro_use]
mod print;

mod across;
mod act;
mod actions;
mod addresses;
mod alarms;
mod base;
mod bench;
mod branches;
mod certs;
mod check;
mod cli;
mod config;
mod control;
mod demo;
mod document;
mod drill;
mod dump;
mod guardian;
mod keygen;
mod link;
mod log;
mod logging;
mod logs;
mod manual;
mod member;
mod metrics;
mod mounts;
mod notify;
mod pair;
mod plant;
mod processes;
mod questions;
mod resync;
mod run;
mod services;
mod setup;
mod shell;
mod slice;
mod standing;
mod status;
mod users;
mod verify;
mod watch;
mod web;
mod witness;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use actions::Wish;
use cli::{Cli, Command};
use config::Config;

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::begin(cli.log_json);
    let code = perform(cli.command, cli.log_json).unwrap_or_else(|error| {
        eprintln!("duolog: {error:#}");
        ExitCode::FAILURE
    });
    match print::ended() {
        Err(error) if code == ExitCode::SUCCESS => {
            eprintln!("duolog: it is done, and what it says could not be printed: {error}");
            ExitCode::FAILURE
        }
        _ => code,
    }
}

/// The exit code; an error says why what was asked for was not achieved, and what to do.
fn perform(command: Command, log_json: bool) -> anyhow::Result<ExitCode> {
    let achieved = |all| if all { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    match command {
        Command::Run(options) => return run::run(&options, log_json),
        Command::Init(options) => setup::init(&options)?,
        Command::Join(options) => setup::join(&options)?,
        Command::Adopt(options) => setup::adopt(&options)?,
        Command::Leave(options) => setup::leave(&options)?,
        Command::Status(options) => watch::status(&options)?,
        Command::Check(options) => return check::run(&options),
        Command::Drill(options) => return drill::show(&options),
        Command::Logs(options) => logs::show(&options)?,
        Command::Dump(options) => dump::dump(&options)?,
        Command::Snapshot(options) => dump::snapshot(&options)?,
        Command::Receipts(options) => pair::show_receipts(&options)?,
        Command::Start(options) => return act::run(&options.common, &options.wish()),
        Command::Stop(options) => return act::run(&options, &Wish::Stop),
        Command::Restart(options) => return act::run(&options, &Wish::Restart),
        Command::Swap(options) => return act::run(&options.common(), &options.wish()),
        Command::ForceStart(options) => return act::run(&options.common(), &options.wish()),
        Command::SplitBrain(options) => return act::run(&options.common(), &options.wish()),
        Command::Failover(options) => {
            return act::run(&options.common, &Wish::Failover { on: options.on() });
        }
        Command::StartAtBoot(options) => {
            return act::run(&options.common, &Wish::StartAtBoot { on: options.on() });
        }
        Command::AutoRejoin(options) => {
            return act::run(&options.common, &Wish::AutoRejoin { on: options.on() });
        }
        Command::ErrorDetection(options) => return act::run(&options.common, &options.wish()),
        Command::Checkers(options) => return act::run(&options.common, &options.wish()),
        Command::Maintenance(options) => return act::run(&options.common, &options.wish()),
        Command::Estimate(options) => resync::estimate(&options)?,
        Command::Verify(options) => return verify::run(&options),
        Command::Branches(options) => branches::run(&options)?,
        Command::Witness(options) => witness::run(&options)?,
        Command::Keygen(options) => keygen::run(&options)?,
        Command::Users(options) => return users::run(&options.verb),
        Command::Metrics(options) => metrics::run(&options.verb)?,
        Command::Certs(options) => return certs::run(&options.verb),
        Command::Config(options) => return document::run(&options.verb),
        Command::Log(options) => return log::run(&options.verb).map(achieved),
        Command::Bench(what) => bench::run(&what)?,
        Command::Demo(options) => return demo::run(&options).map(achieved),
        Command::Completions { shell } => manual::completions(shell)?,
        Command::Man { dir } => manual::pages(&dir)?,
        Command::LetGo(options) => {
            let result = std::env::var("SERVICE_RESULT").ok();
            guardian::let_go(&options.config, result.as_deref())?;
        }
        Command::DemoWriter(options) => demo::write(&options)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the node that is meant listens.
fn socket(socket: Option<&Path>, config: Option<&Path>) -> anyhow::Result<PathBuf> {
    Ok(match (socket, config) {
        (Some(socket), _) => socket.to_owned(),
        (None, Some(file)) => Config::load_own(file)?.control_socket,
        (None, None) => PathBuf::from(control::DEFAULT_SOCKET),
    })
}
