//! Who may do what.
//!
//! What comes in has limits: a policy is asked with each request, and what this proxy cannot hold it must refuse as a
//! whole, not cut.

use std::{collections::BTreeSet, sync::Arc};

use selvedge_model::{
    Authorization, HeaderField,
    policy::{
        Action, AddressSet, Asks, Condition, LONGEST_TEXT, MOST_CONDITIONS, MOST_RULES, MOST_VALUES, PathSet,
        PathTemplate, Policy, Rule, TextPattern, TextSet, address,
    },
};

use super::{ConvertError, all, invalid, parse, port, required};
use crate::wire::{self, condition::Asks as Wire, text_pattern::Kind};

/// Refuses more than `largest` of `field`.
pub(super) fn at_most(field: &'static str, count: usize, largest: usize) -> Result<(), ConvertError> {
    let number = |count| u64::try_from(count).unwrap_or(u64::MAX);
    if count <= largest {
        return Ok(());
    }
    Err(ConvertError::OutOfRange { field, value: number(count), largest: number(largest) })
}

pub(super) fn text(text: String) -> Result<Box<str>, ConvertError> {
    at_most("length of a policy's text", text.len(), LONGEST_TEXT)?;
    Ok(text.into())
}

impl From<&Authorization> for wire::Authorization {
    fn from(authorization: &Authorization) -> Self {
        Self { policies: authorization.policies().iter().map(Into::into).collect() }
    }
}

impl TryFrom<wire::Authorization> for Authorization {
    type Error = ConvertError;

    fn try_from(authorization: wire::Authorization) -> Result<Self, ConvertError> {
        let rules = authorization.policies.iter().map(|policy| policy.rules.len());
        at_most("number of a workload's policy rules", rules.sum(), MOST_RULES)?;
        at_most("number of a workload's policies", authorization.policies.len(), MOST_RULES)?;
        Ok(Self::new(all(authorization.policies)?))
    }
}

impl From<Action> for wire::AuthorizationAction {
    fn from(action: Action) -> Self {
        match action {
            Action::Audit => Self::Audit,
            Action::Deny => Self::Deny,
            Action::Allow => Self::Allow,
        }
    }
}

impl From<&Policy> for wire::AuthorizationPolicy {
    fn from(policy: &Policy) -> Self {
        Self {
            name: policy.name.to_string(),
            action: wire::AuthorizationAction::from(policy.action).into(),
            dry_run: policy.dry_run,
            ports: policy.ports.as_ref().map(Into::into),
            rules: policy.rules.iter().map(Into::into).collect(),
            why: policy.why.as_deref().map(str::to_owned),
        }
    }
}

impl TryFrom<wire::AuthorizationPolicy> for Policy {
    type Error = ConvertError;

    fn try_from(policy: wire::AuthorizationPolicy) -> Result<Self, ConvertError> {
        let action = match wire::AuthorizationAction::try_from(policy.action) {
            Ok(wire::AuthorizationAction::Audit) => Action::Audit,
            Ok(wire::AuthorizationAction::Deny) => Action::Deny,
            Ok(wire::AuthorizationAction::Allow) => Action::Allow,
            Ok(wire::AuthorizationAction::Unspecified) | Err(_) => {
                return Err(ConvertError::Unknown { field: "action of a policy", value: policy.action });
            }
        };
        Ok(Self {
            name: Arc::from(policy.name),
            action,
            dry_run: policy.dry_run,
            ports: policy.ports.map(BTreeSet::try_from).transpose()?,
            rules: all(policy.rules)?,
            why: policy.why.map(Arc::from),
        })
    }
}

impl From<&BTreeSet<u16>> for wire::Ports {
    fn from(ports: &BTreeSet<u16>) -> Self {
        Self { list: ports.iter().map(|port| u32::from(*port)).collect() }
    }
}

impl TryFrom<wire::Ports> for BTreeSet<u16> {
    type Error = ConvertError;

    fn try_from(ports: wire::Ports) -> Result<Self, ConvertError> {
        at_most("number of a policy's ports", ports.list.len(), usize::from(u16::MAX))?;
        ports.list.into_iter().map(|number| port("port of a policy", number)).collect()
    }
}

impl From<&Rule> for wire::AuthorizationRule {
    fn from(rule: &Rule) -> Self {
        let alternatives =
            |list: &[Vec<Condition>]| list.iter().map(|one| wire::Conditions::from(&**one)).collect();
        Self {
            name: rule.name.to_string(),
            from: alternatives(&rule.from),
            to: alternatives(&rule.to),
            when: wire::Conditions::from(&*rule.when).list,
        }
    }
}

impl From<&[Condition]> for wire::Conditions {
    fn from(conditions: &[Condition]) -> Self {
        Self { list: conditions.iter().map(Into::into).collect() }
    }
}

