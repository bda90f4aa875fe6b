//! How a benchmark is measured and told: every latency is kept, so that percentiles are exact.
//! Knows nothing of what is measured.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use crate::cli::BenchLoad;

/// `USER_HZ`, in which the kernel counts CPU time for user space: 100 on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// What came out of a benchmark. Latencies in microseconds, MB of 1,000,000 bytes.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// What was measured: `mount`, `log`, `link`, or a part of `anatomy`.
    pub what: &'static str,
    /// Threads that worked at the same time.
    pub threads: u16,
    /// Bytes of one operation.
    pub block_bytes: u32,
    /// Operations done.
    pub operations: u64,
    /// How long it took.
    pub seconds: f64,
    /// The median.
    pub p50_us: f64,
    /// 99 of 100 took no longer.
    pub p99_us: f64,
    /// 999 of 1000 took no longer.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
    /// Of blocks, before compression.
    pub mb_per_s: f64,
    /// Operations a second, by all threads.
    pub ops_per_s: f64,
    /// User and system time of this process for one operation; no other process's.
    pub cpu_us_per_op: f64,
    /// What the figures do not hold.
    #[serde(skip)]
    pub note: Option<&'static str>,
}

impl Report {
    /// Prints it, for people or as one line of JSON.
    pub(crate) fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        let rows = [
            ("operations", format!("{} in {:.1} s", self.operations, self.seconds)),
            ("latency p50", format!("{:.1} us", self.p50_us)),
            ("latency p99", format!("{:.1} us", self.p99_us)),
            ("latency p99.9", format!("{:.1} us", self.p999_us)),
            ("latency max", format!("{:.1} us", self.max_us)),
            ("operations/s", format!("{:.0}", self.ops_per_s)),
            ("throughput", format!("{:.1} MB/s", self.mb_per_s)),
            ("CPU an operation", format!("{:.1} us", self.cpu_us_per_op)),
        ];
        let (threads, bytes) = (self.threads, self.block_bytes);
        println!("{}: blocks of {bytes} bytes, {threads} thread(s)", self.what);
        for (name, value) in rows {
            println!("  {name:<17} {value}");
        }
        if let Some(note) = self.note {
            println!("  {note}");
        }
        Ok(())
    }
}

/// How much is to be done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// What is measured.
    pub what: &'static str,
    /// Threads that work at the same time.
    pub threads: u16,
    /// Bytes of one operation.
    pub block_bytes: u32,
    /// For how long.
    pub seconds: u64,
}

impl Load {
    /// As the command line says.
    pub(crate) const fn of(what: &'static str, load: &BenchLoad) -> Self {
        let BenchLoad { threads, block_bytes, seconds, .. } = *load;
        Self { what, threads, block_bytes, seconds }
    }

    /// Has each thread make its worker with `begin`, then calls the workers until the time is
    /// up. One call is one operation.
    ///
    /// # Errors
    /// The first error of a worker; all threads end then.
    pub(crate) fn measure<W>(
        &self,
        begin: impl Fn(u16) -> anyhow::Result<W> + Sync,
    ) -> anyhow::Result<Report>
    where
        W: FnMut() -> anyhow::Result<()>,
    {
        let over = AtomicBool::new(false);
        let barrier = std::sync::Barrier::new(usize::from(self.threads) + 1);
        let limit = Duration::from_secs(self.seconds);
        let work = |number| {
            let worker = begin(number);
            barrier.wait();
            let result = worker.and_then(|worker| repeat(worker, limit, &over));
            if result.is_err() {
                over.store(true, Ordering::Relaxed);
            }
            result
        };
        let work = &work;
        let (samples, elapsed, cpu_s) = thread::scope(|scope| {
            let workers: Vec<_> =
                (0..self.threads).map(|number| scope.spawn(move || work(number))).collect();
            barrier.wait();
            let (start, cpu) = (Instant::now(), cpu_seconds()?);
            let mut samples = Vec::new();
            for worker in workers {
                samples.extend(worker.join().expect("a worker panicked")?);
            }
            anyhow::Ok((samples, start.elapsed(), cpu_seconds()? - cpu))
        })?;
        self.report(samples, elapsed, cpu_s)
    }

