//! Ends of unequal releases: what they speak is the newest that both know.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod pair;

use duolog_transport::bulk::BulkError;
use duolog_transport::{Protocol, Tuning, dial, listen};
use pair::{
    Pair, Primary, SOON, Secondary, dial_config, listen_config, loopback, quick, wait_stats,
};

const ENDS: [Protocol; 2] = [Protocol::OLDEST, Protocol::NEWEST];

/// The log is shipped between any two, and each end knows what was agreed.
#[test]
fn the_lower_of_the_two_newest_versions_counts() {
    for dials in ENDS {
        for listens in ENDS {
            let (primary, secondary) = Pair::nodes();
            let of = |newest_protocol| Tuning { newest_protocol, ..quick() };
            let config = listen_config(loopback(0), &of(listens));
            let listener = listen(config, Secondary(secondary.clone())).unwrap();
            let config = dial_config(listener.local_addr(), &of(dials));
            let dialer = dial(config, Primary(primary.clone())).unwrap();
            let pair = Pair { primary, secondary, dialer, listener };
            let end = pair.primary.append(b"a record", &pair.dialer.waker());
            pair.acknowledged(end);
            let agreed = dials.min(listens);
            let release = (agreed > Protocol::OLDEST).then(|| env!("CARGO_PKG_VERSION").to_owned());
            for link in [&pair.dialer, &pair.listener] {
                wait_stats(link, &format!("{dials:?} to {listens:?}"), |stats| {
                    stats.protocol == Some(agreed) && stats.peer_release == release
                });
            }
            // An older end says no times, and would refuse an acknowledgement with one.
            assert_eq!(pair.dialer.snapshot().reconnects, 0, "{dials:?} to {listens:?}");
            let said = pair.primary.state().disk_us_max;
            assert_eq!(said > 0, agreed > Protocol::OLDEST, "{dials:?} to {listens:?}: {said} us");
            // An older end knows no questions, and is not asked any.
            for link in [&pair.dialer, &pair.listener] {
                let asked = link.bulk().ask(SOON, |pipe| pipe.send(b"a question"));
                let told = !matches!(asked, Err(BulkError::NotConnected));
                assert_eq!(told, agreed > Protocol::OLDEST, "{dials:?} to {listens:?}: {asked:?}");
            }
            pair.stop();
        }
    }
}
