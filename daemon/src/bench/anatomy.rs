//! `duolog bench anatomy`: where the time of a commit goes. Both nodes of a pair run here, clients
//! write a block and fsync, and one commit after the other is followed through its stages; beside
//! that stands what each part takes alone, on the same disk and in the same run.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use duolog_engine::node::{Anatomy, Node};
use duolog_transport::Tuning;
use rustix::fs::{fdatasync, fsync};
use serde::Serialize;

use super::ends::{DISK_BYTES, Ends};
use super::measure::{Load, Report, micros, percentile, rounded};
use super::mount;
use super::pair::Pair;
use crate::cli::{BenchAnatomy, BenchLoad, BenchMount, FsyncEach};

/// How long each part is measured alone.
const ALONE: u64 = 1;
/// How often commits that were followed are fetched; some hundred are kept.
const FETCH_EVERY: Duration = Duration::from_millis(20);

/// One stage, in microseconds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    /// As `/metrics` calls it.
    pub stage: &'static str,
    /// The median.
    pub p50_us: f64,
    /// 99 of 100 took no longer.
    pub p99_us: f64,
    /// All of them, divided by their number: these add up.
    pub mean_us: f64,
}

/// Where the time goes. Medians in microseconds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Table {
    what: &'static str,
    threads: u16,
    block_bytes: u32,
    /// Writes with their fsync, as the clients saw them.
    client: Report,
    /// Commits that were followed.
    followed: usize,
    /// Of those, in how many the other node had it last.
    peer_last: usize,
    stages: Vec<Row>,
    /// The median of a client, less that of a commit: the write, the kernel and its queue.
    kernel_us: f64,
    /// The same block, written and synced on the disk without anything else.
    local_alone_us: f64,
    /// Shipped, written, synced and acknowledged, without anything else.
    remote_alone_us: f64,
    /// An fsync in the mount that has nothing to do.
    fuse_alone_us: f64,
    /// What a commit takes at least: FUSE, and the longer of both disks' ways.
    floor_us: f64,
    /// The clients' median, as a multiple of that.
    of_floor: f64,
    /// The clients' median with stages measured, as a multiple of that without: the median of all
    /// turns, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<f64>,
}

/// Measures.
pub(super) fn run(options: &BenchAnatomy) -> anyhow::Result<Table> {
    let BenchLoad { threads, block_bytes, .. } = options.load;
    let alone = BenchLoad { threads: 1, seconds: ALONE, ..options.load };
    let pair = Pair::start(&options.dir)?;
    let local = disk_alone(pair.beside(), &alone)?;
    let remote = remote_alone(pair.beside(), &alone)?;
    let (client, anatomies) = commits(&pair, options)?;
    let cost = cost(&pair, options)?;
    let fuse = fuse_alone(&pair.directory(), &alone)?;
    pair.stop()?;
    let stages = stages(&anatomies).context("not one commit was followed")?;
    let commit_us = stages.iter().find(|stage| stage.stage == "commit").map(|stage| stage.p50_us);
    let floor = fuse.p50_us + local.p50_us.max(remote.p50_us);
    let peer_last =
        |anatomy: &&Anatomy| anatomy.peer.is_some_and(|peer| peer.all() > anatomy.local());
    Ok(Table {
        what: "anatomy",
        threads,
        block_bytes,
        followed: anatomies.len(),
        peer_last: anatomies.iter().filter(peer_last).count(),
        stages,
        kernel_us: rounded(client.p50_us - commit_us.unwrap_or_default()),
        local_alone_us: local.p50_us,
        remote_alone_us: remote.p50_us,
        fuse_alone_us: fuse.p50_us,
        floor_us: rounded(floor),
        of_floor: rounded(client.p50_us / floor),
        cost,
        client,
    })
}

/// What measuring costs, with and without it in turns.
fn cost(pair: &Pair, options: &BenchAnatomy) -> anyhow::Result<Option<f64>> {
    let node = pair.node()?;
    let load = BenchLoad { seconds: 1, ..options.load };
    let mut ratios = Vec::new();
    for turn in 0..options.cost {
        let measured = |on| {
            node.measure_stages(on);
            mount::run(&clients(pair, load))
        };
        // Neither is always the first.
        let (on, off) = if turn % 2 == 0 {
            let on = measured(true)?;
            (on, measured(false)?)
        } else {
            let off = measured(false)?;
            (measured(true)?, off)
        };
        ratios.push(on.p50_us / off.p50_us);
    }
    node.measure_stages(true);
    ratios.sort_unstable_by(f64::total_cmp);
    Ok(ratios.get(ratios.len() / 2).map(|ratio| (ratio * 1000.0).round() / 1000.0))
}