    fn report(
        &self,
        mut samples: Vec<Duration>,
        elapsed: Duration,
        cpu_s: f64,
    ) -> anyhow::Result<Report> {
        samples.sort_unstable();
        let max = *samples.last().context("not one operation was done in the time given")?;
        let operations = samples.len() as u64;
        let at = |per_mille| micros(percentile(&samples, per_mille));
        #[expect(clippy::cast_precision_loss, reason = "counts of operations are far below 2^52")]
        let count = operations as f64;
        let seconds = elapsed.as_secs_f64();
        Ok(Report {
            what: self.what,
            threads: self.threads,
            block_bytes: self.block_bytes,
            operations,
            seconds: rounded(seconds),
            p50_us: at(500),
            p99_us: at(990),
            p999_us: at(999),
            max_us: micros(max),
            mb_per_s: rounded(count * f64::from(self.block_bytes) / 1e6 / seconds),
            ops_per_s: rounded(count / seconds),
            cpu_us_per_op: rounded(cpu_s * 1e6 / count),
            note: None,
        })
    }
}

fn repeat(
    mut worker: impl FnMut() -> anyhow::Result<()>,
    limit: Duration,
    over: &AtomicBool,
) -> anyhow::Result<Vec<Duration>> {
    let mut samples = Vec::new();
    let begin = Instant::now();
    let mut before = begin;
    while before - begin < limit && !over.load(Ordering::Relaxed) {
        worker()?;
        let now = Instant::now();
        samples.push(now - before);
        before = now;
    }
    Ok(samples)
}

/// The least sample that `per_mille` of a thousand do not exceed; `samples` sorted, not empty.
pub(super) fn percentile(samples: &[Duration], per_mille: usize) -> Duration {
    let rank = (samples.len() * per_mille).div_ceil(1000);
    samples[rank.max(1) - 1]
}

pub(super) fn micros(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64() * 1e6)
}

pub(super) fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// User and system time of this process, ended threads included.
fn cpu_seconds() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").context("reading /proc/self/stat")?;
    // The name of the process, which may hold anything, ends at the last bracket.
    let fields = text.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks: Option<Vec<f64>> =
        fields.split(' ').skip(11).take(2).map(|field| field.parse().ok()).collect();
    let ticks = ticks.filter(|ticks| ticks.len() == 2).context("/proc/self/stat is strange")?;
    Ok(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_sample_that_so_many_do_not_exceed() {
        let samples: Vec<_> = (1..=1000).map(Duration::from_micros).collect();
        for (per_mille, us) in [(500, 500), (990, 990), (999, 999), (1000, 1000)] {
            assert_eq!(percentile(&samples, per_mille), Duration::from_micros(us));
        }
        assert_eq!(percentile(&samples[..1], 500), samples[0]);
        assert_eq!(percentile(&samples[..3], 500), samples[1]);
    }

    #[test]
    fn a_report_counts_every_operation_and_a_worker_that_fails_ends_it() {
        let load = Load { what: "log", threads: 2, block_bytes: 1000, seconds: 1 };
        let samples = vec![Duration::from_micros(10); 2000];
        let report = load.report(samples, Duration::from_secs(2), 0.01).unwrap();
        assert_eq!((report.operations, report.p50_us, report.ops_per_s), (2000, 10.0, 1000.0));
        assert_eq!((report.mb_per_s, report.cpu_us_per_op), (1.0, 5.0));
        let failed = load
            .measure(|number| Ok(move || if number == 0 { anyhow::bail!("no") } else { Ok(()) }));
        assert_eq!(failed.unwrap_err().to_string(), "no");
    }
}
