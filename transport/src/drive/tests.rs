//! The drive alone: what wakes it, whose thread a task runs on, and how it ends. No QUIC is in it but the
//! socket.

use std::future::{pending, poll_fn};
use std::net::Ipv4Addr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::ThreadId;

use tokio::sync::oneshot;

use super::*;

const SOON: Duration = Duration::from_secs(20);

fn drive() -> Drive {
    Drive::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).unwrap()
}

/// Runs the drive on a thread of its own until what is returned is dropped.
fn runs(drive: &Drive) -> (oneshot::Sender<()>, ThreadId) {
    let (goes_on, end) = oneshot::channel();
    let drive = drive.clone();
    let thread = std::thread::spawn(move || drive.block_on(async { end.await.ok() }));
    (goes_on, thread.thread().id())
}

/// A task that says on which thread it ran, each time when it is woken by what is returned with that.
fn sayer(drive: &Drive) -> (Waker, Receiver<ThreadId>) {
    let (say, said) = channel();
    let (tell, told) = channel();
    let mut tell: Option<Sender<Waker>> = Some(tell);
    drive.spawn(Box::pin(poll_fn(move |context| {
        if let Some(tell) = tell.take() {
            tell.send(context.waker().clone()).unwrap();
        } else {
            say.send(std::thread::current().id()).unwrap();
        }
        Poll::Pending
    })));
    (told.recv_timeout(SOON).unwrap(), said)
}

/// However the link's thread and the one that wakes meet: while it runs, falls asleep or sleeps.
#[test]
fn a_task_that_another_thread_wakes_runs() {
    let drive = drive();
    let (_goes_on, link) = runs(&drive);
    let (waker, said) = sayer(&drive);
    for _ in 0..3_000 {
        waker.wake_by_ref();
        assert_eq!(said.recv_timeout(SOON), Ok(link));
    }
}

#[test]
fn a_lent_hand_runs_what_it_made_ready_and_leaves_the_rest() {
    let drive = drive();
    let (_goes_on, link) = runs(&drive);
    let tasks: Vec<_> = (0..=HAND_RUNS).map(|_| sayer(&drive)).collect();
    let mine = std::thread::current().id();
    for _ in 0..500 {
        drive.lend_a_hand(|| {
            for (waker, _) in &tasks {
                waker.wake_by_ref();
            }
            true
        });
        let by: Vec<_> = tasks.iter().map(|(_, said)| said.recv_timeout(SOON).unwrap()).collect();
        // The link's thread may have been awake still and faster.
        assert!(by.iter().all(|by| *by == mine || *by == link), "{by:?}");
        assert_eq!(by[HAND_RUNS], link, "{by:?}");
    }
    // By now it sleeps, for it has nothing to do for longer than a tick.
    std::thread::park_timeout(2 * TICK);
    drive.lend_a_hand(|| {
        tasks[0].0.wake_by_ref();
        true
    });
    assert_eq!(tasks[0].1.recv_timeout(SOON), Ok(mine));
}

/// The link's thread sleeps without an end when the hand sets the timer.
#[test]
fn a_timer_that_a_hand_sets_is_seen_by_the_thread_that_sleeps() {
    let drive = drive();
    let (_goes_on, link) = runs(&drive);
    let (set, go) = channel::<()>();
    let (fired, saw) = channel();
    let mut timer = None;
    let (tell, told) = channel();
    let mut tell = Some(tell);
    let of = drive.clone();
    drive.spawn(Box::pin(poll_fn(move |context| {
        if let Some(tell) = tell.take() {
            tell.send(context.waker().clone()).unwrap();
            return Poll::Pending;
        }
        if timer.is_none() && go.try_recv().is_ok() {
            timer = Some(of.new_timer(Instant::now() + 2 * TICK));
        }
        let due = timer.as_mut().map(|timer| timer.as_mut().poll(context));
        if due == Some(Poll::Ready(())) {
            fired.send(std::thread::current().id()).unwrap();
            return Poll::Ready(());
        }
        Poll::Pending
    })));
    let waker = told.recv_timeout(SOON).unwrap();
    std::thread::park_timeout(2 * TICK);
    let begun = Instant::now();
    drive.lend_a_hand(|| {
        set.send(()).unwrap();
        waker.wake_by_ref();
        true
    });
    assert_eq!(saw.recv_timeout(SOON), Ok(link));
    assert!(begun.elapsed() >= 2 * TICK);
}

/// What a task holds is dropped with the drive, although a task and what wakes it hold each other.
#[test]
fn the_tasks_end_with_the_links_own_work() {
    let drive = drive();
    let (held, gone) = channel::<()>();
    let (tell, told) = channel();
    drive.spawn(Box::pin(async move {
        let _held = held;
        tell.send(poll_fn(|context| Poll::Ready(context.waker().clone())).await).unwrap();
        pending::<()>().await;
    }));
    let mut rounds = 0;
    drive.block_on(poll_fn(|context| {
        rounds += 1;
        context.waker().wake_by_ref();
        if rounds > 3 { Poll::Ready(()) } else { Poll::Pending }
    }));
    let waker = told.try_recv().unwrap();
    assert!(
        gone.try_recv().is_err_and(|error| error == std::sync::mpsc::TryRecvError::Disconnected)
    );
    waker.wake();
    assert_eq!(Arc::strong_count(&drive.0), 1, "a task that was woken too late is not kept");
}