fn clients(pair: &Pair, load: BenchLoad) -> BenchMount {
    let (dir, fsync) = (pair.directory(), FsyncEach::Writes(1));
    BenchMount { dir, fsync, data_only: true, reopen: false, load }
}

/// Clients write and fsync; what was followed meanwhile is fetched beside them.
fn commits(pair: &Pair, options: &BenchAnatomy) -> anyhow::Result<(Report, Vec<Anatomy>)> {
    let node = pair.node()?;
    let client = clients(pair, options.load);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let fetcher = scope.spawn(|| fetch(node, &over));
        let report = mount::run(&client);
        over.store(true, Ordering::Relaxed);
        fetcher.thread().unpark();
        let anatomies = fetcher.join().expect("fetching does not panic");
        Ok((report?, anatomies))
    })
}

fn fetch(node: &Node, over: &AtomicBool) -> Vec<Anatomy> {
    let (mut all, mut seen) = (Vec::new(), 0);
    loop {
        let ended = over.load(Ordering::Relaxed);
        let (more, ever) = node.anatomies(seen);
        seen = ever;
        all.extend(more);
        if ended {
            return all;
        }
        std::thread::park_timeout(FETCH_EVERY);
    }
}

/// How a stage is read off a commit.
type Part<'a> = &'a dyn Fn(&Anatomy) -> Duration;

/// Each stage of the commits that were followed, in the order in which a commit meets them. `None`
/// where there was none.
fn stages(anatomies: &[Anatomy]) -> Option<Vec<Row>> {
    let of_peer = |anatomy: &Anatomy| anatomy.peer.unwrap_or_default();
    let disk = |anatomy: &Anatomy| of_peer(anatomy).remote_disk.unwrap_or_default();
    let write = |anatomy: &Anatomy| of_peer(anatomy).remote_write.unwrap_or_default();
    let all: [(&'static str, Part<'_>); 14] = [
        ("commit", &|it| it.total),
        ("queue", &|it| it.queue),
        ("local_disk", &|it| it.local_disk),
        ("peer", &|it| of_peer(it).all()),
        ("hand_over", &|it| of_peer(it).hand_over),
        ("compress", &|it| of_peer(it).compress),
        ("wire", &|it| of_peer(it).wire),
        ("remote_disk", &disk),
        ("remote_write", &write),
        ("remote_sync", &|it| disk(it).saturating_sub(write(it))),
        ("acknowledgement", &|it| of_peer(it).acknowledgement),
        ("held", &|it| it.held),
        ("wake_up", &|it| it.wake_up),
        ("fuse", &|it| it.fuse),
    ];
    let count = u32::try_from(anatomies.len()).ok().filter(|count| *count > 0)?;
    let stage = |(stage, of): (&'static str, &dyn Fn(&Anatomy) -> Duration)| {
        let mut times: Vec<_> = anatomies.iter().map(of).collect();
        times.sort_unstable();
        let mean_us = micros(times.iter().sum::<Duration>() / count);
        let at = |per_mille| micros(percentile(&times, per_mille));
        Row { stage, p50_us: at(500), p99_us: at(990), mean_us }
    };
    Some(all.into_iter().map(stage).collect())
}

/// A file of [`DISK_BYTES`] that was written before.
fn written(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().create_new(true).read(true).write(true).open(path);
    let file = file.with_context(|| format!("cannot make {}", path.display()))?;
    let block = vec![1; 1 << 20];
    // A frame of the link may pass the end by its own length.
    for at in (0..DISK_BYTES + (1 << 20)).step_by(block.len()) {
        file.write_all_at(&block, at)?;
    }
    fsync(&file)?;
    Ok(file)
}

fn disk_alone(dir: &Path, load: &BenchLoad) -> anyhow::Result<Report> {
    let path = dir.join("alone");
    let file = written(&path)?;
    let block = vec![7; load.block_bytes as usize];
    Load::of("local disk", load).measure(|_| {
        let (file, block, mut at) = (file.try_clone()?, block.clone(), 0);
        Ok(move || {
            at = (at + u64::try_from(block.len())?) % DISK_BYTES;
            file.write_all_at(&block, at)?;
            Ok(fdatasync(&file)?)
        })
    })
}