impl TryFrom<wire::AuthorizationRule> for Rule {
    type Error = ConvertError;

    fn try_from(rule: wire::AuthorizationRule) -> Result<Self, ConvertError> {
        let alternatives = rule.from.len() + rule.to.len();
        let conditions = rule.from.iter().chain(&rule.to).map(|one| one.list.len()).sum::<usize>();
        at_most("number of a rule's alternatives", alternatives, MOST_CONDITIONS)?;
        at_most("number of a rule's conditions", conditions + rule.when.len(), MOST_CONDITIONS)?;
        let each =
            |list: Vec<wire::Conditions>| list.into_iter().map(|one| all(one.list)).collect::<Result<_, _>>();
        Ok(Self {
            name: Arc::from(rule.name),
            from: each(rule.from)?,
            to: each(rule.to)?,
            when: all(rule.when)?,
        })
    }
}

impl From<&Condition> for wire::Condition {
    fn from(condition: &Condition) -> Self {
        let asks = match &condition.asks {
            Asks::Principal(set) => Wire::Principal(set.into()),
            Asks::Namespace(set) => Wire::Namespace(set.into()),
            Asks::ServiceAccount(set) => Wire::ServiceAccount(set.into()),
            Asks::TrustDomain(set) => Wire::TrustDomain(set.into()),
            Asks::Source(set) => Wire::Source(set.into()),
            Asks::Remote(set) => Wire::Remote(set.into()),
            Asks::Destination(set) => Wire::Destination(set.into()),
            Asks::Port(ports) => Wire::Port(ports.into()),
            Asks::ServerName(set) => Wire::ServerName(set.into()),
            Asks::Host(set) => Wire::Host(set.into()),
            Asks::Method(set) => Wire::Method(set.into()),
            Asks::Path(set) => Wire::Path(set.into()),
            Asks::Target(set) => Wire::Header(wire::HeaderSet {
                name: HeaderField::Path.to_string(),
                values: Some(set.texts().into()),
            }),
            Asks::Header(name, set) => {
                Wire::Header(wire::HeaderSet { name: name.to_string(), values: Some(set.into()) })
            }
            Asks::RequestPrincipal(set) => Wire::RequestPrincipal(set.into()),
            Asks::Claim(path, set) => Wire::Claim(wire::ClaimSet {
                path: path.iter().map(|name| name.to_string()).collect(),
                values: Some(set.into()),
            }),
            Asks::Unknowable(key) => Wire::Unknowable(key.to_string()),
            Asks::Route(places) => Wire::Route(places.into()),
        };
        Self { negated: condition.negated, asks: Some(asks) }
    }
}

impl TryFrom<wire::Condition> for Condition {
    type Error = ConvertError;

    fn try_from(condition: wire::Condition) -> Result<Self, ConvertError> {
        let asks = match required("what a condition asks for", condition.asks)? {
            Wire::Principal(set) => Asks::Principal(set.try_into()?),
            Wire::Namespace(set) => Asks::Namespace(set.try_into()?),
            Wire::ServiceAccount(set) => Asks::ServiceAccount(set.try_into()?),
            Wire::TrustDomain(set) => Asks::TrustDomain(set.try_into()?),
            Wire::Source(set) => Asks::Source(set.try_into()?),
            Wire::Remote(set) => Asks::Remote(set.try_into()?),
            Wire::Destination(set) => Asks::Destination(set.try_into()?),
            Wire::Port(ports) => Asks::Port(ports.try_into()?),
            Wire::ServerName(set) => Asks::ServerName(set.try_into()?),
            Wire::Host(set) => Asks::Host(set.try_into()?),
            Wire::Method(set) => Asks::Method(set.try_into()?),
            Wire::Path(set) => Asks::Path(set.try_into()?),
            Wire::Header(header) => {
                let values = required("values of a header", header.values)?;
                Asks::header(parse("header of a condition", &header.name)?, values.try_into()?)
            }
            Wire::RequestPrincipal(set) => Asks::RequestPrincipal(set.try_into()?),
            Wire::Claim(claim) => {
                at_most("depth of a claim", claim.path.len(), 16)?;
                let path = claim.path.into_iter().map(text).collect::<Result<_, _>>()?;
                Asks::Claim(path, required("values of a claim", claim.values)?.try_into()?)
            }
            Wire::Unknowable(key) => Asks::Unknowable(text(key)?),
            Wire::Route(places) => Asks::Route(places.try_into()?),
        };
        Ok(Self { negated: condition.negated, asks })
    }
}

