//! Commands that were killed between any two steps, and are given again. Each file is there whole
//! or not at all, and files come in one order: what a kill leaves is the first few of them.

use super::*;
use crate::setup::record::Record;

/// Leaves the first `kept` of the files of a set-up.
fn kill_after(etc: &Path, kept: usize) -> Vec<String> {
    let files = Record::load(etc).unwrap().unwrap().files();
    for name in &files[kept..] {
        fs::remove_file(etc.join(name)).unwrap();
    }
    files
}

#[test]
fn init_goes_on_after_a_kill_between_any_two_steps() {
    let site = Site::new();
    let mut options = site.init();
    options.witness = Some("10.0.0.3:7432".parse().unwrap());
    prepare(&options, &facts("one"), None).unwrap();
    let etc = site.etc(1);
    let count = Record::load(&etc).unwrap().unwrap().files().len();
    assert_eq!(count, 11);
    for kept in 0..=count {
        let before = tree(&etc);
        let files = kill_after(&etc, kept);
        // A kill in the middle of writing the next one.
        if let Some(next) = files.get(kept) {
            fs::write(etc.join(format!("{next}.tmp")), "ha").unwrap();
        }
        prepare(&options, &facts("one"), None).unwrap();
        let after = tree(&etc);
        assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>(), "{kept}");
        for name in &files[..kept] {
            let path = etc.join(name);
            assert_eq!(before[&path], after[&path], "{name} was made anew after {kept} steps");
        }
        Ready::read(&etc).unwrap();
    }
}

#[test]
fn join_goes_on_after_a_kill_between_any_two_steps() {
    let site = Site::new();
    let alone = site.prepared();
    let (etc, state) = (site.etc(2), site.at(2).join("state"));
    let without_peer = site.text(1, CONFIG);
    let (code, waiting) = wait(alone, LIFE);
    joined(&site.join(&code));
    waiting.join().unwrap().unwrap();
    let with_peer = site.text(1, CONFIG);
    // The first one knows of the second one as soon as that has its certificate, the sixth file.
    let rounds = [(7, true), (6, true), (6, false)].into_iter();
    for (kept, known) in rounds.chain((0..6).rev().map(|kept| (kept, false))) {
        fs::remove_dir_all(&state).unwrap();
        fs::remove_dir_all(site.at(2).join(".data.duolog")).unwrap();
        fs::remove_dir_all(site.data(2)).unwrap();
        fs::create_dir(site.data(2)).unwrap();
        fs::write(site.data(2).join("old"), "kept").unwrap();
        let before = tree(&etc);
        let files = kill_after(&etc, kept);
        assert_eq!(files.len(), 7);
        let text = if known { &with_peer } else { &without_peer };
        fs::write(site.etc(1).join(CONFIG), text).unwrap();
        let came = if kept == files.len() {
            // Nobody waits any more.
            joined(&site.join(&code))
        } else {
            let (code, waiting) = wait(Ready::read(&site.etc(1)).unwrap(), LIFE);
            let came = joined(&site.join(&code));
            waiting.join().unwrap().unwrap();
            came
        };
        assert!(!came.already, "{kept} {known}");
        let Old::Aside(aside) = &came.old[0].1 else { panic!("{came:?}") };
        assert_eq!(fs::read(aside.join("old")).unwrap(), b"kept");
        fs::remove_dir_all(aside).unwrap();
        let after = tree(&etc);
        for name in &files[..kept] {
            let path = etc.join(name);
            assert_eq!(before[&path], after[&path], "{name} was made anew after {kept} steps");
        }
        if kept >= 6 {
            assert_eq!(site.text(1, CONFIG), with_peer, "{kept} {known}");
        }
        let own = [etc.join("node2.crt"), etc.join("node2.key")];
        let own = duolog_transport::Identity::load(&own[0], &own[1]).unwrap();
        let peer = site.config(1).peer.unwrap();
        assert!(peer.fingerprint.matches(&own.fingerprint()), "{kept} {known}");
    }
    assert!(joined(&site.join(&code)).already);

    // Killed when the old directory had just been moved away, and while another was deleted.
    fs::remove_dir_all(&state).unwrap();
    fs::remove_dir_all(site.at(2).join(".data.duolog")).unwrap();
    fs::remove_dir_all(site.data(2)).unwrap();
    let deleting = site.at(2).join(".data.duolog-deleting");
    fs::create_dir_all(deleting.join("base")).unwrap();
    let came = joined(&site.join(&code));
    assert!(!came.already && came.old == [(site.data(2), Old::Nothing)], "{came:?}");
    assert!(!deleting.exists() && site.at(2).join(".data.duolog/data").is_dir());
}
