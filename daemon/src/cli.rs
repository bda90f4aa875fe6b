//! The command line: what can be asked of `duolog`, and nothing of how it is done.

mod actions;
mod certs;
mod check;
mod config;
mod dump;
mod log;
mod logs;
mod metrics;
pub(crate) mod setup;
mod users;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use actions::{
    ActOn, Checkers, ErrorDetection, ForceStart, Listing, Maintenance, Setting, SplitBrain, Start,
    Swap,
};
pub(crate) use certs::{Certs, CertsVerb, RenewCertificate, RevokeCertificate, UserCertificate};
pub(crate) use check::{Check, Drill};
pub(crate) use config::{AskNode, CheckFile, EditSettings, Making, Settings, SettingsVerb, Wanted};
pub(crate) use dump::{Dump, Snapshot};
pub(crate) use log::{Base, Export, Log, LogVerb, Ls, Print, Replay, Verify};
pub(crate) use logs::{Logs, WhichNode};
pub(crate) use metrics::{Metrics, MetricsVerb, Token};
pub(crate) use setup::{Init, Join, Leave};
pub(crate) use users::{Users, UsersVerb};
/// Bytes that one record of the log takes for sure.
const WRITE_BYTES_MAX: i64 = 512 << 10;

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 failed, the reason and what to do are on standard error; 2 the command line
is wrong; 3 (run) this node died or could not stop in time, and all that it served was ended;
4 (actions) begun, and not done within --wait.
DUOLOG_LOG sets what is logged on standard error, for instance DUOLOG_LOG=debug or
DUOLOG_LOG=info,duolog_transport=debug.";

