//! Computers on which a pair is set up by the commands of docs/operate/install.md and no others, with
//! `PostgreSQL` as Debian sets it up.
//!
//! Each has `/etc`, `/var/lib`, `/var/log` and `/run` of its own; the first three outlive a
//! [`Computer::kill`], as disks do. What is typed is [`LINES`], each of which stands in the document,
//! addresses aside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Host, Lan, Segment, VIRTUAL_IP, Who, address};
use crate::node::{Status, binary};
use crate::process::{Process, run, try_run};
use crate::wait;

/// How long anything that is waited for may take.
pub const LIMIT: Duration = Duration::from_mins(3);

const INIT: &str = "duolog init --name shop --dir /var/lib/postgresql/15/main --address 10.0.0.1 \
    --witness 10.0.0.3:7432 --virtual-ip 10.0.0.100/24";
const JOIN: &str = "duolog join CODE@10.0.0.1:7433 --address 10.0.0.2";
const APPEND: &str = "cat /etc/duolog/witness-pair.toml >> /etc/duolog/witness.toml";
/// Starts the witness.
pub const WITNESS: &str = "duolog witness --config /etc/duolog/witness.toml";
const ADOPT: &str = "duolog adopt --config /etc/duolog/duolog.toml";
/// Starts a node.
pub const RUN: &str = "duolog run --config /etc/duolog/duolog.toml";
const STATUS: &str = "duolog status --config /etc/duolog/duolog.toml";
/// Has a node that says STOP go on.
pub const START: &str = "duolog start";
/// All that is typed.
pub const LINES: [&str; 8] = [INIT, JOIN, APPEND, WITNESS, ADOPT, RUN, STATUS, START];
/// Where what a computer keeps is mounted.
const PLACES: [(&str, &str); 3] = [("etc", "/etc"), ("lib", "/var/lib"), ("log", "/var/log")];

/// See the module.
#[derive(Debug)]
pub struct Computer {
    who: Who,
    home: PathBuf,
    host: Host,
}

impl Computer {
    /// One that is on, with nothing of Duolog on it.
    pub fn new(scratch: &Path, who: Who, lan: &Lan) -> Self {
        let home = scratch.join(who.name());
        for (own, _) in PLACES {
            fs::create_dir_all(home.join(own)).unwrap();
        }
        let mut copy = Command::new("cp");
        copy.args(["-a", "/etc/."]).arg(home.join("etc"));
        run(copy, LIMIT);
        let mut computer = Self { who, host: Host::new(who, &home), home };
        computer.boot(lan);
        computer.shell("mkdir -p /etc/duolog && rm -rf /etc/postgresql");
        computer
    }

    /// Switches it on; nothing runs on it then.
    pub fn boot(&mut self, lan: &Lan) {
        self.host.boot(lan);
        for (own, place) in PLACES {
            let own = self.home.join(own);
            self.shell(&format!("mount --bind '{}' {place}", own.display()));
        }
        self.shell(
            "mount -t tmpfs run /run\n\
             mkdir /run/postgresql\n\
             chown postgres:postgres /run/postgresql",
        );
    }

    /// Kills everything on it, as a power cut does; its disks stay.
    pub fn kill(&mut self) {
        self.host.kill();
        self.host.wait_off();
    }

    /// Its host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Where this machine finds its `/etc/duolog`, on or off.
    pub fn etc(&self) -> PathBuf {
        self.home.join("etc/duolog")
    }

    /// A line of a shell on it.
    pub fn shell(&self, line: &str) -> String {
        let mut command = self.host.command("sh");
        command.args(["-e", "-c", line]);
        run(command, LIMIT)
    }

