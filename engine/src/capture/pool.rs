//! Threads for what may wait for a disk: reads that are not in the page cache.

use std::fmt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

type Job = Box<dyn FnOnce() + Send>;

/// Reads that wait for the disk at the same time, for each mount.
const THREADS: usize = 4;

/// Threads that end when the pool is dropped and its jobs are done.
pub(super) struct Pool {
    jobs: Sender<Job>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Pool {
    pub(super) fn new() -> Self {
        let (jobs, work) = channel();
        let work = Arc::new(Mutex::new(work));
        for number in 0..THREADS {
            let work = Arc::clone(&work);
            std::thread::Builder::new()
                .name(format!("duolog-read-{number}"))
                .spawn(move || run(&work))
                .expect("the system has room for a few threads");
        }
        Self { jobs }
    }

    /// Runs `job` soon. A job that cannot be taken is dropped, and its reply answers EIO.
    pub(super) fn run(&self, job: Job) {
        if self.jobs.send(job).is_err() {
            tracing::error!("the threads that read from disk are gone");
        }
    }
}

fn run(work: &Mutex<Receiver<Job>>) {
    loop {
        let job = work.lock().expect("taking a job does not panic").recv();
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}
