//! Questions and their answers beside the log, between two ends that are connected.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod pair;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use duolog_transport::Tuning;
use duolog_transport::bulk::{Bulk, BulkError};
use duolog_transport::resync::{MESSAGE_MAX, Pipe};
use pair::{Pair, SOON, noise};

/// Says back what was asked, so many times.
fn echo(times: usize) -> impl Fn(&mut Pipe) -> io::Result<()> + Send + Sync {
    move |pipe| {
        let mut question = Vec::new();
        pipe.receive(&mut question)?;
        (0..times).try_for_each(|_| pipe.send(&question))
    }
}

/// What came back to a question until the answer ended.
fn asked(bulk: &Bulk, question: Vec<u8>) -> Result<Vec<Vec<u8>>, BulkError> {
    bulk.ask(SOON, move |pipe| {
        pipe.send(&question)?;
        let (mut all, mut message) = (Vec::new(), Vec::new());
        while pipe.receive(&mut message).is_ok() {
            all.push(message.clone());
        }
        Ok(all)
    })
}

/// A pair that is connected, at both ends.
fn connected() -> Pair {
    let pair = Pair::start(&Tuning::default());
    let end = pair.primary.append(&noise(1, 100), &pair.dialer.waker());
    pair.acknowledged(end);
    pair
}

#[test]
fn either_end_asks_and_is_answered_whole_and_in_order() {
    let pair = connected();
    pair.listener.bulk().answer_with(Arc::new(echo(3)));
    pair.dialer.bulk().answer_with(Arc::new(echo(2)));
    for (bulk, times) in [(pair.dialer.bulk(), 3), (pair.listener.bulk(), 2)] {
        for len in [1, 5000, MESSAGE_MAX] {
            let question = noise(len as u64, len);
            let answers = asked(&bulk, question.clone()).unwrap();
            assert!(answers.len() == times && answers.iter().all(|answer| *answer == question));
        }
    }
    assert_eq!(pair.dialer.snapshot().reconnects, 0);
    pair.stop();
}

/// What broke off is said of the question, whatever else has a stream of this kind.
#[test]
fn an_answer_that_breaks_off_is_not_told_of_a_resynchronisation() {
    let pair = connected();
    pair.listener.bulk().answer_with(Arc::new(echo(1)));
    let asked = pair.dialer.bulk().ask(SOON, |pipe| -> io::Result<()> {
        pipe.send(b"a question")?;
        Err(io::Error::other("an answer that is none"))
    });
    let error = asked.unwrap_err();
    let mut said = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        said = format!("{said}: {cause}");
        source = cause.source();
    }
    assert!(said.ends_with(": an answer that is none"), "{said}");
    assert!(!said.contains("resync"), "{said}");
    pair.stop();
}

/// Whoever takes nothing of an endless answer holds up that answer and nothing else.
#[test]
fn an_answer_that_nobody_takes_does_not_hold_up_the_log() {
    let pair = connected();
    let sent = Arc::new(AtomicU64::new(0));
    for end in [&pair.listener, &pair.dialer] {
        let sent = sent.clone();
        end.bulk().answer_with(Arc::new(move |pipe: &mut Pipe| {
            let piece = noise(7, MESSAGE_MAX);
            loop {
                pipe.send(&piece)?;
                sent.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    let (go, held) = (channel::<()>(), channel::<()>());
    let asking = [(pair.dialer.bulk(), go.1), (pair.listener.bulk(), held.1)].map(|(bulk, go)| {
        std::thread::spawn(move || {
            bulk.ask(3 * SOON, move |pipe| {
                pipe.send(b"everything")?;
                let mut first = Vec::new();
                pipe.receive(&mut first)?;
                // Takes nothing more until it is told to.
                go.recv().ok();
                Err::<(), _>(io::Error::other("enough"))
            })
        })
    });
    // Until both stand still: everything that lies between the workers is full.
    let (mut before, until) = (0, Instant::now() + SOON);
    loop {
        std::thread::park_timeout(Duration::from_millis(700));
        let now = sent.load(Ordering::SeqCst);
        if now > 0 && now == before {
            break;
        }
        assert!(Instant::now() < until, "{now} pieces were sent and nobody took any");
        before = now;
    }
    // More than both windows hold, while the answers stand still.
    let waker = pair.dialer.waker();
    for seed in 0..100 {
        let end = pair.primary.append(&noise(seed, 100_000), &waker);
        if seed % 10 == 9 {
            pair.acknowledged(end);
        }
    }
    drop((go.0, held.0));
    for asking in asking {
        assert!(matches!(asking.join().unwrap(), Err(BulkError::Broke(_))));
    }
    assert_eq!(pair.dialer.snapshot().reconnects, 0);
    pair.stop();
}

#[test]
fn a_question_that_is_not_answered_is_given_up_and_costs_nobody_else_anything() {
    let pair = connected();
    // Nobody answers there: it is turned away.
    assert_eq!(asked(&pair.dialer.bulk(), b"who".to_vec()).unwrap_or_default().len(), 0);
    let (tell, told) = channel::<()>();
    let told = std::sync::Mutex::new(told);
    pair.listener.bulk().answer_with(Arc::new(move |_: &mut Pipe| {
        told.lock().unwrap().recv().ok();
        Ok(())
    }));
    let late = pair.dialer.bulk().ask(Duration::from_millis(50), |pipe| {
        pipe.send(b"when")?;
        pipe.receive(&mut Vec::new())
    });
    assert!(matches!(late, Err(BulkError::TooLong { .. })), "{late:?}");
    drop(tell);
    let end = pair.primary.append(&noise(2, 100), &pair.dialer.waker());
    pair.acknowledged(end);
    assert_eq!(pair.dialer.snapshot().reconnects, 0);
    let bulk = pair.dialer.bulk();
    pair.stop();
    assert!(matches!(asked(&bulk, b"again".to_vec()), Err(BulkError::NotConnected)));
}

#[test]
fn one_question_at_a_time_is_asked() {
    let pair = connected();
    pair.listener.bulk().answer_with(Arc::new(echo(1)));
    let (begun, begins) = channel();
    let (go, waits) = channel::<()>();
    let bulk = pair.dialer.bulk();
    let first = std::thread::spawn(move || {
        bulk.ask(SOON, move |pipe| {
            begun.send(()).unwrap();
            waits.recv().ok();
            pipe.send(b"first")?;
            pipe.receive(&mut Vec::new())
        })
    });
    begins.recv().unwrap();
    assert!(matches!(asked(&pair.dialer.bulk(), b"second".to_vec()), Err(BulkError::Busy)));
    drop(go);
    first.join().unwrap().unwrap();
    assert_eq!(asked(&pair.dialer.bulk(), b"third".to_vec()).unwrap(), [b"third"]);
    pair.stop();
}
