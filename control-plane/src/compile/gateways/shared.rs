//! Rules that are the same at several listeners and host names, kept once.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use selvedge_model::Rule;

/// Of rules with one name, as many of the newest are compared with a new one. They differ in the places of their backends,
/// or in what is for the port or the workload.
const COMPARED: usize = 8;

/// The rules of all gateways, by their names.
#[derive(Debug, Default)]
pub(super) struct SharedRules(RefCell<HashMap<String, Vec<Arc<Rule>>>>);

impl SharedRules {
    /// `rule`, as the one that is equal to it if there is one.
    pub(super) fn share(&self, rule: Rule) -> Arc<Rule> {
        let mut known = self.0.borrow_mut();
        let Some(alike) = known.get_mut(&rule.name) else {
            let (name, rule) = (rule.name.clone(), Arc::new(rule));
            known.insert(name, vec![Arc::clone(&rule)]);
            return rule;
        };
        if let Some(same) = alike.iter().rev().take(COMPARED).find(|one| ***one == rule) {
            return Arc::clone(same);
        }
        let rule = Arc::new(rule);
        alike.push(Arc::clone(&rule));
        rule
    }
}
