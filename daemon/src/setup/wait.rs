//! The first computer waits for the second one, with a code that is good once, for a while, and
//! for three wrong tries. The code is in this process's memory and nowhere else: it ends with it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use duolog_beat::Secret;
use duolog_transport::Fingerprint;
use duolog_transport::enrol::{Channel, EnrolError, Proof, Verdict};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::checks::{self, Facts};
use super::code::Code;
use super::exchange::{self, Answer, Done, Hello, Offer, OfferedDirectory, Version};
use super::init::Ready;
use super::record::{self, CA, CONFIG, Etc, PAIR_KEY};
use super::text;
use crate::document;

/// How long a code is good.
pub(super) const LIFETIME: Duration = Duration::from_mins(15);
/// Wrong codes after which it is void.
const TRIES: u8 = 3;
/// Clocks that differ more are named: what people compare between the nodes would mislead.
const SKEW_MAX_US: u64 = 1_000_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Waiting {
    ready: Ready,
    facts: Facts,
    listener: TcpListener,
    code: Code,
    until: Instant,
    tries: u8,
}

/// What came of one connection.
enum Came {
    /// The second computer is known.
    Joined(SocketAddr),
    /// Somebody else may come, or the same again.
    Nothing(anyhow::Error),
}

impl Waiting {
    /// Makes a code and listens.
    pub(super) fn begin(ready: Ready, facts: Facts, lifetime: Duration) -> anyhow::Result<Self> {
        let listener = checks::joining(ready.record.addresses[0])?;
        listener.set_nonblocking(true).context("cannot wait for connections")?;
        let (code, until) = (Code::generate()?, Instant::now() + lifetime);
        Ok(Self { ready, facts, listener, code, until, tries: TRIES })
    }

    /// The code.
    pub(super) const fn code(&self) -> &Code {
        &self.code
    }

