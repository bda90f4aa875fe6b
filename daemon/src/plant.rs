//! Faults that are planted on purpose, to see whether `tests/campaign` notices them. Only a test
//! build with the feature `planted-faults` has them, and of that only one that is told which by
//! `DUOLOG_PLANT`; an optimised build refuses to be made with the feature. In every other build
//! each question here is answered "no" by a constant.

#[cfg(all(feature = "planted-faults", not(debug_assertions)))]
compile_error!("planted-faults is for test builds: nothing that is installed may contain it");

/// What is wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    /// The follower acknowledges what it has received, and syncs it a little later.
    AckBeforeSync,
    /// The witness compares numbers alone: it believes that each request builds on the newest view.
    GrantWithoutBase,
}

/// Whether this fault is planted.
#[cfg(not(feature = "planted-faults"))]
pub(crate) const fn planted(_: Plant) -> bool {
    false
}

/// Whether this fault is planted.
#[cfg(feature = "planted-faults")]
pub(crate) fn planted(plant: Plant) -> bool {
    static WANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let wanted = WANTED.get_or_init(|| {
        let wanted = std::env::var("DUOLOG_PLANT").ok();
        if let Some(name) = &wanted {
            tracing::error!(name, "a fault is planted: this is a test of the tests");
        }
        wanted
    });
    wanted.as_deref() == Some(&format!("{plant:?}"))
}