/// Keeps a SQL server running through the loss of a computer, without losing a commit.
#[derive(Debug, Parser)]
#[command(name = "duolog", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Log lines as JSON, one object each.
    #[arg(long, global = true)]
    pub log_json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Prepare a pair on its first computer, and wait for the second one with a one-time code.
    Init(Init),
    /// Make this computer the second one of a pair, with the code that init printed.
    Join(Join),
    /// Run this node until SIGTERM or SIGINT stops it cleanly; a second signal ends it at once.
    Run(Run),
    /// Show how the node on this computer stands.
    Status(Status),
    /// Check whether two computers are fit to be a pair, and whether what runs is as it should be.
    Check(Check),
    /// Prove the pair: swap there and back while the services are asked, and see where they run.
    Drill(Drill),
    /// Show what the node and its services said, and who had what done. The node need not run.
    Logs(Logs),
    /// Keep how this node stands now, for its makers: logs, state, configuration, processes.
    Dump(Dump),
    /// Make one ZIP of a new dump, the last dumps and the last configurations.
    Snapshot(Snapshot),
    /// List the failovers of this node: why, who decided, what was known, how long each step took.
    Receipts(Receipts),
    /// Have a node go to work: serve, or follow the one that serves.
    Start(Start),
    /// Have a node stop serving and take part in nothing; the other one takes over at once.
    Stop(ActOn),
    /// Stop a node and start it again: its services, where it serves.
    Restart(ActOn),
    /// Give the primary's part to the other node; everything is on both before and after.
    Swap(Swap),
    /// Have a node serve whatever the others say. Expert: what it lacks is left behind.
    ForceStart(ForceStart),
    /// Settle a split brain that waits for a decision: whose writes stay in service.
    SplitBrain(SplitBrain),
    /// Automatic takeover on or off.
    Failover(Setting),
    /// Whether a node goes to work when its process starts.
    StartAtBoot(Setting),
    /// Whether a node follows by itself after the other one took over from it.
    AutoRejoin(Setting),
    /// No automatic takeover for a while.
    Maintenance(Maintenance),
    /// Suspend or resume the error detection of services at a node: what fails is not acted upon, whoever finds it.
    ErrorDetection(ErrorDetection),
    /// Stop or start all checkers of services at a node: none looks, and only the end of a process counts.
    Checkers(Checkers),
    /// Compare both copies while the pair serves: asked of the primary. Exit code 0: they are equal.
    Verify(VerifyCopies),
    /// List the writes that were cut off this node's log and kept, or drop some of them for good.
    Branches(Branches),
    /// What a resynchronisation of the other node would come to now: bytes and seconds. Asks the
    /// node that serves.
    Estimate(Listing),
    /// Run a witness until SIGTERM or SIGINT: the third voice of many pairs, on one UDP port.
    Witness(OfWitness),
    /// Make a node's certificate and key, the id of a new pair, or the key that its nodes share.
    Keygen(Keygen),
    /// Make the configured directories replicated ones; nothing may have a file in them open.
    Adopt(Adopt),
    /// Turn the replicated directories back into plain ones; the node must not run.
    Leave(Leave),
    /// Look at the log, and recover from it: on segments alone, beside a node or without one.
    Log(Log),
    /// Show, change and check the settings of the pair, which are equal on both nodes.
    Config(Settings),
    /// Who may use the console, and what each may do; equal on both nodes.
    Users(Users),
    /// Who may read what a node measures, over HTTPS at /metrics.
    Metrics(Metrics),
    /// Show, renew and revoke certificates, of a node and of users.
    Certs(Certs),
    /// Show that no commit is lost: two nodes on this computer, one of them killed under load.
    Demo(Demo),
    /// Measure what this computer can do: a directory (plain or mounted), the log, the link.
    #[command(subcommand)]
    Bench(Bench),
    /// Print what a shell needs to complete duolog's command lines.
    Completions {
        /// Which shell.
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write the manual pages, one for each command.
    #[command(hide = true)]
    Man {
        /// Where to; made if it is not there.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Take away what a node left here that was killed with its guardian: for the units, after it.
    #[command(hide = true)]
    LetGo(OfConfig),
    /// The demo's writer, a process of its own because the kill takes its directory away.
    #[command(hide = true)]
    DemoWriter(DemoWriter),
}

/// The shells whose command lines can be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// bash, with its package bash-completion.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

/// A node, by its configuration.
#[derive(Args, Debug)]
pub(crate) struct OfConfig {
    /// The node's configuration (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// `duolog witness`.
#[derive(Args, Debug)]
pub(crate) struct OfWitness {
    /// The witness's configuration (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// `duolog branches`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Branches {
    /// What to do; without it they are listed.
    #[command(subcommand)]
    pub verb: Option<BranchesVerb>,
    /// Which node; it need not run.
    #[command(flatten)]
    pub listing: Option<Listing>,
}

/// What can be done with branches.
#[derive(Debug, Subcommand)]
pub(crate) enum BranchesVerb {
    /// Throw away what a branch holds; refused while it is needed. The node may run or not.
    Drop(DropBranch),
}

/// `duolog branches drop`.
#[derive(Args, Debug)]
pub(crate) struct DropBranch {
    /// Its name, as `duolog branches` shows it.
    pub name: String,
    /// Which node.
    #[command(flatten)]
    pub node: OfConfig,
    /// It is meant: what the branch holds is gone afterwards.
    #[arg(long)]
    pub yes: bool,
}

/// `duolog run`.
#[derive(Args, Debug)]
pub(crate) struct Run {
    /// Which node.
    #[command(flatten)]
    pub node: OfConfig,
    /// Stop cleanly when the process that started this one ends.
    #[arg(long, hide = true)]
    pub with_parent: bool,
    /// As the child of a guardian, which gave its socket as standard input.
    #[arg(long, hide = true, conflicts_with = "with_parent")]
    pub guarded: bool,
}

/// `duolog status`.
#[derive(Args, Debug)]
pub(crate) struct Status {
    /// As one line of JSON.
    #[arg(long)]
    pub json: bool,
    /// Again and again until it is interrupted, also while the node does not run.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub watch: Option<u64>,
    /// Where the node listens [default: /run/duolog/1.sock].
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    pub socket: Option<PathBuf>,
    /// The node's configuration, which names its socket.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `duolog verify`.
#[derive(Args, Debug)]
pub(crate) struct VerifyCopies {
    /// Make what differs equal to what the primary has, by writing it once more.
    #[arg(long)]
    pub repair: bool,
    /// Most bytes to hash each second, on each node; 0: as fast as it goes.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub bytes_per_s: u64,
    /// As one line of JSON.
    #[arg(long)]
    pub json: bool,
    /// Where the node listens [default: /run/duolog/1.sock].
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    pub socket: Option<PathBuf>,
    /// The node's configuration, which names its socket.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `duolog receipts`.
#[derive(Args, Debug)]
pub(crate) struct Receipts {
    /// Which node; it need not run.
    #[command(flatten)]
    pub node: OfConfig,
    /// As JSON, one line each.
    #[arg(long)]
    pub json: bool,
}

/// `duolog keygen`.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub(crate) struct Keygen {
    /// Directory for NAME.crt and NAME.key, which must not exist yet.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Name in the certificate and of its files.
    #[arg(long, default_value = "node", requires = "out")]
    pub name: String,
    /// Print the id of a new pair.
    #[arg(long)]
    pub cluster: bool,
    /// A new file for a key that two share: both nodes, or one node and the witness; copy it there.
    #[arg(long, value_name = "FILE")]
    pub pair_key: Option<PathBuf>,
}

/// `duolog adopt`.
#[derive(Args, Debug)]
pub(crate) struct Adopt {
    /// Which node.
    #[command(flatten)]
    pub node: OfConfig,
    /// Adopt copies of a base (see `duolog log base`) as the beginning of this node's log.
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
}

/// The engines that the demo can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// `SQLite`, inside of duolog: nothing to install.
    Sqlite,
    /// `PostgreSQL`, as installed on this computer.
    Postgresql,
}

/// When the demo kills node1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KillAfter {
    /// At a random moment, after the least number of commits.
    Random,
    /// Once so many commits were acknowledged.
    Rows(u64),
}

/// `duolog demo`.
#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// The SQL engine that writes.
    #[arg(long, value_enum, default_value = "sqlite")]
    pub engine: Engine,
    /// End with one line of JSON; everything else goes to standard error.
    #[arg(long)]
    pub json: bool,
    /// How long the writers write at most, unless 500 commits need longer.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// When node1 is killed: after ROWS acknowledged commits (at least 500), or at random.
    #[arg(long, value_name = "ROWS|random", default_value = "random", value_parser = kill_after)]
    pub kill_after: KillAfter,
    /// For the rows and the random moment [default: another one each time].
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How many writers commit at the same time [default: 1 (sqlite), 4 (postgresql)].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub writers: Option<u16>,
    /// Where the demo makes its directory [default: TMPDIR].
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the pair running at the end, to look at, for so many minutes [default: 60]; if anything
    /// fails, the directory stays. On a terminal it runs for 15 minutes, or until Enter, in any case.
    #[arg(long, value_name = "MINUTES", num_args = 0..=1, require_equals = true, default_missing_value = "60", value_parser = clap::value_parser!(u64).range(1..=1440))]
    pub keep: Option<u64>,
}

