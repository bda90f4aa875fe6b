//! The inputs that fuzzing began with and those that once failed, each through its check again.

use std::fs;
use std::path::Path;

use duolog_fuzz::CHECKS;

#[test]
fn every_input_of_every_corpus_passes_its_check() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (target, check) in CHECKS {
        let mut inputs = 0;
        for entry in fs::read_dir(corpora.join(target)).unwrap() {
            let path = entry.unwrap().path();
            // Said by the panic of a check that fails.
            println!("{}", path.display());
            check(&fs::read(&path).unwrap());
            inputs += 1;
        }
        assert!(inputs > 1, "the corpus of {target} has {inputs} inputs");
    }
    let folders = fs::read_dir(&corpora).unwrap().count();
    assert_eq!(folders, CHECKS.len(), "a corpus belongs to no check");
}

#[test]
fn every_target_has_a_dictionary_that_the_fuzzer_reads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/dictionaries");
    for (target, _) in CHECKS {
        let text = fs::read_to_string(folder.join(format!("{target}.dict"))).unwrap();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.split_once('=').unwrap();
            assert!(
                !name.contains(' ') && value.starts_with('"') && value.ends_with('"'),
                "{line}"
            );
        }
    }
}
