//! What the policy promises, with a clock that is given.

use super::*;

const SECOND: u64 = 1_000;

fn rules(restarts: u32, checks: usize) -> Rules {
    let check = CheckRules { interval_ms: 5 * SECOND, failures: 2, restarts: None };
    Rules {
        process: true,
        restarts,
        window_ms: 600 * SECOND,
        start_ms: 60 * SECOND,
        checks: vec![check; checks],
    }
}

/// The policy with its clock.
struct Run {
    policy: Policy,
    now_ms: u64,
}

impl Run {
    fn new(services: Vec<Rules>) -> Self {
        let mut run = Self { policy: Policy::new(services, Switched::ON), now_ms: 1_000_000 };
        assert_eq!(run.tick(), [], "nothing is checked before it was started");
        run
    }

    fn step(&mut self, event: Event) -> Vec<Effect> {
        self.policy.step(self.now_ms, event)
    }

    fn tick(&mut self) -> Vec<Effect> {
        self.step(Event::Tick)
    }

    /// The checks that begin.
    fn checks(effects: &[Effect]) -> Vec<CheckId> {
        let check = |effect: &Effect| match effect {
            Effect::Check(id) => Some(*id),
            _ => None,
        };
        effects.iter().filter_map(check).collect()
    }

    /// Goes to the next check of the first service, and has it find this.
    fn next(&mut self, finding: &Finding) -> Vec<Effect> {
        self.now_ms = self.now_ms.max(self.policy.deadline().unwrap());
        let begun = Self::checks(&self.tick());
        let id = *begun.iter().find(|id| id.service == 0).unwrap();
        self.step(Event::Checked(id, finding.clone()))
    }
}

fn failed() -> Finding {
    Finding::Failed("no answer".into())
}

fn restart(service: usize) -> Vec<Effect> {
    vec![Effect::Restart { service, cause: "no answer".into() }]
}

/// Started, and its one check has passed.
fn well(restarts: u32) -> Run {
    let mut run = Run::new(vec![rules(restarts, 1)]);
    let begun = Run::checks(&run.step(Event::Started));
    assert_eq!(run.step(Event::Checked(begun[0], Finding::Well)), []);
    run
}

#[test]
fn so_many_failures_in_a_row_make_a_restart_and_one_fewer_does_not() {
    let mut run = well(1);
    assert_eq!(run.next(&failed()), []);
    assert_eq!(run.next(&Finding::Well), [], "in between it was well");
    assert_eq!(run.next(&failed()), []);
    assert_eq!(run.policy.health(0), Health::Well);
    assert_eq!(run.next(&failed()), restart(0));
    assert_eq!(run.policy.health(0), Health::Failed);
}

#[test]
fn an_answer_that_is_too_slow_counts_as_a_failure() {
    let mut run = well(1);
    let slow = Finding::Slow("no answer".into());
    assert_eq!(run.next(&slow), []);
    let since_ms = run.now_ms;
    assert_eq!(run.next(&failed()), restart(0));
    let found = run.policy.found(0)[0].clone().unwrap();
    assert_eq!((found.since_ms, found.failures), (since_ms, 2));
}

/// A SQL server that recovers refuses connections for a while, which is no failure.
#[test]
fn a_check_that_has_not_passed_yet_counts_only_after_the_time_to_start() {
    let mut run = Run::new(vec![rules(1, 1)]);
    let begun = run.now_ms;
    let first = Run::checks(&run.step(Event::Started));
    assert_eq!(run.step(Event::Checked(first[0], failed())), []);
    while run.policy.deadline().unwrap() < begun + 60 * SECOND {
        assert_eq!(run.next(&failed()), []);
        assert_eq!(run.policy.health(0), Health::Starting);
    }
    assert_eq!(run.next(&failed()), [], "the first that counts");
    assert_eq!(run.next(&failed()), restart(0));
}

#[test]
fn restarts_are_counted_within_their_window_and_then_it_gives_up() {
    let mut run = well(2);
    for round in 0..2 {
        run.now_ms += 10 * SECOND;
        let ended = run.step(Event::Ended { service: 0, how: "no answer".into() });
        assert_eq!(ended, restart(0), "{round}");
        assert_eq!(Run::checks(&run.step(Event::Restarted)).len(), 1);
    }
    assert_eq!(run.policy.restarts(run.now_ms, 0), 2);
    // The first of them is no longer within the window, the second one is.
    run.now_ms += 591 * SECOND;
    let ended = run.step(Event::Ended { service: 0, how: "no answer".into() });
    assert_eq!(ended, restart(0));
    let _ = run.step(Event::Restarted);
    let ended = run.step(Event::Ended { service: 0, how: "no answer".into() });
    assert_eq!(ended, [Effect::GiveUp { service: 0, cause: "no answer".into() }]);
    // From then on nothing more is done here.
    assert_eq!(run.step(Event::Ended { service: 0, how: "again".into() }), []);
    run.now_ms += 3600 * SECOND;
    assert_eq!(run.tick(), []);
    assert_eq!(run.policy.deadline(), None);
}

