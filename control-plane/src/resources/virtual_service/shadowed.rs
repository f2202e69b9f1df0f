//! Which routes and matches of a document are never reached, because others before them take what they ask for.
//!
//! A match is compared with those before it that ask for the same besides the path, or for nothing else. What is found is true;
//! not all that is true is found, as of regular expressions. There may be very many matches: no two of them are compared.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    ops::Bound,
};

use ipnet::IpNet;
use selvedge_model::{Layer, Match, StringMatch, TcpMatch};
use serde::Serialize;

use super::{FollowedBy, HttpRoute, PortMatch, TcpRoute};
use crate::resources::document::Reading;

/// The place of a match: its route, and its place there; `None`: the route has no matches, and takes everything.
type Place = (usize, Option<usize>);

/// Which requests ask for something: at which port and whose, and what besides the path. Empty: any.
type Asked = (String, String);

/// The paths that matches with the same conditions have taken, each by the first of them.
#[derive(Debug, Default)]
struct Taken {
    exact: HashMap<String, Place>,
    regexes: HashMap<String, Place>,
    prefixes: Prefixes,
    /// The same of those that ignore case, in lower case.
    exact_folded: HashMap<String, Place>,
    prefixes_folded: Prefixes,
}

/// Prefixes, each with who has it. One that another one begins with has come later than that, or it would have taken it.
#[derive(Debug, Default)]
struct Prefixes(BTreeMap<String, Place>);

/// So many prefixes are looked at for one path. Of very many that are made for it, each would be as long as the path is.
const MOST_LOOKED_AT: usize = 64;

