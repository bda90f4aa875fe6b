//! Other rules for services that are watched already.

use super::{Check, CheckRules, Policy, Rules};

impl Check {
    /// One that has found nothing yet.
    pub(super) fn new(rules: &CheckRules, due_ms: u64) -> Self {
        let (rules, found) = (rules.clone(), None);
        Self { rules, due_ms, asked: false, passed: false, failures: 0, found }
    }

    /// Whether it failed so often in a row that its service counts as failed.
    pub(super) const fn is_over(&self) -> bool {
        self.failures >= self.rules.failures
    }
}

impl Policy {
    /// Watches by these rules, one for each service. Where the checks of a service are others, they
    /// begin anew, and what earlier ones are about to find counts no more; restarts that began
    /// still do.
    pub(super) fn go_by(&mut self, now_ms: u64, rules: Vec<Rules>) {
        assert_eq!(rules.len(), self.services.len(), "other services need another policy");
        for (service, rules) in self.services.iter_mut().zip(rules) {
            // What a check does may be another thing though it counts as before.
            service.run += 1;
            service.checks = rules.checks.iter().map(|rules| Check::new(rules, now_ms)).collect();
            service.rules = rules;
        }
    }
}
