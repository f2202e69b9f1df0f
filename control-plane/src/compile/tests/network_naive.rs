//! Compiled network policies against a naive reading of `NetworkPolicy`, on random pods and policies.

use std::net::{IpAddr, SocketAddr};

use proptest::{collection::vec, option, prelude::*};

use super::{
    network::{policy, refused_in, refused_out},
    *,
};

const NAMESPACES: [(&str, &str); 3] = [("a", "x"), ("b", "y"), ("c", "x")];
const PORTS: [u16; 4] = [80, 81, 8080, 9090];

/// What a selector asks of the labels `k` and `l`.
#[derive(Debug, Clone)]
enum Asked {
    Equal(&'static str, &'static str),
    In(&'static str, Vec<&'static str>),
    NotIn(&'static str, Vec<&'static str>),
    Exists(&'static str),
    DoesNotExist(&'static str),
}

type Selector = Vec<Asked>;
type Labels = Vec<(&'static str, &'static str)>;

#[derive(Debug, Clone)]
struct Pod {
    namespace: usize,
    labels: Labels,
    /// The number of its port called `http`.
    http: Option<u16>,
    meshed: bool,
}

#[derive(Debug, Clone)]
enum Peer {
    Pods(Option<Selector>, Option<Selector>),
    Block(u8, Option<u8>),
}

#[derive(Debug, Clone)]
enum Port {
    Number(u16),
    Range(u16, u16),
    Http,
    Udp,
}

#[derive(Debug, Clone)]
struct Rule {
    peers: Vec<Peer>,
    ports: Vec<Port>,
}

#[derive(Debug, Clone)]
struct Written {
    namespace: usize,
    pods: Selector,
    types: Vec<&'static str>,
    ingress: Vec<Rule>,
    egress: Vec<Rule>,
}

fn selector() -> impl Strategy<Value = Selector> {
    let key = || prop_oneof![Just("k"), Just("l")];
    let value = || prop_oneof![Just("1"), Just("2"), Just("x"), Just("y")];
    let asked = prop_oneof![
        3 => (key(), value()).prop_map(|(key, value)| Asked::Equal(key, value)),
        1 => (key(), vec(value(), 1..3)).prop_map(|(key, values)| Asked::In(key, values)),
        1 => (key(), vec(value(), 1..3)).prop_map(|(key, values)| Asked::NotIn(key, values)),
        1 => key().prop_map(Asked::Exists),
        1 => key().prop_map(Asked::DoesNotExist),
    ];
    vec(asked, 0..2)
}

fn pod() -> impl Strategy<Value = Pod> {
    let label = |key| {
        option::of(prop_oneof![Just("1"), Just("2")]).prop_map(move |value| value.map(|value| (key, value)))
    };
    let http = option::of(prop_oneof![Just(80_u16), Just(8080)]);
    (0..NAMESPACES.len(), label("k"), label("l"), http, any::<bool>()).prop_map(
        |(namespace, k, l, http, meshed)| Pod {
            namespace,
            labels: k.into_iter().chain(l).collect(),
            http,
            meshed,
        },
    )
}

fn rule() -> impl Strategy<Value = Rule> {
    let peer = prop_oneof![
        3 => (option::of(selector()), option::of(selector()))
            .prop_filter("somebody", |(namespaces, pods)| namespaces.is_some() || pods.is_some())
            .prop_map(|(namespaces, pods)| Peer::Pods(namespaces, pods)),
        1 => (28..=31_u8, option::of(32..=32_u8)).prop_map(|(length, except)| Peer::Block(length, except)),
    ];
    let port = prop_oneof![
        Just(Port::Number(80)),
        Just(Port::Number(9090)),
        Just(Port::Range(80, 81)),
        Just(Port::Http),
        Just(Port::Udp),
    ];
    (vec(peer, 0..3), vec(port, 0..3)).prop_map(|(peers, ports)| Rule { peers, ports })
}

fn written() -> impl Strategy<Value = Written> {
    let types = prop_oneof![
        Just(Vec::new()),
        Just(vec!["Ingress"]),
        Just(vec!["Egress"]),
        Just(vec!["Ingress", "Egress"]),
    ];
    (0..NAMESPACES.len(), selector(), types, vec(rule(), 0..3), vec(rule(), 0..3)).prop_map(
        |(namespace, pods, types, ingress, egress)| Written { namespace, pods, types, ingress, egress },
    )
}

fn selects(selector: &Selector, labels: &Labels) -> bool {
    let value = |wanted: &str| labels.iter().find(|(key, _)| *key == wanted).map(|(_, value)| *value);
    selector.iter().all(|asked| match asked {
        Asked::Equal(key, wanted) => value(key) == Some(wanted),
        Asked::In(key, values) => value(key).is_some_and(|value| values.contains(&value)),
        Asked::NotIn(key, values) => value(key).is_none_or(|value| !values.contains(&value)),
        Asked::Exists(key) => value(key).is_some(),
        Asked::DoesNotExist(key) => value(key).is_none(),
    })
}

fn address(number: usize) -> [u8; 4] {
    [10, 0, 0, u8::try_from(number).unwrap()]
}

impl Rule {
    /// Whether it allows that `other`, pod number `number`, is on the other side, and `port` of `callee` is called.
    fn allows(&self, policy: &Written, (number, other): (usize, &Pod), port: u16, callee: &Pod) -> bool {
        let is_peer = |peer: &Peer| match peer {
            Peer::Pods(namespaces, pods) => {
                let namespace = match namespaces {
                    None => other.namespace == policy.namespace,
                    Some(namespaces) => selects(namespaces, &vec![("k", NAMESPACES[other.namespace].1)]),
                };
                namespace && pods.as_ref().is_none_or(|pods| selects(pods, &other.labels))
            }
            Peer::Block(length, except) => {
                let inside = |length: u8| number >> (32 - length) == 0;
                inside(*length) && !except.is_some_and(inside)
            }
        };
        let is_port = |one: &Port| match one {
            Port::Number(number) => *number == port,
            Port::Range(first, last) => (*first..=*last).contains(&port),
            Port::Http => callee.http == Some(port),
            Port::Udp => false,
        };
        (self.peers.is_empty() || self.peers.iter().any(is_peer))
            && (self.ports.is_empty() || self.ports.iter().any(is_port))
    }
}

/// Whether what the policies say of one direction lets `pod` and `other` talk.
fn is_allowed(
    policies: &[Written],
    ingress: bool,
    pod: &Pod,
    other: (usize, &Pod),
    (port, callee): (u16, &Pod),
) -> bool {
    let is_for = |policy: &&Written| {
        let named = if ingress { "Ingress" } else { "Egress" };
        let by_default = ingress || !policy.egress.is_empty();
        let is_of_direction =
            if policy.types.is_empty() { by_default } else { policy.types.contains(&named) };
        is_of_direction && policy.namespace == pod.namespace && selects(&policy.pods, &pod.labels)
    };
    let selecting: Vec<_> = policies.iter().filter(is_for).collect();
    selecting.is_empty()
        || selecting.iter().any(|policy| {
            let rules = if ingress { &policy.ingress } else { &policy.egress };
            rules.iter().any(|rule| rule.allows(policy, other, port, callee))
        })
}

fn selector_text(selector: &Selector) -> String {
    let list =
        |values: &[&str]| values.iter().map(|value| format!("'{value}'")).collect::<Vec<_>>().join(", ");
    let one = |asked: &Asked| match asked {
        Asked::Equal(key, value) => format!("{{key: {key}, operator: In, values: ['{value}']}}"),
        Asked::In(key, values) => format!("{{key: {key}, operator: In, values: [{}]}}", list(values)),
        Asked::NotIn(key, values) => format!("{{key: {key}, operator: NotIn, values: [{}]}}", list(values)),
        Asked::Exists(key) => format!("{{key: {key}, operator: Exists}}"),
        Asked::DoesNotExist(key) => format!("{{key: {key}, operator: DoesNotExist}}"),
    };
    format!("{{matchExpressions: [{}]}}", selector.iter().map(one).collect::<Vec<_>>().join(", "))
}

fn rule_text(rule: &Rule, list: &str) -> String {
    let peer = |peer: &Peer| match peer {
        Peer::Pods(namespaces, pods) => {
            let field = |name: &str, selector: &Option<Selector>| {
                selector.as_ref().map(|selector| format!("{name}: {}", selector_text(selector)))
            };
            let fields = [field("namespaceSelector", namespaces), field("podSelector", pods)];
            format!("{{{}}}", fields.into_iter().flatten().collect::<Vec<_>>().join(", "))
        }
        Peer::Block(length, except) => {
            let except = except.map(|length| format!(", except: [10.0.0.0/{length}]")).unwrap_or_default();
            format!("{{ipBlock: {{cidr: 10.0.0.0/{length}{except}}}}}")
        }
    };
    let port = |port: &Port| match port {
        Port::Number(number) => format!("{{port: {number}}}"),
        Port::Range(first, last) => format!("{{port: {first}, endPort: {last}}}"),
        Port::Http => "{port: http}".to_owned(),
        Port::Udp => "{protocol: UDP, port: 80}".to_owned(),
    };
    let peers = rule.peers.iter().map(peer).collect::<Vec<_>>().join(", ");
    let ports = rule.ports.iter().map(port).collect::<Vec<_>>().join(", ");
    format!("{{{list}: [{peers}], ports: [{ports}]}}")
}

fn documents(pods: &[Pod], policies: &[Written]) -> String {
    let mut text = String::new();
    for (name, label) in NAMESPACES {
        text += &format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{k: {label}}}}}\n---\n"
        );
    }
    for (number, pod) in pods.iter().enumerate() {
        let mut labels: String =
            pod.labels.iter().map(|(key, value)| format!("{key}: '{value}', ")).collect();
        if pod.meshed {
            labels += "selvedge.io/sidecar: injected";
        }
        let ports = pod.http.map(|port| format!("{{name: http, containerPort: {port}}}")).unwrap_or_default();
        let (namespace, ip) = (NAMESPACES[pod.namespace].0, IpAddr::from(address(number)));
        text += &format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{number}, namespace: {namespace}, labels: {{{labels}}}}}\n\
             spec: {{containers: [{{name: app, ports: [{ports}]}}, {{name: selvedge-proxy}}]}}\n\
             status: {{phase: Running, podIP: {ip}}}\n---\n"
        );
    }
    for (number, one) in policies.iter().enumerate() {
        let list = |rules: &[Rule], list| {
            rules.iter().map(|rule| rule_text(rule, list)).collect::<Vec<_>>().join(", ")
        };
        let spec = format!(
            "{{podSelector: {}, policyTypes: [{}], ingress: [{}], egress: [{}]}}",
            selector_text(&one.pods),
            one.types.join(", "),
            list(&one.ingress, "from"),
            list(&one.egress, "to"),
        );
        text += &policy(NAMESPACES[one.namespace].0, &format!("n{number}"), &spec);
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    #[test]
    fn compiled_policies_allow_what_a_naive_reading_allows(
        pods in vec(pod(), 2..9), policies in vec(written(), 0..5)
    ) {
        let text = documents(&pods, &policies);
        let (mesh, problems) = compiled(&text);
        prop_assert!(errors(&problems).is_empty(), "{problems:?}");
        let name = |number: usize| format!("{}/p{number}", NAMESPACES[pods[number].namespace].0);
        for (from, client) in pods.iter().enumerate() {
            for (to, server) in pods.iter().enumerate().filter(|(to, _)| *to != from) {
                let of = |number: usize| {
                    let workload = &mesh.workloads[&name(number).parse().unwrap()];
                    workload.meshed.then(|| workload.identity.clone())
                };
                for port in PORTS {
                    let ip = IpAddr::from(address(from));
                    let came_in = refused_in(&mesh, (ip, of(from).as_ref()), &name(to), (port, true)).is_none();
                    let expected = is_allowed(&policies, true, server, (from, client), (port, server));
                    prop_assert_eq!(came_in, expected, "{} from {} to {}:{}\n{}", "ingress", from, to, port, text);
                    let endpoint = SocketAddr::from((address(to), port));
                    let went_out = refused_out(&mesh, &name(from), endpoint, of(to).as_ref()).is_none();
                    let expected = is_allowed(&policies, false, client, (to, server), (port, server));
                    prop_assert_eq!(went_out, expected, "{} from {} to {}:{}\n{}", "egress", from, to, port, text);
                }
            }
        }
    }
}
