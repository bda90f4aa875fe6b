//! One file of a node's logs: a queue with a bound, and a thread that writes what is in it.
//!
//! ```text
//!  whoever says something ──> queue, 4 MiB ──> thread ──> NAME ── full ──> NAME.1 ──> NAME.2 ...
//!        never waits      └─> counted as lost
//! ```
//! A disk that is full or slow delays and ends nothing: what does not fit the queue, or cannot be
//! written, is counted, and the next line that can be written says how many are missing. Nothing
//! here is ever synced: a power cut may take the last lines.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most bytes that wait to be written.
const QUEUE_BYTES_MAX: usize = 4 << 20;
/// Most bytes of one write.
const BATCH_BYTES: usize = 64 << 10;

/// The writer's stack; it calls little.
const STACK_BYTES: usize = 256 << 10;

/// How large the files become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// A file that would be longer is put aside first.
    pub file_bytes: u64,
    /// How many are kept, the one that is written included; zero: whoever else writes puts aside.
    pub files: u64,
}

/// Makes the line that says how many are missing before it.
pub(super) type Gap = Box<dyn Fn(u64, &str) -> Vec<u8> + Send>;

/// A file of lines that any thread may add to. Clones are the same file.
#[derive(Clone, Debug)]
pub(super) struct Sink {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The thread writes what it took.
    writing: bool,
    /// Lines that were lost since the last gap that was said.
    lost: u64,
    /// Why, at the last one.
    cause: String,
    lost_ever: u64,
    closed: bool,
}

impl Queue {
    fn lose(&mut self, count: u64, cause: &str) {
        self.lost += count;
        self.lost_ever += count;
        cause.clone_into(&mut self.cause);
    }
}

impl Sink {
    /// A file that is opened for each write, so that it may be moved away or deleted meanwhile.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn start(path: PathBuf, sizes: Sizes, gap: Gap) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        });
        let mut writer = Writer { shared: shared.clone(), path, sizes, gap, torn: false };
        let thread = std::thread::Builder::new().name("duolog-logs".into());
        // The guardian keeps all of its memory, stacks too.
        thread.stack_size(STACK_BYTES).spawn(move || {
            block_signals();
            writer.run();
        })?;
        Ok(Self { shared })
    }

    /// Adds a line, which ends with a line feed. Never waits for a disk.
    pub(super) fn add(&self, line: Vec<u8>) {
        let mut queue = lock(&self.shared.queue);
        if queue.bytes + line.len() > QUEUE_BYTES_MAX {
            queue.lose(1, "more was said than could be written");
            return;
        }
        queue.bytes += line.len();
        queue.lines.push_back(line);
        self.shared.filled.notify_one();
    }

    /// How many lines were lost since the start, and why the last one was.
    pub(super) fn lost(&self) -> Option<(u64, String)> {
        let queue = lock(&self.shared.queue);
        (queue.lost_ever > 0).then(|| (queue.lost_ever, queue.cause.clone()))
    }

    /// Waits until everything is written, at most until then.
    pub(super) fn flush(&self, until: Instant) {
        let mut queue = lock(&self.shared.queue);
        while queue.writing || !queue.lines.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return;
            }
            let waited = self.shared.emptied.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends the thread once it has written everything.
    #[cfg(test)]
    fn close(&self) {
        lock(&self.shared.queue).closed = true;
        self.shared.filled.notify_one();
    }
}

struct Writer {
    shared: Arc<Shared>,
    path: PathBuf,
    sizes: Sizes,
    gap: Gap,
    /// The last write may have left half a line.
    torn: bool,
}

impl Writer {
    fn run(&mut self) {
        while let Some((batch, count)) = self.take() {
            if let Err(error) = self.write(&batch) {
                lock(&self.shared.queue).lose(count, &error.to_string());
            }
            let mut queue = lock(&self.shared.queue);
            queue.writing = false;
            if queue.lines.is_empty() {
                self.shared.emptied.notify_all();
            }
        }
    }