    /// Of this node's certificate.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.ready.identity.fingerprint()
    }

    /// Until the second computer has joined, whose address it returns. `say` is told what else
    /// happens.
    ///
    /// # Errors
    /// The code has expired or is void, or this computer cannot go on.
    pub(super) fn run(mut self, say: impl Fn(&str)) -> anyhow::Result<SocketAddr> {
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("nobody has joined, and the code has expired; {NEW_CODE}");
            }
            let wait = Timespec::try_from(left).context("a time that is too long")?;
            match poll(&mut [PollFd::new(&self.listener, PollFlags::IN)], Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot wait for connections"),
            }
            // Who hung up before it was accepted is none.
            let Ok((stream, from)) = self.listener.accept() else { continue };
            match self.serve(stream)? {
                Came::Joined(address) => return Ok(address),
                Came::Nothing(why) => say(&format!("{}: {why:#}", from.ip())),
            }
            if self.tries == 0 {
                bail!("{TRIES} wrong codes were tried and the code is void; {NEW_CODE}");
            }
        }
    }

    /// An error is one of this computer, after which there is no use in waiting.
    fn serve(&mut self, stream: TcpStream) -> anyhow::Result<Came> {
        let (tries, until, code) = (&mut self.tries, self.until, &self.code);
        let judge = |proof: &Proof<'_>| {
            if Instant::now() >= until {
                return Verdict::Expired;
            }
            // It counts before anything is known of it.
            *tries -= 1;
            if proof.shows(code.secret()) {
                *tries += 1;
                return Verdict::Right;
            }
            Verdict::Wrong { left: *tries }
        };
        let identity = &self.ready.identity;
        let mut channel = match Channel::accept(stream, identity, code.secret(), judge) {
            Ok(channel) => channel,
            Err(error @ EnrolError::Wrong { .. }) => return Ok(Came::Nothing(error.into())),
            Err(error) => {
                return Ok(Came::Nothing(anyhow!(error).context("was no `duolog join`")));
            }
        };
        let hello = match self.hello(&mut channel) {
            Ok(hello) => hello,
            Err(error) => return Ok(Came::Nothing(error)),
        };
        let offer = self.offer(&hello)?;
        let told = exchange::send(&mut channel, &Answer::Offer(Box::new(offer)));
        let done: Done = match told.and_then(|()| exchange::receive(&mut channel)) {
            Ok(done) => done,
            Err(error) => return Ok(Came::Nothing(error)),
        };
        let Ok(fingerprint) = done.fingerprint.parse() else {
            return Ok(Came::Nothing(anyhow!("named no fingerprint; install the same version")));
        };
        if let Some(why) = self.stranger(Some(&done.fingerprint)) {
            exchange::send(&mut channel, &Answer::Refused(why.clone())).ok();
            return Ok(Came::Nothing(anyhow!(why)));
        }
        self.learn(&hello, fingerprint)?;
        if let Err(error) = exchange::send(&mut channel, &Answer::Welcome) {
            // It is known here, and is told so when it comes again with this code.
            return Ok(Came::Nothing(error));
        }
        Ok(Came::Joined(hello.addresses[0]))
    }

    /// Who comes, if it can be the second computer; otherwise it was told why not.
    fn hello(&self, channel: &mut Channel) -> anyhow::Result<Hello> {
        let first = channel.receive().context("the second computer said nothing")?;
        let Version { version } = exchange::read(&first)?;
        let refused = if version == self.facts.version {
            let hello: Hello = exchange::read(&first)?;
            match self.refuses(&hello, channel.from()) {
                None => return Ok(hello),
                Some(why) => why,
            }
        } else {
            format!(
                "here is duolog {}, there {version}; install the same version on both",
                self.facts.version
            )
        };
        exchange::send(channel, &Answer::Refused(refused.clone()))?;
        bail!("was refused: {refused}")
    }

    fn refuses(&self, hello: &Hello, from: SocketAddr) -> Option<String> {
        let record = &self.ready.record;
        let own = |ip| record.addresses.iter().any(|address| address.ip() == ip);
        let count = |addresses: usize| format!("{addresses} address(es)");
        if hello.computer == self.facts.computer {
            return Some(
                "both commands ran on the same computer, and a pair needs two; run `duolog join` \
                 on the other one"
                    .into(),
            );
        }
        if hello.addresses.len() != record.addresses.len() {
            return Some(format!(
                "this node has {} for the pair and the joining one {}; give --address and \
                 --also-address as often as here, in the same order of networks",
                count(record.addresses.len()),
                count(hello.addresses.len())
            ));
        }
        if hello.addresses.iter().any(|address| own(address.ip())) {
            return Some(
                "the joining computer names an address of this one; give its own with --address"
                    .into(),
            );
        }
        if hello.addresses[0].ip() != from.ip() {
            return Some(format!(
                "it comes from {} and says {}; something between the two changes addresses, which \
                 a pair cannot have",
                from.ip(),
                hello.addresses[0].ip()
            ));
        }
        if ![0, record.directories.len()].contains(&hello.directories) {
            return Some(format!(
                "{} directories are replicated here and {} named there; give --dir for each, in \
                 the same order, or not at all",
                record.directories.len(),
                hello.directories
            ));
        }
        self.stranger(hello.fingerprint.as_deref())
    }

    /// Why it cannot be node2, if another one is that already.
    fn stranger(&self, fingerprint: Option<&str>) -> Option<String> {
        let known = self.ready.config.peer.as_ref()?.fingerprint.to_string();
        (fingerprint != Some(&known)).then(|| {
            format!(
                "node2 of pair {} is another computer already; if that one is gone for good, \
                 remove [peer], [[path]] and [witness] from {} and give a new code",
                self.ready.record.name,
                self.ready.etc.join(CONFIG).display()
            )
        })
    }

    fn offer(&self, hello: &Hello) -> anyhow::Result<Offer> {
        let (etc, record) = (&self.ready.etc, &self.ready.record);
        let text = |name: &str| {
            record::read(etc, name)?.with_context(|| {
                format!(
                    "{} is missing; bring it back and give a new code",
                    etc.join(name).display()
                )
            })
        };
        let secret = |name: &str| -> anyhow::Result<String> {
            text(name)?;
            Ok(Secret::read(&etc.join(name))?.to_hex())
        };
        let witness =
            record.witness.map(|witness| anyhow::Ok((witness, secret(&record.witness_key(2))?)));
        let directories = record.directories.iter().map(|directory| OfferedDirectory {
            path: directory.path.clone(),
            preset: directory.preset.clone(),
            bytes: checks::bytes_below(&directory.path),
        });
        Ok(Offer {
            cluster: record.cluster.clone(),
            name: record.name.clone(),
            addresses: record.addresses.clone(),
            ca: [text(CA[0])?, text(CA[1])?],
            pair_key: secret(PAIR_KEY)?,
            witness: witness.transpose()?,
            directories: directories.collect(),
            document: document::current(&self.ready.config.documents())?,
            settings: text::shared(&text(CONFIG)?)?,
            skew_us: hello.now_us.saturating_sub((self.facts.clock_us)()),
        })
    }

    /// Writes the second computer into the configuration, which otherwise stays as it is.
    fn learn(&mut self, hello: &Hello, fingerprint: Fingerprint) -> anyhow::Result<()> {
        if self.ready.config.peer.is_some() {
            return Ok(());
        }
        let etc = &self.ready.etc;
        let now = record::read(etc, CONFIG)?.unwrap_or_default();
        let peer = text::peer(&self.ready.record, &hello.addresses, fingerprint);
        let with_peer = format!("{}\n{peer}", now.trim_end());
        self.ready.config = text::check(&with_peer, etc)?;
        Etc::open(etc)?.replace(CONFIG, true, &with_peer)
    }
}

/// What to do when a code is good no more.
pub(super) const NEW_CODE: &str = "run `duolog init --code` on the first computer for a new one";

/// How clocks differ, if that has to be said.
pub(super) fn skew(skew_us: i64) -> Option<String> {
    (skew_us.unsigned_abs() > SKEW_MAX_US).then(|| {
        let seconds = skew_us.unsigned_abs() / 1_000_000;
        let how = if skew_us > 0 { "ahead of" } else { "behind" };
        format!(
            "this clock is {seconds} s {how} the first computer's: nothing depends on it but \
             people who compare times; let both follow one time server"
        )
    })
}

#[cfg(test)]
mod tests;