impl From<&TextSet> for wire::TextSet {
    fn from(set: &TextSet) -> Self {
        let mut wire = Self::default();
        for pattern in set.patterns() {
            let kind = match pattern {
                TextPattern::Exact(text) => {
                    wire.exact.push(text.into());
                    continue;
                }
                TextPattern::Prefix(text) => Kind::Prefix(text.into()),
                TextPattern::Suffix(text) => Kind::Suffix(text.into()),
                TextPattern::Present => Kind::Present(true),
                TextPattern::Glob(parts) => {
                    Kind::Glob(wire::Glob { parts: parts.into_iter().map(Into::into).collect() })
                }
            };
            wire.others.push(wire::TextPattern { kind: Some(kind) });
        }
        wire
    }
}

impl TryFrom<wire::TextSet> for TextSet {
    type Error = ConvertError;

    fn try_from(set: wire::TextSet) -> Result<Self, ConvertError> {
        at_most("number of a condition's values", set.exact.len() + set.others.len(), MOST_VALUES)?;
        let exact = set.exact.into_iter().map(|exact| Ok(TextPattern::Exact(text(exact)?)));
        exact.chain(set.others.into_iter().map(TextPattern::try_from)).collect()
    }
}

impl TryFrom<wire::TextPattern> for TextPattern {
    type Error = ConvertError;

    fn try_from(pattern: wire::TextPattern) -> Result<Self, ConvertError> {
        Ok(match required("kind of a pattern", pattern.kind)? {
            Kind::Prefix(prefix) => Self::Prefix(text(prefix)?),
            Kind::Suffix(suffix) => Self::Suffix(text(suffix)?),
            Kind::Present(true) => Self::Present,
            Kind::Present(false) => {
                return Err(invalid("kind of a pattern", "present: false", &"only true is known"));
            }
            Kind::Glob(glob) if glob.parts.len() < 2 => {
                return Err(invalid("kind of a pattern", "glob", &"it has fewer than two parts"));
            }
            Kind::Glob(glob) => {
                at_most("number of a pattern's parts", glob.parts.len(), LONGEST_TEXT)?;
                Self::Glob(glob.parts.into_iter().map(text).collect::<Result<_, _>>()?)
            }
        })
    }
}

impl From<&AddressSet> for wire::AddressSet {
    fn from(set: &AddressSet) -> Self {
        Self { blocks: set.blocks().iter().map(ToString::to_string).collect() }
    }
}

impl TryFrom<wire::AddressSet> for AddressSet {
    type Error = ConvertError;

    fn try_from(set: wire::AddressSet) -> Result<Self, ConvertError> {
        at_most("number of a condition's addresses", set.blocks.len(), MOST_VALUES)?;
        let block = |text: String| {
            address::block(&text)
                .ok_or_else(|| invalid("address of a condition", &text, &"it is not a block"))
        };
        Ok(Self::new(set.blocks.into_iter().map(block).collect::<Result<Vec<_>, _>>()?))
    }
}

impl From<&PathSet> for wire::PathSet {
    fn from(set: &PathSet) -> Self {
        let templates = set.templates().iter().map(|template| template.source().to_owned());
        Self { texts: Some(set.texts().into()), templates: templates.collect() }
    }
}

impl TryFrom<wire::PathSet> for PathSet {
    type Error = ConvertError;

