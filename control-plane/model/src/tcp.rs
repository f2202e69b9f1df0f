//! Where an opaque connection goes: by the address that it was going to, the name that its TLS asks for, and
//! who opens it. All that can be known of it is known before its first byte is passed on.
//!
//! Of several matching rules for any bytes the first in the list wins, as Istio's documents say it of `tcp`. Of those for TLS, which tell
//! connections apart by name, the most specific one wins, as in Envoy, to which Istio leaves it, and as the Gateway API asks of
//! `TLSRoute`s: first by the length of the subnet, then by how exactly the name is given; among equals the first in the list.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use crate::{WeightedBackend, facts};

/// A service's rules for opaque connections.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TcpTable {
    /// The rules, as they were listed.
    pub rules: Vec<TcpRule>,
}

/// What happens to connections that a match sends here.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TcpRule {
    /// What it is called in logs, metrics and errors, such as `VirtualService default/db tcp[0]`.
    pub name: String,
    /// Which connections it is about.
    pub layer: Layer,
    /// Which of those; any of these. Empty = every one.
    pub matches: Vec<TcpMatch>,
    /// Where they go. None, or weights that sum to nothing: refused.
    pub backends: Vec<WeightedBackend>,
}

/// What a rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Layer {
    /// Connections that begin with a TLS ClientHello of the app's own. Where a service has such rules, they
    /// alone decide about such connections.
    Tls,
    /// Any bytes.
    Tcp,
}

/// One set of conditions, all of which must hold. Empty = every connection.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TcpMatch {
    /// The names that TLS may ask for (SNI), lower case: exact, `*.suffix` (any number of labels), or `*`.
    /// Empty = any, or none.
    pub server_names: Vec<String>,
    /// Where the connection was going to; any of these. Empty = anywhere.
    #[serde(serialize_with = "as_text")]
    pub destination_subnets: Vec<IpNet>,
    /// Labels that the client's workload must carry.
    pub source_labels: BTreeMap<String, String>,
    /// The namespace that the client's workload must be in.
    pub source_namespace: Option<String>,
}

fn as_text<S: Serializer>(subnets: &[IpNet], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(subnets.iter().map(ToString::to_string))
}

/// How closely a match fits: the subnet's length, then the name's kind and length.
type Specificity = (u8, (u8, usize));

impl TcpRule {
    /// The name of the rule of everything that no document says anything about.
    pub const DEFAULT: &str = "default";
}

impl TcpTable {
    /// Whether a document says where connections go.
    pub fn is_written(&self) -> bool {
        self.rules.iter().any(|rule| rule.name != TcpRule::DEFAULT)
    }

    /// Whether it matters whom a connection's TLS asks for.
    pub fn has_names(&self) -> bool {
        self.rules.iter().any(|rule| rule.layer == Layer::Tls)
    }

    /// The index of the rule that a connection follows; `None` if it matches none.
    pub fn find(&self, connection: &facts::Connection<'_>) -> Option<usize> {
        let tls = connection.layer == Layer::Tls && self.has_names();
        if !tls {
            let is_for = |rule: &TcpRule| rule.layer == Layer::Tcp && rule.fit(connection).is_some();
            return self.rules.iter().position(is_for);
        }
        let mut best: Option<(usize, Specificity)> = None;
        for (index, rule) in self.rules.iter().enumerate().filter(|(_, rule)| rule.layer == Layer::Tls) {
            if let Some(fit) = rule.fit(connection)
                && best.is_none_or(|(_, other)| fit > other)
            {
                best = Some((index, fit));
            }
        }
        best.map(|(index, _)| index)
    }
}

impl TcpRule {
    /// Whether it is for every connection of its layer, whoever opens it.
    pub fn is_for_every_connection(&self) -> bool {
        self.matches.is_empty() || self.matches.contains(&TcpMatch::default())
    }

    /// Whether nothing that comes after it is ever reached: it takes every connection, and stands where the first counts.
    pub fn takes_all_bytes(&self) -> bool {
        self.layer == Layer::Tcp && self.is_for_every_connection()
    }

    /// How closely the best of its matches fits; `None`: none does.
    fn fit(&self, connection: &facts::Connection<'_>) -> Option<Specificity> {
        if self.matches.is_empty() {
            return Some((0, (0, 0)));
        }
        self.matches.iter().filter_map(|wanted| wanted.fit(connection)).max()
    }
}

impl TcpMatch {
    fn fit(&self, connection: &facts::Connection<'_>) -> Option<Specificity> {
        let source = &connection.source;
        let from_here =
            self.source_namespace.as_deref().is_none_or(|wanted| Some(wanted) == source.namespace)
                && facts::selects(&self.source_labels, source.labels);
        if !from_here {
            return None;
        }
        let name = match self.server_names.as_slice() {
            [] => (0, 0),
            names => {
                let asked = connection.server_name?;
                names.iter().filter_map(|pattern| name_fit(pattern, asked)).max()?
            }
        };
        let subnet = match self.destination_subnets.as_slice() {
            [] => 0,
            subnets => {
                let destination = connection.destination?.ip();
                let within = subnets.iter().filter(|subnet| subnet.contains(&destination));
                // One more than its length: 0.0.0.0/0 is still more than no condition.
                within.map(|subnet| subnet.prefix_len().saturating_add(1)).max()?
            }
        };
        // Without a name, it is as one for any bytes.
        Some(if self.server_names.is_empty() { (0, name) } else { (subnet, name) })
    }
}

