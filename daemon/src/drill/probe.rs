//! The client of a drill: asks the services all the time, on whichever node they are, and knows for how
//! long nobody answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};

/// Between an answer and the next question.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// How long services may take to answer first, and again after a swap.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a watch of the services came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Probed {
    /// They did not answer for so long: from the last answer before to the first one after it.
    Silent {
        /// The longest of such times, in milliseconds.
        ms: u64,
    },
    /// They did not answer again.
    NotAgain {
        /// How long that was waited for after the swap, in milliseconds.
        waited_ms: u64,
        /// What was heard last.
        why: String,
    },
}

/// Services that are watched.
pub(crate) trait Watched {
    /// What asks them.
    fn what(&self) -> String;
    /// Ends the watch; where they should answer by now that is waited for.
    fn finish(&mut self, answers: bool) -> Probed;
}

/// One question: an answer, or why there is none.
pub(crate) type Ask = Box<dyn Fn() -> Result<(), String> + Send>;

/// A watch that runs, on a thread of its own.
pub(crate) struct Watch {
    what: String,
    heard: Receiver<(Instant, Result<(), String>)>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    answers: Gaps,
}

/// Times between answers.
#[derive(Clone, Debug, Default)]
struct Gaps {
    last: Option<Instant>,
    longest: Duration,
    why: String,
}

impl Gaps {
    fn hear(&mut self, at: Instant, answer: Result<(), String>) {
        match answer {
            Ok(()) => {
                let gap = self.last.map(|last| at.saturating_duration_since(last));
                self.longest = self.longest.max(gap.unwrap_or_default());
                self.last = Some(at);
            }
            Err(why) => self.why = why,
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Watch {
    /// Begins, and waits for a first answer.
    ///
    /// # Errors
    /// There is none; why.
    pub(crate) fn begin(what: String, ask: Ask) -> Result<Self, String> {
        let (tell, heard) = channel();
        let over = Arc::new(AtomicBool::new(false));
        let stop = over.clone();
        let thread = std::thread::Builder::new().name("duolog-probe".into());
        let thread = thread.spawn(move || watch(&ask, &tell, &stop));
        let thread = Some(thread.map_err(|error| format!("no thread can be started: {error}"))?);
        let mut watch = Self { what, heard, over, thread, answers: Gaps::default() };
        if watch.hear_until(Instant::now() + PATIENCE, |gaps| gaps.last.is_some()) {
            Ok(watch)
        } else {
            Err(watch.answers.why.clone())
        }
    }

    /// Hears answers until one is enough; whether one was.
    fn hear_until(&mut self, until: Instant, enough: impl Fn(&Gaps) -> bool) -> bool {
        while !enough(&self.answers) {
            let left = until.saturating_duration_since(Instant::now());
            match self.heard.recv_timeout(left) {
                Ok((at, answer)) => self.answers.hear(at, answer),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
            }
        }
        true
    }
}

fn watch(ask: &Ask, tell: &Sender<(Instant, Result<(), String>)>, over: &AtomicBool) {
    while !over.load(Ordering::Acquire) {
        let answer = ask();
        if tell.send((Instant::now(), answer)).is_err() {
            return;
        }
        poll(&mut [], Some(&PAUSE)).ok();
    }
}

impl Watched for Watch {
    fn what(&self) -> String {
        self.what.clone()
    }

    fn finish(&mut self, answers: bool) -> Probed {
        let asked = Instant::now();
        let until = if answers { asked + PATIENCE } else { asked };
        // An answer that comes from now on is one after the swap.
        let again = self.hear_until(until, |gaps| gaps.last.is_some_and(|last| last >= asked));
        self.over.store(true, Ordering::Release);
        if again {
            Probed::Silent { ms: milliseconds(self.answers.longest) }
        } else {
            let waited_ms = milliseconds(asked.elapsed());
            Probed::NotAgain { waited_ms, why: self.answers.why.clone() }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the client of a drill panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// Answers, is silent for some questions, and answers again.
    #[test]
    fn the_time_without_an_answer_is_from_one_answer_to_the_next() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let ask: Ask = Box::new(move || match count.fetch_add(1, Ordering::SeqCst) {
            0 | 6.. => Ok(()),
            _ => Err("nobody".into()),
        });
        let begun = Instant::now();
        let mut watch = Watch::begin("a test".into(), ask).unwrap();
        while asked.load(Ordering::SeqCst) < 8 {
            poll(&mut [], Some(&PAUSE)).unwrap();
        }
        let Probed::Silent { ms } = watch.finish(true) else { panic!("it answers again") };
        // Six pauses, whatever the machine makes of them.
        assert!(ms >= 300 && u128::from(ms) <= begun.elapsed().as_millis(), "{ms} ms");
    }

    #[test]
    fn services_that_do_not_answer_again_are_said_not_to() {
        let asked = AtomicUsize::new(0);
        let ask: Ask = Box::new(move || match asked.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(()),
            _ => Err("nobody".into()),
        });
        let mut watch = Watch::begin("a test".into(), ask).unwrap();
        poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 200_000_000 })).unwrap();
        assert!(matches!(watch.finish(false), Probed::NotAgain { .. }));
    }
}