#[test]
fn a_start_after_giving_up_does_not_bring_new_restarts_unless_it_halted() {
    for halted in [false, true] {
        let mut run = well(1);
        assert_eq!(run.step(Event::Ended { service: 0, how: "no answer".into() }), restart(0));
        let _ = run.step(Event::Restarted);
        let ended = run.step(Event::Ended { service: 0, how: "x".into() });
        assert!(matches!(ended[..], [Effect::GiveUp { .. }]), "{ended:?}");
        if halted {
            assert_eq!(run.step(Event::Halted), []);
        }
        assert_eq!(run.step(Event::Stopped), []);
        let _ = run.step(Event::Started);
        let ended = run.step(Event::Ended { service: 0, how: "x".into() });
        assert_eq!(matches!(ended[..], [Effect::Restart { .. }]), halted, "{ended:?}");
    }
}

#[test]
fn a_check_may_allow_fewer_restarts_than_its_service() {
    let mut strict = rules(5, 2);
    strict.checks[1].restarts = Some(0);
    strict.checks[1].failures = 1;
    let mut run = Run::new(vec![strict]);
    let begun = Run::checks(&run.step(Event::Started));
    let _ = run.step(Event::Checked(begun[1], Finding::Well));
    run.now_ms += 5 * SECOND;
    let begun = Run::checks(&run.tick());
    let gave_up = run.step(Event::Checked(begun[0], failed()));
    assert_eq!(gave_up, [Effect::GiveUp { service: 0, cause: "no answer".into() }]);
}

