//! The binary `duolog`: reads the command line and hands over. Nothing is decided here but the
//! exit code: 0 done, 1 failed, 2 the command line is wrong, 3 fenced,
//! 4 not done in time.

mod act;
mod actions;
mod addresses;
mod base;
mod bench;
mod branches;
mod cli;
mod config;
mod control;
mod demo;
mod guardian;
mod keygen;
mod link;
mod log;
mod logging;
mod member;
mod mounts;
mod notify;
mod pair;
mod plant;
mod processes;
mod resync;
mod run;
mod services;
mod setup;
mod shell;
mod standing;
mod status;
mod verify;
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
    match perform(cli.command, cli.log_json) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("duolog: {error:#}");
            ExitCode::FAILURE
        }
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
        Command::Status(options) => show_status(&options)?,
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
        Command::Checkers(options) => return act::run(&options.common, &options.wish()),
        Command::Maintenance(options) => return act::run(&options.common, &options.wish()),
        Command::Estimate(options) => resync::estimate(&options)?,
        Command::Verify(options) => return verify::run(&options),
        Command::Branches(options) => branches::run(&options)?,
        Command::Witness(options) => witness::run(&options)?,
        Command::Keygen(options) => keygen::run(&options)?,
        Command::Log(options) => return log::run(&options.verb).map(achieved),
        Command::Bench(what) => bench::run(&what)?,
        Command::Demo(options) => return demo::run(&options).map(achieved),
        Command::DemoWriter(options) => demo::write(&options)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show_status(options: &cli::Status) -> anyhow::Result<()> {
    let socket = socket(options.socket.as_deref(), options.config.as_deref())?;
    let status = control::status(&socket).map_err(|error| name_dead_mounts(options, error))?;
    if options.json {
        println!("{}", serde_json::to_string(&status)?);
    } else {
        print!("{}", status.table());
    }
    Ok(())
}

/// Where no node runs, what one left behind when all of its processes were killed at once.
fn name_dead_mounts(options: &cli::Status, error: control::AskError) -> anyhow::Error {
    let dead = match (&error, &options.config) {
        (control::AskError::NotRunning { .. }, Some(file)) => {
            Config::load(file).map(|config| mounts::dead(&config)).unwrap_or_default()
        }
        _ => Vec::new(),
    };
    let error = anyhow::Error::new(error);
    match dead.join(", ") {
        paths if paths.is_empty() => error,
        paths => anyhow::anyhow!(
            "{error:#}; a node that was killed left {paths} mounted, where everything fails now: \
             the start of the node takes that away, or umount -l does"
        ),
    }
}

/// Where the node that is meant listens.
fn socket(socket: Option<&Path>, config: Option<&Path>) -> anyhow::Result<PathBuf> {
    Ok(match (socket, config) {
        (Some(socket), _) => socket.to_owned(),
        (None, Some(file)) => Config::load(file)?.control_socket,
        (None, None) => PathBuf::from(control::DEFAULT_SOCKET),
    })
}