    /// Waits for lines; returns some, with how many they are. Nothing: the end.
    fn take(&self) -> Option<(Vec<u8>, u64)> {
        let mut queue = lock(&self.shared.queue);
        while queue.lines.is_empty() {
            if queue.closed {
                return None;
            }
            let waited = self.shared.filled.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
        queue.writing = true;
        let (mut batch, mut count) = (Vec::new(), 0);
        while let Some(line) = queue.lines.pop_front() {
            queue.bytes -= line.len();
            batch.extend(line);
            count += 1;
            if batch.len() >= BATCH_BYTES {
                break;
            }
        }
        Some((batch, count))
    }

    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        let mut file = self.open()?;
        let (lost, cause) = {
            let queue = lock(&self.shared.queue);
            (queue.lost, queue.cause.clone())
        };
        let mut text = Vec::new();
        if self.torn {
            text.push(b'\n');
        }
        if lost > 0 {
            text.extend((self.gap)(lost, &cause));
        }
        text.extend(batch);
        let length = file.metadata()?.len();
        if self.sizes.files > 0
            && length > 0
            && length.saturating_add(text.len() as u64) > self.sizes.file_bytes
        {
            put_aside(&self.path, self.sizes.files)?;
            file = self.open()?;
        }
        self.torn = true;
        file.write_all(&text)?;
        self.torn = false;
        lock(&self.shared.queue).lost -= lost;
        Ok(())
    }

    fn open(&self) -> io::Result<File> {
        let open = || File::options().create(true).append(true).mode(0o640).open(&self.path);
        match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let directory = self.path.parent().unwrap_or(Path::new("/"));
                DirBuilder::new().recursive(true).mode(0o750).create(directory)?;
                open()
            }
            opened => opened,
        }
    }
}

/// Where the part of a file is that was put aside so many files ago.
pub(super) fn part(path: &Path, age: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{age}"));
    name.into()
}

/// Counts the older parts up, deletes those that are too many, and makes room for a new file.
fn put_aside(path: &Path, files: u64) -> io::Result<()> {
    let missing = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
        Ok(()) => Ok(true),
    };
    // Also those of a time when more were kept.
    let mut age = files;
    while missing(fs::remove_file(part(path, age)))? {
        age += 1;
    }
    for age in (1..files.saturating_sub(1)).rev() {
        missing(rename(&part(path, age), &part(path, age + 1)))?;
    }
    if files > 1 { rename(path, &part(path, 1)) } else { fs::remove_file(path) }
}

#[expect(clippy::disallowed_methods, reason = "logs need not be durable")]
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

/// Signals are for the threads that wait for them: this one must not be where the kernel delivers
/// one, which would end the process.
fn block_signals() {
    // SAFETY: the set is filled before it is read, and no other memory is touched.
    unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(path: &Path, file_bytes: u64, files: u64) -> Sink {
        let gap = |lost, cause: &str| format!("lost {lost}: {cause}\n").into_bytes();
        Sink::start(path.to_owned(), Sizes { file_bytes, files }, Box::new(gap)).unwrap()
    }

    fn flushed(sink: &Sink) {
        sink.flush(Instant::now() + Duration::from_mins(1));
    }

    #[test]
    fn a_full_file_is_put_aside_and_only_so_many_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/some.log");
        let sink = sink(&path, 10, 3);
        for number in 0..6 {
            sink.add(format!("line {number}\n").into_bytes());
            flushed(&sink);
        }
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!(read(&path), "line 5\n");
        assert_eq!(read(&part(&path, 1)), "line 4\n");
        assert_eq!(read(&part(&path, 2)), "line 3\n");
        assert!(!part(&path, 3).exists());
        sink.close();
    }

    #[test]
    fn a_disk_that_takes_nothing_delays_nobody_and_the_gap_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("some.log");
        // A directory cannot be written to, as root or not.
        fs::create_dir(&path).unwrap();
        let sink = sink(&path, 1 << 20, 3);
        sink.add(b"one\n".to_vec());
        flushed(&sink);
        sink.add(b"two\n".to_vec());
        flushed(&sink);
        let (lost, cause) = sink.lost().unwrap();
        assert!(lost == 2 && cause.contains("directory"), "{lost} {cause}");
        fs::remove_dir(&path).unwrap();
        sink.add(b"three\n".to_vec());
        sink.add(b"four\n".to_vec());
        flushed(&sink);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("lost 2: ") && text.ends_with("\nthree\nfour\n"), "{text}");
        assert_eq!(sink.lost().unwrap().0, 2, "what was said once is not forgotten");
        sink.close();
    }

    /// A pipe that nobody reads: whoever opens it to write waits for ever, as on a disk that hangs.
    #[test]
    fn a_disk_that_hangs_delays_nobody_and_its_queue_has_a_bound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("some.log");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let sink = sink(&path, 1 << 20, 3);
        let line = vec![b'x'; 1 << 20];
        for _ in 0..10 {
            sink.add(line.clone());
        }
        sink.flush(Instant::now() + Duration::from_millis(50));
        let queue = lock(&sink.shared.queue);
        assert!(queue.bytes <= QUEUE_BYTES_MAX, "{} bytes wait", queue.bytes);
        assert!((4..10).contains(&queue.lost_ever), "{} lines are lost", queue.lost_ever);
    }
}