/// Later services depend on earlier ones; earlier ones go on.
#[test]
fn a_restart_begins_new_runs_of_the_service_and_of_those_after_it_alone() {
    let mut run = Run::new(vec![rules(1, 1), rules(1, 1), rules(1, 1)]);
    let begun = Run::checks(&run.step(Event::Started));
    assert_eq!(begun.iter().map(|id| id.service).collect::<Vec<_>>(), [0, 1, 2]);
    let ended = run.step(Event::Ended { service: 1, how: "no answer".into() });
    assert_eq!(ended, restart(1));
    assert_eq!(run.tick(), [], "nothing is checked while it goes on");
    // What was on its way about what was ended does not count; nor do ends meanwhile.
    for id in &begun {
        assert_eq!(run.step(Event::Checked(*id, failed())), []);
    }
    assert_eq!(run.step(Event::Ended { service: 2, how: "x".into() }), []);
    let again = Run::checks(&run.step(Event::Restarted));
    assert_eq!(again.iter().map(|id| id.service).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(again[0].run, begun[0].run);
    assert!(again[1].run > begun[1].run && again[2].run > begun[2].run);
    for id in &begun[1..] {
        for _ in 0..3 {
            assert_eq!(run.step(Event::Checked(*id, failed())), []);
        }
    }
    assert_eq!(run.policy.found(1), [None]);
}

/// The services before the one that is restarted go on, and so do their checks.
#[test]
fn a_check_that_was_called_off_by_a_restart_is_carried_out_afterwards() {
    let mut run = Run::new(vec![rules(1, 1), rules(1, 0)]);
    let begun = Run::checks(&run.step(Event::Started));
    let ended = run.step(Event::Ended { service: 1, how: "no answer".into() });
    assert_eq!(ended, restart(1));
    assert_eq!(run.step(Event::NotChecked(begun[0])), []);
    assert_eq!(Run::checks(&run.step(Event::Restarted)), begun);
}

#[test]
fn a_service_that_does_not_start_again_is_restarted_as_often_as_it_may_be() {
    let mut run = Run::new(vec![rules(1, 0), rules(1, 0)]);
    let _ = run.step(Event::Started);
    let ended = run.step(Event::Ended { service: 0, how: "no answer".into() });
    assert_eq!(ended, restart(0));
    let not = |service| Event::NotRestarted { service, cause: "no answer".into() };
    // Once more for the second one, from the first one on.
    assert_eq!(run.step(not(1)), restart(0));
    assert_eq!(run.step(not(1)), [Effect::GiveUp { service: 1, cause: "no answer".into() }]);
}

/// A restart may take minutes, and somebody suspends the error detection meanwhile to look for himself.
#[test]
fn a_restart_that_is_in_vain_while_it_is_suspended_counts_once_it_is_resumed() {
    let not = || Event::NotRestarted { service: 0, cause: "no answer".into() };
    for stopped in [false, true] {
        let mut run = well(1);
        assert_eq!(run.step(Event::Ended { service: 0, how: "no answer".into() }), restart(0));
        assert_eq!(run.step(Event::Suspend(true)), []);
        assert_eq!(run.step(not()), []);
        assert_eq!(run.policy.health(0), Health::Failed, "it is shown");
        run.now_ms += 3600 * SECOND;
        assert_eq!(run.tick(), []);
        if stopped {
            assert_eq!(run.step(Event::Stopped), []);
            assert_eq!(run.step(Event::Suspend(false)), [], "that is over");
            continue;
        }
        assert_eq!(
            run.step(Event::Suspend(false)),
            restart(0),
            "the first one is out of the window"
        );
        assert_eq!(run.step(not()), [Effect::GiveUp { service: 0, cause: "no answer".into() }]);
    }
}

#[test]
fn while_it_is_suspended_checks_go_on_and_neither_they_nor_an_end_counts() {
    let mut run = well(1);
    assert_eq!(run.step(Event::Suspend(true)), []);
    assert!(run.policy.switched().suspended && run.policy.health(0) == Health::Well);
    for _ in 0..5 {
        assert_eq!(run.next(&failed()), []);
    }
    assert_eq!(run.policy.health(0), Health::Failed, "it is shown");
    assert_eq!(run.policy.found(0)[0].as_ref().unwrap().failures, 5);
    assert_eq!(run.step(Event::Ended { service: 0, how: "x".into() }), []);
    let begun = Run::checks(&run.step(Event::Suspend(false)));
    assert_eq!(begun.len(), 1, "it looks at once");
    assert_eq!(run.policy.health(0), Health::Starting, "what was found before counts no more");
    assert_eq!(run.step(Event::Checked(begun[0], failed())), []);
    assert_eq!(run.step(Event::Ended { service: 0, how: "no answer".into() }), restart(0));
}

#[test]
fn while_checkers_are_stopped_none_looks_and_an_end_counts() {
    let mut run = well(2);
    run.now_ms = run.policy.deadline().unwrap();
    let asked = Run::checks(&run.tick());
    assert_eq!(run.step(Event::Checkers(false)), []);
    // The first one was on its way.
    for _ in 0..2 {
        assert_eq!(run.step(Event::Checked(asked[0], failed())), []);
    }
    run.now_ms += 3600 * SECOND;
    assert_eq!((run.tick(), run.policy.deadline()), (Vec::new(), None));
    assert_eq!((run.policy.health(0), run.policy.found(0)), (Health::Unwatched, vec![None]));
    assert_eq!(run.step(Event::Ended { service: 0, how: "no answer".into() }), restart(0));
    assert_eq!(run.step(Event::Restarted), [], "nor after a restart");
    let begun = Run::checks(&run.step(Event::Checkers(true)));
    assert_eq!(begun.len(), 1, "they look at once");
    assert_eq!(run.step(Event::Checked(begun[0], Finding::Well)), []);
    assert_eq!((run.next(&failed()), run.next(&failed())), (Vec::new(), restart(0)));
}

/// Each is of its own: what one switches off, the other one does not switch on.
#[test]
fn checkers_that_are_started_do_not_resume_the_error_detection_nor_the_other_way_round() {
    let mut run = well(1);
    let off = Switched { suspended: true, checkers: false };
    run.policy = Policy::new(vec![rules(1, 1)], off);
    assert_eq!(run.step(Event::Started), []);
    assert_eq!(run.step(Event::Suspend(false)), []);
    assert_eq!(run.policy.deadline(), None);
    let _ = run.step(Event::Suspend(true));
    let begun = Run::checks(&run.step(Event::Checkers(true)));
    assert_eq!(run.step(Event::Checked(begun[0], Finding::Well)), []);
    for _ in 0..3 {
        assert_eq!(run.next(&failed()), []);
    }
    assert_eq!(run.policy.switched(), Switched { suspended: true, checkers: true });
}

#[test]
fn an_end_does_not_count_where_the_process_is_not_watched() {
    let mut run = Run::new(vec![Rules { process: false, ..rules(1, 1) }]);
    let _ = run.step(Event::Started);
    assert_eq!(run.step(Event::Ended { service: 0, how: "x".into() }), []);
}

/// A restart is no way to get more of them, and an earlier checker says nothing of the one that took
/// its place.
#[test]
fn other_rules_count_at_once_and_what_was_found_by_the_ones_before_does_not() {
    let mut run = well(2);
    run.now_ms = run.policy.deadline().unwrap();
    let asked = Run::checks(&run.tick());
    let begun = run.step(Event::Rules(vec![rules(0, 2)]));
    let checks = Run::checks(&begun);
    assert_eq!(checks.len(), 2, "the new ones begin: {begun:?}");
    for id in &asked {
        assert_eq!(run.step(Event::Checked(*id, failed())), []);
    }
    assert!(run.policy.found(0).iter().all(Option::is_none));
    assert_eq!(run.step(Event::Checked(checks[0], Finding::Well)), []);
    assert_eq!(run.next(&failed()), []);
    let last = run.next(&failed());
    assert!(
        matches!(last[..], [Effect::GiveUp { service: 0, .. }]),
        "no restart is left: {last:?}"
    );
}
