//! `duolog witness`: the third voice of many pairs, on one UDP port.
//!
//! One thread answers one datagram after the other and waits for nothing but the disk, which a
//! grant has to be on before it leaves. It speaks only when spoken to, and never to a stranger.
//! What a pair may do is decided by the machine of `duolog-failover`; here are the socket, the
//! keys, the files and the limits.
//!
//! ```text
//! datagram ──> whose key fits? ──> session: fresh? ──> limit ──> machine ──> file ──> answer
//!              none: silence       no: a welcome                             fsync
//! ```

mod limit;
mod pair;
mod state;

use std::collections::HashMap;
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use duolog_beat::{DATAGRAM_MAX, Packet, Party, Secret, now};
use duolog_engine::disk::DirDisk;
use duolog_wal::ClusterId;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::OfWitness;
use crate::config::{WitnessConfig, WitnessPair};
use crate::notify;
use pair::Pair;

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(options: &OfWitness) -> anyhow::Result<()> {
    let config = WitnessConfig::load(&options.config)?;
    let witness = Witness::open(&config)?;
    let socket = duolog_beat::bind(config.listen).with_context(|| {
        format!("cannot listen on {}; is another witness running there?", config.listen)
    })?;
    duolog_beat::priority::raise();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot wait for events")?;
    runtime.block_on(serve(witness, socket))
}

async fn serve(mut witness: Witness, socket: UdpSocket) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch signals")?;
    let socket = tokio::net::UdpSocket::from_std(socket).context("cannot wait for datagrams")?;
    let sentence = witness.sentence();
    tracing::info!("{sentence}");
    notify::ready(&sentence);
    // One byte more than a good datagram has, so that a longer one is seen to be longer.
    let mut buffer = [0; DATAGRAM_MAX + 1];
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok((len, from)) => {
                    if let Some(answer) = witness.take(&buffer[..len]) {
                        // A full buffer or a host that is gone: the node asks again.
                        if let Err(error) = socket.try_send_to(&answer, from) {
                            tracing::debug!(%error, %from, "an answer was not sent");
                        }
                    }
                }
                // Of an earlier answer.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error).context("cannot receive any more"),
            },
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    notify::stopping();
    Ok(())
}

/// All pairs that are served.
struct Witness {
    pairs: HashMap<ClusterId, Pair<DirDisk>>,
    /// Those whose file cannot be used.
    refused: usize,
}

impl Witness {
    /// Reads every pair's file, and makes those that are not there yet.
    fn open(config: &WitnessConfig) -> anyhow::Result<Self> {
        let place = config.state_dir.display();
        std::fs::create_dir_all(&config.state_dir)
            .with_context(|| format!("cannot make the directory {place}"))?;
        let disk = DirDisk::open(&config.state_dir)
            .with_context(|| format!("cannot use the directory {place}"))?;
        let disk = Arc::new(disk);
        let (mut pairs, mut refused) = (HashMap::new(), 0);
        for settings in &config.pairs {
            // One damaged file is no reason to leave the other pairs alone.
            let cluster = settings.cluster;
            match open_pair(&disk, settings) {
                Ok(pair) => {
                    println!("pair {cluster} witness id {:032x}", pair.wid());
                    pairs.insert(cluster, pair);
                }
                Err(error) => {
                    tracing::error!(pair = %cluster, "not served: {error:#}");
                    refused += 1;
                }
            }
        }
        if pairs.is_empty() {
            bail!("none of the {refused} pairs can be served; the errors above say why");
        }
        Ok(Self { pairs, refused })
    }

    fn sentence(&self) -> String {
        let (served, refused) = (self.pairs.len(), self.refused);
        let pairs = if served == 1 { "pair" } else { "pairs" };
        match refused {
            0 => format!("witness of {served} {pairs}"),
            _ => format!("witness of {served} {pairs}; {refused} not served, see the log"),
        }
    }

    /// The answer to a datagram, if it gets one.
    fn take(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let packet = Packet::decode(bytes).ok()?;
        let Party::Node(node) = packet.from else { return None };
        self.pairs.get_mut(&packet.cluster)?.take(node, bytes, now())
    }
}

fn open_pair(disk: &Arc<DirDisk>, settings: &WitnessPair) -> anyhow::Result<Pair<DirDisk>> {
    let [one, two] = &settings.keys;
    let secrets = [Secret::read(one)?, Secret::read(two)?];
    ensure!(
        secrets[0] != secrets[1],
        "{} and {} hold the same key; make one for each node: duolog keygen --pair-key FILE",
        one.display(),
        two.display()
    );
    Ok(Pair::open(disk, settings.cluster, &secrets, now())?)
}