/// `duolog bench`: what is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Write blocks over a file and fsync, in any directory; over a mount, what a server sees.
    Mount(BenchMount),
    /// Append blocks to a log and sync it, without a mount and without a second node.
    Log(BenchLog),
    /// Ship blocks over loopback and wait until they are acknowledged, without a disk.
    Link(BenchLink),
    /// Where the time of a commit goes: both nodes of a pair on this computer, and a table of stages.
    Anatomy(BenchAnatomy),
}

/// How much a benchmark does.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct BenchLoad {
    /// Bytes of one operation.
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(8..=WRITE_BYTES_MAX))]
    pub block_bytes: u32,
    /// How many threads work at the same time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub threads: u16,
    /// For how long.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// As one line of JSON.
    #[arg(long)]
    pub json: bool,
}

/// When a benchmark syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FsyncEach {
    /// Not at all.
    Never,
    /// After so many writes, at least one.
    Writes(u64),
}

/// `duolog bench mount`.
#[derive(Args, Clone, Debug)]
pub(crate) struct BenchMount {
    /// The directory; its file system must have room for 16 MiB a thread.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Sync after each write, never, or after N writes.
    #[arg(long, value_name = "each|never|N", default_value = "each", value_parser = fsync_each)]
    pub fsync: FsyncEach,
    /// Sync with fdatasync, as SQL servers do, instead of fsync.
    #[arg(long)]
    pub data_only: bool,
    /// Open the file for each write and close it after, as a program does that is started anew.
    #[arg(long)]
    pub reopen: bool,
    /// How much.
    #[command(flatten)]
    pub load: BenchLoad,
}

/// `duolog bench log`.
#[derive(Args, Clone, Debug)]
pub(crate) struct BenchLog {
    /// A directory with room for 300 MiB.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Sync after each append, never (but for what piles up), or after N appends.
    #[arg(long, value_name = "each|never|N", default_value = "each", value_parser = fsync_each)]
    pub fsync: FsyncEach,
    /// How much.
    #[command(flatten)]
    pub load: BenchLoad,
}

/// `duolog bench anatomy`.
#[derive(Args, Clone, Debug)]
pub(crate) struct BenchAnatomy {
    /// A directory with room for 1 GiB, on the disk that is to be measured; both nodes are made in it,
    /// and removed.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Also what measuring costs: with and without it in turns, so many times for a second each.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=100))]
    pub cost: u16,
    /// How much.
    #[command(flatten)]
    pub load: BenchLoad,
}

/// When the link compresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LinkCompression {
    /// Never.
    Off,
    /// When the link is behind.
    Adaptive,
    /// Always.
    Always,
}