/// How closely `pattern` names `asked`; `None` if it does not.
fn name_fit(pattern: &str, asked: &str) -> Option<(u8, usize)> {
    match pattern.strip_prefix('*') {
        None => pattern.eq_ignore_ascii_case(asked).then_some((3, asked.len())),
        Some("") => Some((1, 0)),
        Some(suffix) => {
            let start = asked.len().checked_sub(suffix.len()).filter(|start| *start > 0)?;
            let end = asked.get(start..)?;
            end.eq_ignore_ascii_case(suffix).then_some((2, suffix.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Connection, Source};

    fn rule(layer: Layer, wanted: TcpMatch) -> TcpRule {
        TcpRule { name: String::new(), layer, matches: vec![wanted], backends: Vec::new() }
    }

    fn named(names: &[&str]) -> TcpMatch {
        let server_names = names.iter().map(|name| (*name).to_owned()).collect();
        TcpMatch { server_names, ..TcpMatch::default() }
    }

    fn to(subnet: &str) -> TcpMatch {
        TcpMatch { destination_subnets: vec![subnet.parse().unwrap()], ..TcpMatch::default() }
    }

    const IN_SHOP: Source<'_> = Source { namespace: Some("shop"), ..Source::UNKNOWN };

    fn tls(server_name: Option<&str>) -> Connection<'_> {
        let destination = Some(([10, 1, 2, 3], 5432).into());
        Connection { destination, layer: Layer::Tls, server_name, ..Connection::new(IN_SHOP, 5432) }
    }

    fn table(rules: Vec<TcpRule>) -> TcpTable {
        TcpTable { rules }
    }

    #[test]
    fn the_most_exact_name_wins_wherever_it_stands() {
        let table = table(vec![
            rule(Layer::Tls, named(&["*"])),
            rule(Layer::Tls, named(&["*.example.com"])),
            rule(Layer::Tls, named(&["other.org", "*.b.example.com"])),
            rule(Layer::Tls, named(&["a.b.example.com"])),
        ]);
        for (asked, found) in [
            ("a.b.example.com", 3),
            ("A.B.Example.COM", 3),
            ("c.b.example.com", 2),
            ("c.example.com", 1),
            ("x.c.example.com", 1),
            ("example.com", 0),
            ("other.org", 2),
        ] {
            assert_eq!(table.find(&tls(Some(asked))), Some(found), "{asked}");
        }
        assert_eq!(table.find(&tls(None)), None, "a name is asked for, and there is none");
    }

    #[test]
    fn rules_for_tls_decide_about_tls_and_leave_the_rest_alone() {
        let with_both =
            table(vec![rule(Layer::Tls, named(&["a.example"])), rule(Layer::Tcp, TcpMatch::default())]);
        let bytes = Connection { layer: Layer::Tcp, ..tls(None) };

        assert_eq!(with_both.find(&tls(Some("a.example"))), Some(0));
        assert_eq!(with_both.find(&tls(Some("b.example"))), None);
        assert_eq!(with_both.find(&bytes), Some(1));
        let without = table(vec![rule(Layer::Tcp, TcpMatch::default())]);
        assert_eq!(without.find(&tls(Some("b.example"))), Some(0));
    }

    #[test]
    fn of_rules_for_any_bytes_the_first_that_matches_wins_however_wide_it_is() {
        let bytes = Connection { layer: Layer::Tcp, ..tls(None) };
        let explicit = Connection { destination: None, ..bytes };
        let listed = table(vec![
            rule(Layer::Tls, named(&["a.example"])),
            rule(Layer::Tcp, to("10.1.2.4/32")),
            rule(Layer::Tcp, to("10.0.0.0/8")),
            rule(Layer::Tcp, to("10.1.2.3/32")),
            rule(Layer::Tcp, TcpMatch::default()),
        ]);
        assert_eq!(listed.find(&bytes), Some(2));
        assert_eq!(listed.find(&explicit), Some(4), "nobody knows where it was going");

        let wide = table(vec![rule(Layer::Tcp, TcpMatch::default()), rule(Layer::Tcp, to("10.1.2.3/32"))]);
        assert_eq!(wide.find(&bytes), Some(0));
    }

    #[test]
    fn of_rules_for_tls_the_narrowest_subnet_wins_and_among_equals_the_first() {
        let named_to = |subnet| rule(Layer::Tls, TcpMatch { server_names: vec!["*".into()], ..to(subnet) });
        let asked = tls(Some("a.example"));
        let listed = table(vec![
            rule(Layer::Tls, named(&["a.example"])),
            named_to("0.0.0.0/0"),
            named_to("10.1.0.0/16"),
            named_to("10.1.0.0/16"),
            named_to("10.1.2.4/32"),
        ]);
        assert_eq!(listed.find(&asked), Some(2));
        assert_eq!(listed.find(&Connection { destination: None, ..asked }), Some(0));

        let nameless = table(vec![rule(Layer::Tls, to("10.0.0.0/8")), rule(Layer::Tls, to("10.1.2.3/32"))]);
        assert_eq!(nameless.find(&asked), Some(0), "without names it is as of any bytes");
    }

    #[test]
    fn a_rule_may_be_for_some_clients_only() {
        let source_labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let of_web = TcpMatch { source_labels: source_labels.clone(), ..TcpMatch::default() };
        let of_shop = TcpMatch { source_namespace: Some("shop".into()), ..TcpMatch::default() };
        let from = |source| Connection { source, layer: Layer::Tcp, ..tls(None) };
        let connection = from(IN_SHOP);

        let labelled = table(vec![rule(Layer::Tcp, of_web)]);
        assert_eq!(labelled.find(&connection), None);
        assert_eq!(labelled.find(&from(Source { labels: &source_labels, ..IN_SHOP })), Some(0));
        let namespaced = table(vec![rule(Layer::Tcp, of_shop)]);
        assert_eq!(namespaced.find(&connection), Some(0));
        assert_eq!(namespaced.find(&from(Source { namespace: Some("elsewhere"), ..IN_SHOP })), None);
    }
}