    /// A line of the document on it.
    pub fn line(&self, line: &str, code: &str) -> Command {
        assert!(LINES.contains(&line), "{line} is not in the list");
        let line = line
            .replace("10.0.0.100", VIRTUAL_IP)
            .replace("10.0.0.1", &address(Who::Node1, Segment::A))
            .replace("10.0.0.2", &address(Who::Node2, Segment::A))
            .replace("10.0.0.3", &address(Who::Witness, Segment::W))
            .replace("CODE@", &format!("{code}@"));
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some("duolog"), "{line}");
        let mut command = self.host.command(binary());
        command.args(words).stdin(Stdio::null());
        command
    }

    /// Starts what goes on in the foreground, as its unit would: again when it was fenced.
    pub fn start(&self, line: &str) -> Process {
        let words = self.line(line, "");
        let mut command = self.host.command("sh");
        let again = "while :; do \"$@\"; code=$?; [ $code = 0 ] && exit; sleep 1; done";
        let binary = binary();
        let own = words.get_args().skip_while(|word| *word != binary.as_os_str());
        command.args(["-c", again, "sh"]).args(own);
        Process::start(line, command, &self.home.join("said"))
    }

    /// `PostgreSQL` as Debian's package makes one, for clients on the network.
    pub fn install_postgresql(&self) {
        self.shell(
            "mkdir -p /var/lib/postgresql /var/log/postgresql\n\
             chown postgres:postgres /var/lib/postgresql /var/log/postgresql\n\
             pg_createcluster 15 main >/dev/null\n\
             cd /etc/postgresql/15/main\n\
             echo \"listen_addresses = '*'\" >> postgresql.conf\n\
             echo 'host all all 0.0.0.0/0 trust' >> pg_hba.conf",
        );
    }

    /// How the node on it stands, if it answers.
    pub fn status(&self) -> Option<Status> {
        let mut command = self.line(STATUS, "");
        command.arg("--json");
        let (status, said) = try_run(command, LIMIT);
        let json = said.lines().find(|line| line.starts_with('{'))?;
        status.success().then(|| serde_json::from_str(json).unwrap())
    }

    /// The same and what it said last, for people.
    pub fn stands(&self) -> String {
        let said = fs::read_to_string(self.home.join("said")).unwrap_or_default();
        let lines: Vec<_> = said.lines().collect();
        let end = lines[lines.len().saturating_sub(40)..].join("\n");
        format!("{:?}: {:?}\n{end}", self.who, self.status())
    }

    /// Whether the node is that, up to date.
    pub fn is(&self, state: &str) -> bool {
        self.status().is_some_and(|it| it.state == state && it.data_sync == "uptodate")
    }
}

/// Sets the pair up as install.md says, in its order; `done` is told each part. `PostgreSQL` runs on
/// the first computer before and, as a service of the pair, afterwards. `options` are further ones of
/// `duolog init`. Returns the witness, node2 and node1, as they run.
///
/// # Panics
/// When it does not come to that.
pub fn set_up(
    [one, two, third]: [&Computer; 3],
    options: &[&str],
    mut done: impl FnMut(&str),
) -> [Process; 3] {
    let said = one.home.join("init.said");
    let mut init = one.line(INIT, "");
    init.args(options);
    let mut init = Process::start("duolog init", init, &said);
    let code = wait::until("a code", LIMIT, || {
        init.assert_runs();
        let said = fs::read_to_string(&said).unwrap();
        let line = said.lines().find_map(|line| line.trim().strip_prefix("duolog join "))?;
        Some(line.split('@').next()?.to_owned())
    });
    run(two.line(JOIN, &code), LIMIT);
    let ended = wait::until("the end of init", LIMIT, || init.ended());
    assert!(ended.success(), "{}", init.said());
    done("set up: duolog init, duolog join");

    for name in ["shop-node1.key", "shop-node2.key", "witness-pair.toml"] {
        let from = one.home.join("etc/duolog").join(name);
        fs::copy(from, third.home.join("etc/duolog").join(name)).unwrap();
    }
    third.shell("echo 'state_dir = \"/var/lib/duolog-witness\"' > /etc/duolog/witness.toml");
    third.shell("mkdir -p /var/lib/duolog-witness");
    third.shell(APPEND);
    let witness = third.start(WITNESS);
    let second = two.start(RUN);
    one.shell("pg_ctlcluster 15 main stop");
    run(one.line(ADOPT, ""), LIMIT);
    let first = one.start(RUN);
    let served = wait::within(LIMIT, || {
        let status = one.status()?;
        status.virtual_ips.iter().any(|it| it.here).then_some(())
    });
    assert!(served.is_some(), "{}", one.stands());
    done("PostgreSQL stopped, duolog adopt, duolog run: it serves again");
    [witness, second, first]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is typed here is what a user reads, also the short way of the README.
    #[test]
    fn what_the_operator_types_stands_in_the_documents() {
        let install = include_str!("../../../docs/operate/install.md");
        let readme = include_str!("../../../README.md");
        let says = |document: &str, line: &str| {
            document.lines().any(|it| it.split(" #").next().unwrap().trim() == line)
        };
        for line in LINES {
            assert!(says(install, line), "install.md does not say: {line}");
            // Afterwards; it is in the table of what an operator has.
            assert!(line == START || says(readme, line), "README.md does not say: {line}");
        }
    }
}