/// `duolog bench link`.
#[derive(Args, Clone, Debug)]
pub(crate) struct BenchLink {
    /// When blocks are compressed.
    #[arg(long, value_enum, default_value = "adaptive")]
    pub compression: LinkCompression,
    /// Largest UDP payload, in bytes.
    #[arg(long, value_name = "N", default_value_t = 1452, value_parser = clap::value_parser!(u16).range(1200..=6500))]
    pub mtu_bytes: u16,
    /// How much.
    #[command(flatten)]
    pub load: BenchLoad,
}

impl FsyncEach {
    /// Whether to sync after the write with that number, the first being 1.
    pub(crate) const fn due(self, number: u64) -> bool {
        match self {
            Self::Never => false,
            Self::Writes(count) => number.is_multiple_of(count),
        }
    }
}

fn fsync_each(text: &str) -> Result<FsyncEach, String> {
    match (text, text.parse()) {
        ("each", _) => Ok(FsyncEach::Writes(1)),
        ("never", _) => Ok(FsyncEach::Never),
        (_, Ok(count)) if count > 0 => Ok(FsyncEach::Writes(count)),
        _ => Err("write \"each\", \"never\" or a number from 1".into()),
    }
}

/// `duolog demo-writer`.
#[derive(Args, Debug)]
pub(crate) struct DemoWriter {
    /// The SQL engine.
    #[arg(long, value_enum)]
    pub engine: Engine,
    /// `SQLite`: the database file. `PostgreSQL`: the directory of the server's socket.
    #[arg(long)]
    pub target: PathBuf,
    /// Where every acknowledged commit is written down.
    #[arg(long)]
    pub journal: PathBuf,
    /// For the rows.
    #[arg(long)]
    pub seed: u64,
    /// How many threads commit.
    #[arg(long)]
    pub writers: u16,
}

fn kill_after(text: &str) -> Result<KillAfter, String> {
    if text == "random" {
        return Ok(KillAfter::Random);
    }
    match text.parse() {
        Ok(rows) if rows >= crate::demo::LEAST_COMMITS => Ok(KillAfter::Rows(rows)),
        _ => Err(format!("write \"random\" or a number from {}", crate::demo::LEAST_COMMITS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    /// Every command that a reader is told to type is one.
    #[test]
    fn commands_in_the_documents_are_commands() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut documents = vec![root.join("README.md")];
        for folder in ["docs", "docs/operate"] {
            let files =
                std::fs::read_dir(root.join(folder)).unwrap().map(|file| file.unwrap().path());
            documents.extend(files.filter(|file| file.extension().is_some_and(|end| end == "md")));
        }
        let mut seen = 0;
        for document in documents {
            let text = std::fs::read_to_string(&document).unwrap();
            let blocks =
                text.split("```").skip(1).step_by(2).filter(|block| block.starts_with("sh"));
            let lines = blocks.flat_map(str::lines).map(|line| line.split('#').next().unwrap());
            let code = crate::setup::a_code();
            for line in lines.filter(|line| line.starts_with("duolog ")) {
                let line = &line.replace("CODE@", &format!("{code}@"));
                // What is in quotes is one word.
                let words = line.split('\'').enumerate().flat_map(|(at, part)| match at % 2 {
                    1 => vec![part],
                    _ => part.split_whitespace().collect(),
                });
                let parsed = Cli::try_parse_from(words);
                assert!(parsed.is_ok(), "{}: {line}\n{}", document.display(), parsed.unwrap_err());
                seen += 1;
            }
        }
        assert!(seen > 20, "{seen} commands");
    }

    /// What can be asked for, and what comes back, is in one document.
    #[test]
    fn the_document_of_the_command_line_has_every_command_and_every_exit_code() {
        use clap::CommandFactory;
        let document = include_str!("../../docs/cli.md");
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = format!("`{}`", command.get_name());
            let row = |line: &&str| line.starts_with("| ") && line.contains(&name);
            assert!(document.lines().any(|line| row(&line)), "{name} is not in docs/cli.md");
        }
        for code in 0..=4 {
            assert!(document.contains(&format!("\n| {code} | ")), "{code} is not in docs/cli.md");
            assert!(EXIT_CODES.contains(&format!("{code} ")), "{code} is not in --help");
        }
    }

    #[test]
    fn the_demo_never_kills_before_it_has_its_least_number_of_commits() {
        assert_eq!(kill_after("500"), Ok(KillAfter::Rows(500)));
        assert_eq!(kill_after("random"), Ok(KillAfter::Random));
        assert!(kill_after("499").is_err());
    }
}