/// What a match asks of the path.
enum Path<'m> {
    Exact(&'m str),
    Prefix(&'m str),
    Regex(&'m str),
}

impl Prefixes {
    /// The first who has a prefix of `text`: the longest one that there is.
    fn first(&self, text: &str) -> Option<Place> {
        let mut rest = text;
        for _ in 0..MOST_LOOKED_AT {
            // Whoever comes next by the alphabet is a prefix, or says how long one can be.
            let up_to = (Bound::Unbounded, Bound::Included(rest));
            let (prefix, place) = self.0.range::<str, _>(up_to).next_back()?;
            if rest.starts_with(prefix.as_str()) {
                return Some(*place);
            }
            let same = prefix.bytes().zip(rest.bytes()).take_while(|(one, other)| one == other).count();
            rest = &rest[..rest.floor_char_boundary(same)];
        }
        None
    }

    fn add(&mut self, prefix: String, place: Place) {
        self.0.entry(prefix).or_insert(place);
    }
}

impl<'m> Path<'m> {
    fn of(asked: &'m Match) -> Self {
        match &asked.path {
            Some(StringMatch::Exact(exact)) => Self::Exact(exact),
            Some(StringMatch::Prefix(prefix) | StringMatch::PathPrefix(prefix)) if prefix != "/" => {
                Self::Prefix(prefix)
            }
            Some(StringMatch::Regex(regex)) if regex.source() != ".*" => Self::Regex(regex.source()),
            None | Some(_) => Self::Prefix(""),
        }
    }
}

impl Taken {
    /// Who has taken all of `path`, which a match asks for that ignores case or does not.
    fn first(&self, path: &Path<'_>, ignores_case: bool) -> Option<Place> {
        let folded = |text: &str| text.to_ascii_lowercase();
        let found = match path {
            Path::Regex(regex) => {
                [self.prefixes_folded.first(""), self.regexes.get(*regex).copied(), None, None]
            }
            Path::Prefix(prefix) => [
                self.prefixes_folded.first(&folded(prefix)),
                self.prefixes.first(prefix).filter(|_| !ignores_case),
                None,
                None,
            ],
            Path::Exact(exact) => [
                self.prefixes_folded.first(&folded(exact)),
                self.exact_folded.get(&folded(exact)).copied(),
                self.prefixes.first(exact).filter(|_| !ignores_case),
                self.exact.get(*exact).copied().filter(|_| !ignores_case),
            ],
        };
        found.into_iter().flatten().min()
    }

    fn add(&mut self, path: &Path<'_>, ignores_case: bool, place: Place) {
        let first = |map: &mut HashMap<String, Place>, text: String| {
            map.entry(text).or_insert(place);
        };
        match path {
            Path::Regex(regex) => first(&mut self.regexes, (*regex).to_owned()),
            Path::Exact(exact) if ignores_case => first(&mut self.exact_folded, exact.to_ascii_lowercase()),
            Path::Exact(exact) => first(&mut self.exact, (*exact).to_owned()),
            Path::Prefix(prefix) if ignores_case || prefix.is_empty() => {
                self.prefixes_folded.add(prefix.to_ascii_lowercase(), place);
            }
            Path::Prefix(prefix) => self.prefixes.add((*prefix).to_owned(), place),
        }
    }
}

/// `asked` as a text that is another one for all else that is asked; empty if it is nothing.
fn text<T: Default + PartialEq + Serialize>(asked: &T) -> Option<String> {
    if *asked == T::default() { Some(String::new()) } else { serde_json::to_string(asked).ok() }
}

/// At which port, and of whom, `one` asks for something.
fn scope<C>(one: &PortMatch<C>) -> String {
    let of_whom = |FollowedBy { sidecars, gateways }: &FollowedBy| {
        let gateways = gateways.iter().map(|gateway| format!("{}/{}", gateway.namespace, gateway.name));
        format!("{sidecars} {}", gateways.collect::<Vec<_>>().join(" "))
    };
    match (one.port, &one.followed_by) {
        (None, None) => String::new(),
        (port, followed_by) => format!("{port:?} {:?}", followed_by.as_ref().map(of_whom)),
    }
}

/// What asks for no more than `asked` does: whatever takes one of these takes all that it is for.
fn wider((scope, others): &Asked) -> [Asked; 4] {
    let nothing = String::new;
    [
        (nothing(), nothing()),
        (scope.clone(), nothing()),
        (nothing(), others.clone()),
        (scope.clone(), others.clone()),
    ]
}

/// Reports those of `routes` and their matches that requests never reach. `is_delegate`: other documents leave requests to them, and
/// may exclude a match that is wider than their own, so that only a route without one is sure to take something.
pub(super) fn report(routes: &[HttpRoute], is_delegate: bool, reading: &mut Reading<'_>) {
    let mut taken: HashMap<Asked, Taken> = HashMap::new();
    for route in routes {
        let everything = [PortMatch { index: 0, port: None, followed_by: None, condition: Match::default() }];
        let (matches, are_written) = match &route.matches {
            None => (&everything[..], false),
            Some(matches) => (matches.as_slice(), true),
        };
        let mut before: Vec<(usize, Place)> = Vec::new();
        for one in matches {
            let ignores_case = one.condition.ignore_path_case;
            let path = Path::of(&one.condition);
            let others = Match { path: None, ignore_path_case: false, ..one.condition.clone() };
            let Some(others) = text(&others) else { continue };
            let asked = (scope(one), others);
            let first =
                wider(&asked).iter().filter_map(|asked| taken.get(asked)?.first(&path, ignores_case)).min();
            if let Some(place) = first {
                before.push((one.index, place));
            } else if route.delegate.is_none() && !(is_delegate && are_written) {
                // Which of its requests another document takes is said there.
                let place = (route.index, are_written.then_some(one.index));
                taken.entry(asked).or_default().add(&path, ignores_case, place);
            }
        }
        let is_written_whole = !route.left_out && before.len() == matches.len();
        report_route(
            (&format!("spec.http[{}]", route.index), "http", route.index),
            (before, is_written_whole),
            reading,
        );
    }
}

/// Reports what is never reached of a route, which stands at `field` and is the one of this `index` in the list `list`: those of its
/// matches that others come `before`; or that it is never reached, if these are all.
fn report_route(
    (field, list, index): (&str, &str, usize),
    (before, are_all): (Vec<(usize, Place)>, bool),
    reading: &mut Reading<'_>,
) {
    let is_other = before.iter().any(|(_, (route, _))| *route != index);
    if let Some((_, place)) = before.first().filter(|_| are_all && is_other) {
        let message = format!(
            "is never reached: {} comes before it, and takes what it is for; move this up, or remove it",
            called(list, *place)
        );
        return reading.warning(field, message);
    }
    for (place, (route, other)) in before {
        let message = match other.filter(|_| route == index) {
            Some(other) => format!("has no effect beside match[{other}], which asks for it, too; remove it"),
            None => format!(
                "is never reached: {} comes before it, and takes what it asks for; move this up, or remove it",
                called(list, (route, other))
            ),
        };
        reading.warning(format!("{field}.match[{place}]"), message);
    }
}

/// What is at a place.
fn called(list: &str, (route, one): Place) -> String {
    match one {
        Some(one) => format!("{list}[{route}].match[{one}]"),
        None => format!("{list}[{route}], which has no match,"),
    }
}

/// What connections that are not TLS have been taken by those before, of each who asks for the same besides the subnets: these are
/// prefixes of addresses, as their bits.
type TakenSubnets = HashMap<Asked, Prefixes>;

/// The bits of the subnets that `asked` is for; it is for all addresses if it names none.
fn bits_of(asked: &TcpMatch) -> Vec<String> {
    let bits = |net: &IpNet| {
        let (kind, address) = match net.network() {
            IpAddr::V4(ip) => ('4', format!("{:032b}", ip.to_bits())),
            IpAddr::V6(ip) => ('6', format!("{:0128b}", ip.to_bits())),
        };
        let address = &address[..usize::from(net.prefix_len())];
        format!("{kind}{address}")
    };
    match asked.destination_subnets.as_slice() {
        [] => vec![String::new()],
        subnets => subnets.iter().map(bits).collect(),
    }
}

/// Who comes before `one` and takes all that it asks for. What it asks for is taken by it from then on.
fn first_of_any_bytes(one: &PortMatch<TcpMatch>, place: Place, taken: &mut TakenSubnets) -> Option<Place> {
    let bits = bits_of(&one.condition);
    let others = text(&TcpMatch { destination_subnets: Vec::new(), ..one.condition.clone() })?;
    let asked = (scope(one), others);
    let wider = wider(&asked);
    let first_of = |bits: &String| wider.iter().filter_map(|asked| taken.get(asked)?.first(bits)).min();
    let mut firsts = bits.iter().map(first_of);
    let first = firsts.next().flatten();
    // Where several share what it asks for, it is not told.
    let taken_whole = first.filter(|_| firsts.all(|other| other == first));
    if taken_whole.is_none() {
        let here = taken.entry(asked).or_default();
        bits.into_iter().for_each(|bits| here.add(bits, place));
    }
    taken_whole
}

/// Reports those of `routes` for opaque connections, and of their matches, that connections never reach: of `tcp`, because one before
/// them takes them; of `tls`, where of all others the closest match counts, because one before asks for the very same.
pub(super) fn report_opaque(routes: &[TcpRoute], reading: &mut Reading<'_>) {
    let mut taken: HashMap<Asked, Place> = HashMap::new();
    let mut subnets = TakenSubnets::new();
    for route in routes {
        let everything =
            [PortMatch { index: 0, port: None, followed_by: None, condition: TcpMatch::default() }];
        let (matches, are_written) = match &route.matches {
            None => (&everything[..], false),
            Some(matches) => (matches.as_slice(), true),
        };
        let mut before = Vec::new();
        for one in matches {
            let place = (route.index, are_written.then_some(one.index));
            let first = match route.layer {
                Layer::Tcp => first_of_any_bytes(one, place, &mut subnets),
                Layer::Tls => text(&one.condition)
                    .map(|asked| *taken.entry((scope(one), asked)).or_insert(place))
                    .filter(|first| *first != place),
            };
            before.extend(first.map(|first| (one.index, first)));
        }
        let are_all = !route.left_out && before.len() == matches.len();
        report_route((&route.field(), route.list(), route.index), (before, are_all), reading);
    }
}