    fn try_from(set: wire::PathSet) -> Result<Self, ConvertError> {
        at_most("number of a condition's templates", set.templates.len(), MOST_VALUES)?;
        let template = |source: String| {
            let source = text(source)?;
            PathTemplate::new(&source).map_err(|error| invalid("path template", &source, &error))
        };
        let templates = set.templates.into_iter().map(template).collect::<Result<_, _>>()?;
        Ok(Self::new(&required("texts of a path", set.texts)?.try_into()?, templates))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    fn name() -> impl Strategy<Value = Arc<str>> {
        "[A-Za-z/ ]{1,12}".prop_map(Arc::from)
    }

    fn texts() -> impl Strategy<Value = TextSet> {
        let part = || "[a-z/*]{0,8}".prop_map(Box::<str>::from);
        let pattern = prop_oneof![
            part().prop_map(TextPattern::Exact),
            part().prop_map(TextPattern::Prefix),
            part().prop_map(TextPattern::Suffix),
            vec(part(), 2..4).prop_map(TextPattern::Glob),
            Just(TextPattern::Present),
        ];
        vec(pattern, 0..12).prop_map(TextSet::new)
    }

    fn addresses() -> impl Strategy<Value = AddressSet> {
        let block = prop_oneof![
            (any::<std::net::Ipv4Addr>(), 0..=32_u8)
                .prop_map(|(address, length)| format!("{address}/{length}")),
            (any::<std::net::Ipv6Addr>(), 0..=128_u8)
                .prop_map(|(address, length)| format!("{address}/{length}")),
        ];
        vec(block.prop_map(|text| text.parse().unwrap()), 0..4).prop_map(AddressSet::new)
    }

    fn condition() -> impl Strategy<Value = Condition> {
        let templates = vec(Just("/a/{*}"), 0..2);
        let path = (texts(), templates).prop_map(|(texts, templates)| {
            let templates = templates.into_iter().map(|one| PathTemplate::new(one).unwrap());
            Asks::Path(PathSet::new(&texts, templates.collect()))
        });
        let port = || proptest::collection::btree_set(1..=u16::MAX, 0..4);
        let asks = prop_oneof![
            texts().prop_map(Asks::Principal),
            texts().prop_map(Asks::Namespace),
            texts().prop_map(Asks::ServiceAccount),
            texts().prop_map(Asks::TrustDomain),
            addresses().prop_map(Asks::Source),
            addresses().prop_map(Asks::Remote),
            addresses().prop_map(Asks::Destination),
            port().prop_map(Asks::Port),
            texts().prop_map(Asks::ServerName),
            texts().prop_map(Asks::Host),
            texts().prop_map(Asks::Method),
            path,
            texts().prop_map(|set| Asks::header(HeaderField::Path, set)),
            texts().prop_map(|set| Asks::Header("x-role".parse().unwrap(), set)),
            texts().prop_map(Asks::RequestPrincipal),
            (vec("[a-z]{1,4}".prop_map(Box::from), 1..4), texts())
                .prop_map(|(path, set)| Asks::Claim(path, set)),
            "[a-z.]{1,9}".prop_map(|key| Asks::Unknowable(key.into())),
        ];
        (asks, any::<bool>()).prop_map(|(asks, negated)| Condition { asks, negated })
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let alternatives = || vec(vec(condition(), 0..3), 0..3);
        (name(), alternatives(), alternatives(), vec(condition(), 0..3))
            .prop_map(|(name, from, to, when)| Rule { name, from, to, when })
    }

    fn policy() -> impl Strategy<Value = Policy> {
        let action = prop_oneof![Just(Action::Audit), Just(Action::Deny), Just(Action::Allow)];
        let ports = option::of(proptest::collection::btree_set(1..=u16::MAX, 0..4));
        (name(), action, any::<bool>(), ports, vec(rule(), 0..4), option::of(name())).prop_map(
            |(name, action, dry_run, ports, rules, why)| Policy { name, action, dry_run, ports, rules, why },
        )
    }

    proptest! {
        #[test]
        fn policies_are_read_as_they_were_written(policies in vec(policy(), 0..4)) {
            let authorization = Authorization::new(policies);

            let read = Authorization::try_from(wire::Authorization::from(&authorization)).unwrap();

            prop_assert_eq!(read, authorization);
        }
    }

    fn with_condition(condition: wire::Condition) -> wire::Authorization {
        let rule = wire::AuthorizationRule { when: vec![condition], ..Default::default() };
        let action = wire::AuthorizationAction::Deny.into();
        let policy = wire::AuthorizationPolicy { action, rules: vec![rule], ..Default::default() };
        wire::Authorization { policies: vec![policy] }
    }

    #[test]
    fn what_this_version_does_not_know_refuses_the_whole() {
        let unknown_condition = with_condition(wire::Condition::default());
        let mut unknown_action = unknown_condition.clone();
        unknown_action.policies[0].rules.clear();
        unknown_action.policies[0].action = 9;
        let pattern = wire::TextSet { exact: Vec::new(), others: vec![wire::TextPattern::default()] };
        let unknown_pattern =
            with_condition(wire::Condition { negated: true, asks: Some(Wire::Host(pattern)) });

        for odd in [unknown_condition, unknown_action, unknown_pattern] {
            assert!(Authorization::try_from(odd.clone()).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn more_than_a_proxy_holds_is_refused() {
        let set = |exact: Vec<String>| wire::TextSet { exact, others: Vec::new() };
        let with_set = |set| with_condition(wire::Condition { negated: false, asks: Some(Wire::Host(set)) });
        let read = |authorization| Authorization::try_from(authorization);

        assert!(read(with_set(set(vec!["a".repeat(LONGEST_TEXT)]))).is_ok());
        assert!(read(with_set(set(vec!["a".repeat(LONGEST_TEXT + 1)]))).is_err());
        assert!(read(with_set(set(vec![String::new(); MOST_VALUES + 1]))).is_err());
        let mut many = with_condition(wire::Condition::default());
        many.policies[0].rules = vec![wire::AuthorizationRule::default(); MOST_RULES + 1];
        assert!(matches!(read(many), Err(ConvertError::OutOfRange { .. })));
    }
}
