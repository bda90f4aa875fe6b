//! What a witness grants and refuses.

use duolog_failover::message::{Ask, Refusal};
use duolog_failover::{Now, Question, Reply, Witness, WitnessEffect};
use duolog_wal::{NodeId, View};

use crate::bench::{N1, N2, WID, alone, pair};

/// Long after its start, so that what it forgot no longer counts.
const NOW: Now = Now(1_000_000);

fn witness(reg: View) -> Witness {
    Witness::new(WID, Some(reg), Now(0))
}

fn ask(witness: &mut Witness, node: NodeId, view: View, base: View) -> Vec<WitnessEffect> {
    let ask = Ask { view, base, nonce: 1, failover_ms: 5_000 };
    witness.step(NOW, node, &Question::Ask(ask))
}

fn granted(effects: &[WitnessEffect]) -> Option<View> {
    match effects.last() {
        Some(WitnessEffect::Reply(Reply::Grant { view, .. })) => Some(*view),
        _ => None,
    }
}

fn refused(effects: &[WitnessEffect]) -> Option<Refusal> {
    match effects.last() {
        Some(WitnessEffect::Reply(Reply::Refuse { why, .. })) => Some(*why),
        _ => None,
    }
}

#[test]
fn r1_a_higher_number_on_an_older_base_is_refused() {
    let mut w = witness(pair(1, N1));
    let effects = ask(&mut w, N2, alone(2, N2), pair(1, N1));
    assert_eq!(effects[0], WitnessEffect::Persist(alone(2, N2)), "durable before it is said");
    assert_eq!(granted(&effects), Some(alone(2, N2)));
    let effects = ask(&mut w, N1, alone(3, N1), pair(1, N1));
    assert_eq!(refused(&effects), Some(Refusal::Newer));
}

#[test]
fn r2_an_own_proposal_is_no_base() {
    let mut w = witness(alone(2, N1));
    let effects = ask(&mut w, N2, alone(3, N2), pair(1, N1));
    assert_eq!(refused(&effects), Some(Refusal::Newer));
    assert_eq!(w.reg(), Some(alone(2, N1)));
}

#[test]
fn r11_a_blank_witness_grants_nothing() {
    let mut blank = Witness::new(WID + 1, None, Now(0));
    let effects = ask(&mut blank, N2, alone(2, N2), pair(1, N1));
    assert_eq!(refused(&effects), Some(Refusal::OtherWitness));
    // Nor does a delayed word of an older view bring it back.
    assert!(blank.step(NOW, N1, &Question::Learn { view: pair(1, N1) }).is_empty());
    let effects = ask(&mut blank, N2, alone(2, N2), pair(1, N1));
    assert_eq!(refused(&effects), Some(Refusal::OtherWitness));
    assert_eq!(blank.reg(), None);
}

#[test]
fn r17_a_grant_that_was_not_used_does_not_stand_in_the_way_of_its_owner() {
    let mut w = witness(alone(2, N1));
    let effects = ask(&mut w, N1, alone(3, N1), pair(1, N1));
    assert_eq!(granted(&effects), Some(alone(3, N1)));
    // A request that comes late is answered with what stands.
    let effects = ask(&mut w, N1, alone(2, N1), pair(1, N1));
    assert_eq!(granted(&effects), Some(alone(3, N1)));
    let effects = ask(&mut w, N2, alone(4, N2), pair(1, N1));
    assert_eq!(refused(&effects), Some(Refusal::Newer));
}
