//! The same decisions a second time, slowly and without any of the other code: policies as Istio's documents write them,
//! asked condition by condition. Both must agree on a hundred thousand random policies and requests.

use std::{collections::BTreeSet, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{
    Action, AddressSet, Asks, Authorization, Condition, ConnectionVerdict, InboundPolicy, PathSet,
    PathTemplate, Policy, Rule, TextPattern, TextSet, Verdict, address, condition::Stage, path,
    reading::Readings,
};
use crate::{
    SpiffeId,
    facts::{self, Client, Source},
    token::Token,
};

const CASES: u64 = 100_000;

/// One field of a rule, such as `principals`: its kind, its values, and whether it is the `not` form.
#[derive(Debug, Clone)]
struct Field {
    kind: Kind,
    values: Vec<&'static str>,
    not: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Principal,
    Namespace,
    Address,
    Remote,
    Destination,
    Port,
    Host,
    Method,
    Path,
    Header,
    Token,
    Claim,
    Metadata,
}

#[derive(Debug, Clone)]
struct Written {
    action: Action,
    dry_run: bool,
    rules: Vec<WrittenRule>,
}

#[derive(Debug, Clone)]
struct WrittenRule {
    from: Vec<Vec<Field>>,
    to: Vec<Vec<Field>>,
    when: Vec<Field>,
}

/// A request, with the other readings of it that lenient apps have, written down by hand.
#[derive(Debug, Clone)]
struct Asked {
    identity: Option<SpiffeId>,
    address: IpAddr,
    /// Its own address, where trusted proxies stand before us and say it.
    remote: Option<IpAddr>,
    destination: Option<&'static str>,
    port: u16,
    host: (&'static str, &'static str),
    method: &'static str,
    other_method: Option<&'static str>,
    /// As it is, as it is read loosely, and the other resource that it may name.
    path: (&'static str, &'static str, Option<&'static str>),
    header: Vec<&'static str>,
    /// Its token's subject, and its role.
    token: Option<(&'static str, &'static str)>,
}

const PATHS: [(&str, &str, Option<&str>); 9] = [
    ("/", "/", None),
    ("/admin", "/admin", None),
    ("/Admin", "/admin", None),
    ("//admin", "/admin", None),
    ("/admin/", "/admin", None),
    ("/public/a", "/public/a", None),
    ("/public/a/b", "/public/a/b", None),
    ("/public/..%2Fadmin", "/admin", Some("/admin")),
    ("/admin;a=b", "/admin", None),
];

fn one<T: Copy>(rng: &mut fastrand::Rng, of: &[T]) -> T {
    of[rng.usize(..of.len())]
}

fn field(rng: &mut fastrand::Rng, kinds: &[Kind]) -> Field {
    let kind = one(rng, kinds);
    let all: &[&str] = match kind {
        Kind::Principal => &["td/ns/a/sa/x", "td/ns/a/sa/y", "td/ns/b/*", "*/sa/x", "*", "other/ns/a/sa/x"],
        Kind::Namespace => &["a", "b", "a*", "*"],
        Kind::Address | Kind::Remote => &["10.0.0.1", "10.0.0.0/31", "0.0.0.0/0", "2001:db8::/32"],
        Kind::Destination => &["10.9.0.0/16", "10.9.0.1"],
        Kind::Port => &["80", "8080"],
        Kind::Host => &["a.example", "*.example", "a.*", "*"],
        Kind::Method => &["GET", "DELETE", "P*", "*"],
        Kind::Path => &["/admin", "/public/*", "*/a", "*", "/public/{*}", "/{**}/b"],
        Kind::Header => &["user", "adm*", "*min", "*"],
        Kind::Token => &["*", "issuer/subject", "issuer/*", "*/other"],
        Kind::Claim => &["*", "admin", "us*"],
        Kind::Metadata => &["x"],
    };
    // Documents have no empty lists; what is left of one may be.
    let is_known = !matches!(kind, Kind::Destination | Kind::Metadata);
    let count = if is_known && rng.u8(..8) == 0 { 0 } else { rng.usize(1..=2) };
    let values = (0..count).map(|_| one(rng, all)).collect();
    Field { kind, values, not: rng.u8(..4) == 0 }
}

fn fields(rng: &mut fastrand::Rng, kinds: &[Kind], most: usize) -> Vec<Field> {
    (0..rng.usize(1..=most)).map(|_| field(rng, kinds)).collect()
}

fn written(rng: &mut fastrand::Rng) -> Vec<Written> {
    let sources =
        [Kind::Principal, Kind::Principal, Kind::Namespace, Kind::Address, Kind::Remote, Kind::Token];
    let operations = [Kind::Host, Kind::Method, Kind::Path, Kind::Path, Kind::Port];
    let keys = [Kind::Header, Kind::Claim, Kind::Destination, Kind::Metadata, Kind::Principal];
    let rule = |rng: &mut fastrand::Rng| WrittenRule {
        from: (0..rng.usize(..3)).map(|_| fields(rng, &sources, 2)).collect(),
        to: (0..rng.usize(..3)).map(|_| fields(rng, &operations, 2)).collect(),
        when: if rng.u8(..4) == 0 { fields(rng, &keys, 1) } else { Vec::new() },
    };
    let most = if rng.u8(..4) == 0 { 8 } else { 3 };
    (0..rng.usize(..4))
        .map(|_| Written {
            action: one(rng, &[Action::Deny, Action::Allow, Action::Allow, Action::Audit]),
            dry_run: rng.u8(..8) == 0,
            rules: (0..rng.usize(..=most)).map(|_| rule(rng)).collect(),
        })
        .collect()
}

fn asked(rng: &mut fastrand::Rng) -> Asked {
    let identity = one(rng, &[None, Some("a/sa/x"), Some("a/sa/y"), Some("b/sa/x"), Some("c/sa/z")]);
    let header = one(rng, &[&[][..], &[], &["user"], &["admin"], &["user", "admin"], &[""]]);
    Asked {
        identity: identity.map(|rest| format!("spiffe://td/ns/{rest}").parse().unwrap()),
        address: one(rng, &["10.0.0.1", "10.0.0.9", "2001:db8::1"]).parse().unwrap(),
        remote: one(rng, &[None, None, Some("10.0.0.1"), Some("10.0.0.9"), Some("2001:db8::1")])
            .map(|address| address.parse().unwrap()),
        destination: one(rng, &[None, Some("10.9.0.1:80"), Some("10.8.0.1:80")]),
        port: one(rng, &[80, 8080]),
        host: one(rng, &[("a.example", "a.example"), ("A.example:80", "a.example"), ("b.test", "b.test")]),
        method: one(rng, &["GET", "POST", "DELETE"]),
        other_method: one(rng, &[None, None, None, Some("DELETE")]),
        path: one(rng, &PATHS),
        header: header.to_vec(),
        token: one(rng, &[None, None, Some(("subject", "admin")), Some(("other", "user"))]),
    }
}

fn text(pattern: &str, text: &str) -> bool {
    match pattern.len() {
        1 if pattern == "*" => !text.is_empty(),
        _ if pattern.starts_with('*') => text.ends_with(&pattern[1..]),
        _ if pattern.ends_with('*') => text.starts_with(&pattern[..pattern.len() - 1]),
        _ => pattern == text,
    }
}

fn path(pattern: &str, path: &str) -> bool {
    match pattern {
        "/public/{*}" => {
            path.strip_prefix("/public/").is_some_and(|rest| !rest.is_empty() && !rest.contains('/'))
        }
        "/{**}/b" => path.ends_with("/b") && path.len() > 2,
        _ => text(pattern, path),
    }
}

fn address_in(block: &str, address: IpAddr) -> bool {
    block
        .parse::<ipnet::IpNet>()
        .map_or_else(|_| block.parse::<IpAddr>().unwrap() == address, |block| block.contains(&address))
}

impl Field {
    /// Whether it holds; `refuses`: its rule refuses what it matches. `None`: it is of no concern here.
    fn holds(&self, asked: &Asked, opaque: bool, refuses: bool) -> bool {
        if opaque && self.is_of_http() {
            return true;
        }
        // Each reading that matches counts where that makes the answer stricter.
        let strict = refuses != self.not;
        self.values.iter().any(|value| self.one_holds(value, asked, strict)) != self.not
    }

    fn is_of_http(&self) -> bool {
        matches!(self.kind, Kind::Host | Kind::Method | Kind::Path | Kind::Header | Kind::Token | Kind::Claim)
    }

    fn one_holds(&self, value: &str, asked: &Asked, strict: bool) -> bool {
        let lower = asked.host.0.to_lowercase();
        match self.kind {
            Kind::Principal => asked.identity.as_ref().is_some_and(|peer| text(value, &peer.as_str()[9..])),
            Kind::Namespace => asked.identity.as_ref().is_some_and(|peer| text(value, peer.namespace())),
            Kind::Address => address_in(value, asked.address),
            Kind::Remote => address_in(value, asked.remote.unwrap_or(asked.address)),
            Kind::Destination => match asked.destination {
                Some(address) => value.starts_with("10.9") && address.starts_with("10.9"),
                None => strict,
            },
            Kind::Port => value == asked.port.to_string(),
            Kind::Host => text(value, &lower) || (strict && text(value, asked.host.1)),
            Kind::Method if strict => {
                text(value, asked.method) || asked.other_method.is_some_and(|one| text(value, one))
            }
            // What is not strict needs all its readings in the set, which is asked for as a whole.
            Kind::Method => self.all_in(&[Some(asked.method), asked.other_method], text),
            Kind::Path if strict => path(value, asked.path.0) || path(value, asked.path.1),
            Kind::Path => self.all_in(&[Some(asked.path.0), asked.path.2], path),
            Kind::Header => {
                let joined = asked.header.join(",");
                let lines: Vec<Option<&str>> = asked.header.iter().map(|line| Some(*line)).collect();
                let present =
                    |pattern: &str, line: &str| text(pattern, line) || (pattern == "*" && line.is_empty());
                match asked.header.as_slice() {
                    [] => false,
                    [line] => present(value, line),
                    lines if strict => lines.iter().chain([&&*joined]).any(|line| present(value, line)),
                    _ => self.all_in(&lines, present) && self.all_in(&[Some(&joined)], present),
                }
            }
            Kind::Token => asked.token.is_some_and(|(sub, _)| text(value, &format!("issuer/{sub}"))),
            Kind::Claim => asked.token.is_some_and(|(_, role)| text(value, role)),
            Kind::Metadata => strict,
        }
    }

    fn all_in(&self, readings: &[Option<&str>], is: impl Fn(&str, &str) -> bool) -> bool {
        let mut readings = readings.iter().flatten();
        readings.all(|reading| self.values.iter().any(|value| is(value, reading)))
    }

    fn condition(&self) -> Condition {
        let texts =
            |read: fn(&str) -> TextPattern| self.values.iter().map(|value| read(value)).collect::<TextSet>();
        let istio = TextPattern::istio;
        let blocks = || AddressSet::new(self.values.iter().map(|value| address::block(value).unwrap()));
        let asks = match self.kind {
            Kind::Principal => Asks::Principal(texts(istio)),
            Kind::Namespace => Asks::Namespace(texts(TextPattern::glob)),
            Kind::Address => Asks::Source(blocks()),
            Kind::Remote => Asks::Remote(blocks()),
            Kind::Destination => Asks::Destination(blocks()),
            Kind::Port => {
                Asks::Port(self.values.iter().map(|port| port.parse().unwrap()).collect::<BTreeSet<_>>())
            }
            Kind::Host => Asks::Host(texts(istio)),
            Kind::Method => Asks::Method(texts(istio)),
            Kind::Path => {
                let (templates, plain): (Vec<&str>, Vec<&str>) =
                    self.values.iter().partition(|one| path::is_template(one));
                let templates = templates.into_iter().map(|one| PathTemplate::new(one).unwrap()).collect();
                Asks::Path(PathSet::new(&plain.into_iter().map(istio).collect(), templates))
            }
            Kind::Header => Asks::Header("x-role".parse().unwrap(), texts(istio)),
            Kind::Token => Asks::RequestPrincipal(texts(istio)),
            Kind::Claim => Asks::Claim(vec!["a".into(), "roles".into()], texts(istio)),
            Kind::Metadata => Asks::Unknowable("experimental.envoy.filters.a[b]".into()),
        };
        Condition { asks, negated: self.not }
    }
}

impl WrittenRule {
    fn matches(&self, asked: &Asked, opaque: bool, refuses: bool) -> bool {
        let all = || self.from.iter().chain(&self.to).flatten().chain(&self.when);
        if opaque && !refuses && all().any(Field::is_of_http) {
            return false;
        }
        let hold = |fields: &[Field]| fields.iter().all(|field| field.holds(asked, opaque, refuses));
        (self.from.is_empty() || self.from.iter().any(|fields| hold(fields)))
            && (self.to.is_empty() || self.to.iter().any(|fields| hold(fields)))
            && hold(&self.when)
    }

    fn model(&self, name: String) -> Rule {
        let conditions = |fields: &Vec<Field>| fields.iter().map(Field::condition).collect();
        Rule {
            name: name.into(),
            from: self.from.iter().map(conditions).collect(),
            to: self.to.iter().map(conditions).collect(),
            when: conditions(&self.when),
        }
    }
}

/// Whether it is let in, and what says so.
fn decided(policies: &[Written], asked: &Asked, opaque: bool) -> (bool, String) {
    let of = |action: Action| {
        let of_it = move |(_, policy): &(usize, &Written)| policy.action == action && !policy.dry_run;
        policies.iter().enumerate().filter(of_it)
    };
    let matching = |action: Action| {
        of(action).find_map(|(number, policy)| {
            let refuses = action != Action::Allow;
            let rule = policy.rules.iter().position(|rule| rule.matches(asked, opaque, refuses))?;
            Some(format!("p{number} r{rule}"))
        })
    };
    if let Some(rule) = matching(Action::Deny) {
        return (false, rule);
    }
    match (of(Action::Allow).next(), matching(Action::Allow)) {
        (None, _) => (true, "mesh default".to_owned()),
        (Some(_), Some(rule)) => (true, rule),
        (Some((number, _)), None) => (false, format!("p{number}")),
    }
}

fn model(policies: &[Written]) -> InboundPolicy {
    let policy = |(number, policy): (usize, &Written)| Policy {
        name: format!("p{number}").into(),
        action: policy.action,
        dry_run: policy.dry_run,
        ports: None,
        rules: policy
            .rules
            .iter()
            .enumerate()
            .map(|(rule, one)| one.model(format!("p{number} r{rule}")))
            .collect(),
        why: None,
    };
    let policies = policies.iter().enumerate().map(policy).collect();
    InboundPolicy { authorization: Some(Authorization::new(policies).into()), ..InboundPolicy::default() }
}

fn told(verdict: Verdict<'_>) -> (bool, String) {
    match verdict {
        Verdict::Allow { rule } => (true, rule.to_string()),
        Verdict::Deny { rule, .. } => (false, rule.to_string()),
    }
}

#[test]
fn decisions_are_those_of_a_naive_reading_of_the_documents() {
    let (mut allowed, mut depended, mut final_for_all) = (0_u64, 0_u64, 0_u64);
    for seed in 0..CASES {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (policies, asked) = (written(&mut rng), asked(&mut rng));
        let policy = model(&policies);
        let connection = facts::Connection {
            destination: asked.destination.map(|text| text.parse().unwrap()),
            client: asked.remote.map_or(Client::Source, Client::At),
            ..facts::Connection::new(Source::peer(asked.address, asked.identity.as_ref()), asked.port)
        };
        // Before its first request nobody knows where it comes from.
        let accepted = facts::Connection {
            client: asked.remote.map_or(Client::Source, |_| Client::OfRequest),
            ..connection
        };
        let mut headers = HeaderMap::new();
        for line in &asked.header {
            headers.append("x-role", HeaderValue::from_static(line));
        }
        if let Some(other) = asked.other_method {
            headers
                .insert(HeaderName::from_static("x-http-method-override"), HeaderValue::from_static(other));
        }
        let token = asked.token.map(|(sub, role)| {
            let claims = serde_json::json!({ "iss": "issuer", "sub": sub, "a": { "roles": [7, role] } });
            Token::new(claims.as_object().unwrap().clone(), "").unwrap()
        });
        let request = facts::Request {
            connection: &connection,
            method: &asked.method.parse::<Method>().unwrap(),
            scheme: "http",
            authority: asked.host.0,
            path: asked.path.0,
            query: "",
            headers: &headers,
            token: token.as_ref(),
        };

        let all = policy.authorization.as_ref().expect("there is one");
        let scanned = all.scanned();
        for stage in [
            Stage::Request(&Readings::new(&request)),
            Stage::Opaque(&connection),
            Stage::Connection(&accepted),
        ] {
            assert_eq!(
                all.decide(stage),
                scanned.decide(stage),
                "an index finds something else: seed {seed}: {asked:?} {policies:#?}"
            );
        }
        let expected = decided(&policies, &asked, false);
        assert_eq!(
            told(policy.authorize_request(&request)),
            expected,
            "seed {seed}: {asked:?} {policies:#?}"
        );
        let opaque = decided(&policies, &asked, true);
        assert_eq!(
            told(policy.authorize_opaque(&connection)),
            opaque,
            "seed {seed}: {asked:?} {policies:#?}"
        );
        match policy.authorize(&accepted) {
            ConnectionVerdict::Final(verdict) => {
                final_for_all += 1;
                assert_eq!(told(verdict).0, expected.0, "seed {seed}: {asked:?} {policies:#?}");
            }
            ConnectionVerdict::DependsOnRequest { .. } => depended += 1,
        }
        allowed += u64::from(expected.0);
    }
    // The cases are worth something only if all answers are among them.
    for count in [allowed, CASES - allowed, depended, final_for_all] {
        assert!(count > CASES / 10, "{allowed} {depended} {final_for_all}");
    }
}