fn remote_alone(dir: &Path, load: &BenchLoad) -> anyhow::Result<Report> {
    let file = written(&dir.join("remote"))?;
    let ends = Ends::connect_to(&Tuning::default(), Some(file))?;
    let (bytes, ends_ref) = (u64::from(load.block_bytes), &ends);
    let report =
        Load::of("remote disk", load).measure(|_| Ok(move || Ok(ends_ref.ship(bytes)?)))?;
    ends.stop()?;
    Ok(report)
}

/// Of a file with nothing to sync.
fn fuse_alone(dir: &Path, load: &BenchLoad) -> anyhow::Result<Report> {
    let path = dir.join("nothing");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    fsync(&file)?;
    Load::of("fuse", load).measure(|_| {
        let file = file.try_clone()?;
        Ok(move || Ok(fdatasync(&file)?))
    })
}

impl Table {
    /// Prints it, for people or as one line of JSON.
    pub(super) fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        let Self { threads, block_bytes, followed, peer_last, .. } = self;
        println!("anatomy of a commit: blocks of {block_bytes} bytes, {threads} client(s)");
        println!(
            "  {followed} commits were followed; the other node had {peer_last} of them last\n"
        );
        println!("  {:<20} {:>10} {:>10} {:>10}", "us", "p50", "p99", "mean");
        let row = |name: &str, p50: f64, p99: f64, mean: Option<f64>| {
            let mean = mean.map(|mean| format!("{mean:.1}")).unwrap_or_default();
            println!("  {name:<20} {p50:>10.1} {p99:>10.1} {mean:>10}");
        };
        row("write and fsync", self.client.p50_us, self.client.p99_us, None);
        for stage in &self.stages {
            let depth = match stage.stage {
                "commit" => "",
                "remote_write" | "remote_sync" => "      ",
                "hand_over" | "compress" | "wire" | "remote_disk" | "acknowledgement" | "fuse" => {
                    "    "
                }
                _ => "  ",
            };
            let name = format!("{depth}{}", stage.stage);
            row(&name, stage.p50_us, stage.p99_us, Some(stage.mean_us));
        }
        println!("\n  alone, p50 in us");
        for (name, us) in [
            ("local disk", self.local_alone_us),
            ("link and remote disk", self.remote_alone_us),
            ("fsync with nothing to do", self.fuse_alone_us),
            ("floor", self.floor_us),
            ("kernel and write", self.kernel_us),
        ] {
            println!("  {name:<25} {us:>8.1}");
        }
        println!("  write and fsync is {:.2} times the floor", self.of_floor);
        if let Some(cost) = self.cost {
            println!("  and {cost:.3} times what it is where stages are not measured");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pair is made, measured and gone, and the stages of each commit are its whole time.
    #[test]
    fn the_stages_of_every_commit_that_is_followed_add_up() {
        if !Path::new("/dev/fuse").exists() || !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: needs root and /dev/fuse (modprobe fuse)");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let load = BenchLoad { threads: 3, block_bytes: 8192, seconds: 1, json: true };
        let options = BenchAnatomy { dir: dir.path().to_owned(), cost: 0, load };
        let pair = Pair::start(dir.path()).unwrap();
        let (client, anatomies) = commits(&pair, &options).unwrap();
        pair.stop().unwrap();
        assert!(client.operations > 0 && anatomies.len() > 10, "{}", anatomies.len());
        for anatomy in &anatomies {
            assert_eq!(anatomy.sum(), anatomy.total, "{anatomy:?}");
            let peer = anatomy.peer.expect("a commit needs both disks");
            let remote = peer.remote_disk.expect("this release says it");
            assert!(peer.remote_write.is_some_and(|write| write <= remote), "{peer:?}");
        }
        let stages = stages(&anatomies).unwrap();
        let mean = |name: &str| stages.iter().find(|it| it.stage == name).unwrap().mean_us;
        let parts = ["hand_over", "compress", "wire", "remote_disk", "acknowledgement"];
        let sum: f64 = parts.into_iter().map(mean).sum();
        assert!((mean("peer") - sum).abs() < 1.0, "{stages:?}");
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}
