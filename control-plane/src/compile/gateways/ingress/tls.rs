//! Which hosts are served over TLS, and with which certificates.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
};

use selvedge_model::{
    Filters, Layer, Order, Rule, TcpRule, WeightedBackend,
    filter::OwnAnswer,
    gateway::{Carries, Hostname, ListenerTls, Termination},
};

use super::{
    super::{
        super::{Problems, rule_names::ingress_rule_name},
        WantedObject,
        copies::Copies,
        draft::{Draft, NewListener, written},
    },
    Ingress, NAME,
    hosts::{Host, Hosts, around},
    rules::{self, Over},
    users::AllUsers,
};
use crate::resources::ingress::{
    IngressTls,
    nginx::{Nginx, SSL_PASSTHROUGH},
};

/// The port of TLS.
const HTTPS: u16 = 443;

/// The field that has TLS go on as it is.
const PASSTHROUGH_FIELD: &str = "metadata.annotations[nginx.ingress.kubernetes.io/ssl-passthrough]";

/// A host, or those below a wildcard, that is served over TLS.
#[derive(Debug)]
pub(super) struct TlsHost<'a> {
    name: Hostname,
    ingress: &'a Ingress,
    /// The field that says it, such as `spec.tls[0]`.
    field: &'a str,
    certified: Certified<'a>,
}

/// What becomes of TLS there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Certified<'a> {
    /// It ends, with the certificate of this Secret.
    Ends(Option<&'a str>),
    /// It goes on to the app as it is.
    PassesOn {
        /// Whether the document names the host in `tls`, too.
        in_tls: bool,
    },
}

/// A name that is not served over TLS although its document says so. It is not served in plaintext either.
#[derive(Debug)]
pub(super) struct RefusedName<'a> {
    pub(super) name: Hostname,
    pub(super) ingress: &'a Ingress,
    /// The field that says it, such as `spec.tls[0]`.
    pub(super) field: &'a str,
    pub(super) why: String,
}

/// All of them, each with its certificate, found by their names.
#[derive(Debug, Default)]
pub(super) struct TlsHosts<'a> {
    list: Vec<TlsHost<'a>>,
    places: HashMap<Hostname, usize>,
    refused: Vec<RefusedName<'a>>,
}

impl<'a> TlsHosts<'a> {
    /// Those of `ours`, of which each has the certificate that the oldest names. Canaries have none of their own. A host without
    /// rules of its own follows those of a wider one of `hosts`: what is too much of that is left out.
    pub(super) fn new(ours: &[&'a Ingress], hosts: &Hosts<'a>, problems: &mut Problems) -> Self {
        let mut all = Self::default();
        let (mut copies, mut sizes) = (Copies::default(), HashMap::new());
        for &ingress in ours.iter().filter(|ingress| ingress.spec.nginx.canary.is_none()) {
            all.add_passed_on(ingress, problems);
            for tls in &ingress.spec.tls {
                let (field, certified) = (tls.field.as_str(), Certified::Ends(tls.secret.as_deref()));
                for name in names(ingress, tls) {
                    let new = TlsHost { name: name.clone(), ingress, field, certified };
                    match all.get(name) {
                        Some(first) if first.passes_on() && first.ingress.name == ingress.name => {}
                        None => {
                            let followed = hosts.covering(name).filter(|followed| followed.name != *name);
                            let size = followed.map_or(0, |followed| {
                                *sizes.entry(&followed.name).or_insert_with(|| followed.size())
                            });
                            match copies.take_more(&ingress.name, 1, size) {
                                Ok(()) => all.add(new),
                                Err(why) => all.refuse((ingress, field, name), &why, problems),
                            }
                        }
                        Some(first) if first.certificate() == new.certificate() => {}
                        Some(first) => new.overruled_by(first, problems),
                    }
                }
            }
            all.add_aliases(ingress, hosts);
        }
        // What a younger one has made of TLS for the host is for its other names, too.
        ours.iter().for_each(|ingress| all.add_aliases(ingress, hosts));
        let Self { places, refused, .. } = &mut all;
        refused.retain(|one| !places.contains_key(&one.name));
        all
    }

    /// Adds the hosts of `ingress` whose TLS goes on as it is, if it says so.
    fn add_passed_on(&mut self, ingress: &'a Ingress, problems: &mut Problems) {
        let hosts =
            ingress.spec.rules.iter().map(|rule| &rule.host).filter(|_| ingress.spec.nginx.ssl_passthrough);
        for name in hosts {
            let in_tls = ingress.spec.tls.iter().any(|tls| names(ingress, tls).any(|one| one == name));
            let (field, certified) = (PASSTHROUGH_FIELD, Certified::PassesOn { in_tls });
            let new = TlsHost { name: name.clone(), ingress, field, certified };
            match self.get(name) {
                _ if *name == Hostname::Any => {
                    let message =
                        "does nothing for a rule without a host, which no TLS asks for; give the rule a host";
                    problems.warning(ingress, field, message);
                }
                None => self.add(new),
                Some(first) if first.ingress.name == ingress.name => {}
                Some(first) => new.overruled_by(first, problems),
            }
        }
    }

    /// Other names of a host of `ingress` have the host's certificate, if they are so by this one.
    fn add_aliases(&mut self, ingress: &Ingress, hosts: &Hosts<'a>) {
        let Some(rule) = ingress.spec.rules.first() else { return };
        for alias in &ingress.spec.nginx.aliases {
            let host = hosts.covering(alias).filter(|host| host.name == *alias);
            if host.and_then(|host| host.alias_of).is_some_and(|one| one.name == ingress.name)
                && self.get(alias).is_none()
                && let Some(&TlsHost { ingress, field, certified, .. }) = self.covering(&rule.host)
            {
                self.add(TlsHost { name: alias.clone(), ingress, field, certified });
            }
        }
    }

    /// Notes that there is no room for `name`, and tells it.
    fn refuse(
        &mut self,
        (ingress, field, name): (&'a Ingress, &'a str, &Hostname),
        why: &str,
        problems: &mut Problems,
    ) {
        let told = format!("{name} is not served over TLS: {why} (so its requests are answered 500)");
        problems.error(ingress, field, told);
        let why = format!("{field}: {name} is not served over TLS, for want of room for its rules");
        self.refused.push(RefusedName { name: name.clone(), ingress, field, why });
    }

    /// The names that are not served, although their documents say so.
    pub(super) fn refused(&self) -> &[RefusedName<'a>] {
        &self.refused
    }

    fn add(&mut self, new: TlsHost<'a>) {
        self.places.insert(new.name.clone(), self.list.len());
        self.list.push(new);
    }

    fn get(&self, name: &Hostname) -> Option<&TlsHost<'a>> {
        self.places.get(name).map(|place| &self.list[*place])
    }

    /// The most specific one that all of `name` is in.
    fn covering(&self, name: &Hostname) -> Option<&TlsHost<'a>> {
        self.all_covering(name).next()
    }

    /// Those that all of `name` is in, the most specific first.
    pub(super) fn all_covering(&self, name: &Hostname) -> impl Iterator<Item = &TlsHost<'a>> {
        around(name).into_iter().filter_map(|name| self.get(&name))
    }

    /// What each serves: names, each with the host whose rules are for them. What is another one's is left to that.
    fn served<'h>(&self, hosts: &'h Hosts<'a>) -> Vec<Vec<(Hostname, &'h Host<'a>)>> {
        let mut candidates: Vec<&Host<'a>> = hosts.iter().collect();
        candidates.sort_by_key(|host| Reverse(host.name.rank()));
        let mut served = vec![Vec::new(); self.list.len()];
        for host in candidates {
            let place = around(&host.name).into_iter().find_map(|name| self.places.get(&name));
            if let Some(place) = place {
                served[*place].push((host.name.clone(), host));
            }
        }
        // A name without rules of its own has those of a wider one.
        for (over, served) in self.list.iter().zip(&mut served) {
            let followed = hosts.covering(&over.name).filter(|host| host.name != over.name);
            served.extend(followed.map(|host| (over.name.clone(), host)));
        }
        served
    }
}

/// The names that `tls` of `ingress` is for.
fn names<'a>(ingress: &'a Ingress, tls: &'a IngressTls) -> impl Iterator<Item = &'a Hostname> {
    let of_rules = ingress.spec.rules.iter().map(|rule| &rule.host).filter(move |_| tls.hosts.is_empty());
    tls.hosts.iter().chain(of_rules)
}

/// The Secrets that `ours` name.
pub(super) fn wanted(ours: &[&Ingress]) -> BTreeSet<WantedObject> {
    let tls = ours.iter().flat_map(|ingress| ingress.spec.tls.iter().map(move |tls| (ingress, tls)));
    let named = tls.filter_map(|(ingress, tls)| {
        let (namespace, name) = (ingress.name.namespace.to_string(), tls.secret.clone()?);
        Some(WantedObject { kind: "Secret", namespace, name })
    });
    named.collect()
}

/// Adds a listener for each of `over_tls`, with those of `hosts` that it has names of.
pub(super) fn add_to<'a>(
    draft: &mut Draft<'_>,
    over_tls: &TlsHosts<'a>,
    (hosts, users): (&Hosts<'a>, &AllUsers<'_>),
    problems: &mut Problems,
) {
    for (over, served) in over_tls.list.iter().zip(over_tls.served(hosts)) {
        let tls = match over.certified {
            Certified::Ends(secret) => ListenerTls::Terminate(over.termination(secret, draft, problems)),
            Certified::PassesOn { .. } => ListenerTls::Passthrough,
        };
        let (seat, shared) = (draft.seat, draft.shared);
        let place = draft.listen(NewListener {
            name: format!("{} {}", over.ingress.name, over.name),
            key: format!("{}/{NAME}/https", seat.namespace),
            port: HTTPS,
            carries: Carries::Tls,
            hostname: over.name.clone(),
            tls: Some(tls),
            written: written(over.ingress, over.field),
            with: Vec::new(),
            has_equal_siblings: false,
        });
        if over.passes_on() {
            over.pass_on(place, hosts, draft, problems);
            continue;
        }
        for (name, host) in served {
            let at = draft.host(place, &name);
            at.order = Order::Listed;
            let rules = rules::of(host, (&Over::Tls, users), &mut at.backends, problems);
            at.rules = rules.into_iter().map(|rule| shared.share(rule)).collect();
        }
        let refused = over_tls.refused.iter();
        for one in refused.filter(|one| over_tls.covering(&one.name).is_some_and(|by| by.name == over.name)) {
            add_refused(one, place, draft);
        }
    }
}

/// Has the listener at `place` answer requests for a name that is not served.
pub(super) fn add_refused(refused: &RefusedName<'_>, place: usize, draft: &mut Draft<'_>) {
    let RefusedName { name, ingress, field, why } = refused;
    let called = field.trim_start_matches("spec.");
    let filters = Filters {
        answer: Some(OwnAnswer::Unusable(format!("{}: {why}", ingress.name))),
        ..Filters::default()
    };
    let rule = Rule { name: ingress_rule_name(ingress, called), filters, ..Rule::default() };
    let rule = draft.shared.share(rule);
    let at = draft.host(place, name);
    at.order = Order::Listed;
    at.rules = vec![rule];
}

impl TlsHost<'_> {
    /// Whether it sends requests for what `path` serves in plaintext to TLS: a younger document of another namespace does
    /// not.
    pub(super) fn may_redirect(&self, path: &Ingress) -> bool {
        // As in nginx, where only `tls` asks for that.
        if self.certified == (Certified::PassesOn { in_tls: false }) {
            return false;
        }
        self.ingress.name.namespace == path.name.namespace || self.ingress.seniority() < path.seniority()
    }

    fn certificate(&self) -> (&str, Certified<'_>) {
        (&self.ingress.name.namespace, self.certified)
    }

    fn passes_on(&self) -> bool {
        matches!(self.certified, Certified::PassesOn { .. })
    }

    /// Tells that `first` decides for its host.
    fn overruled_by(&self, first: &Self, problems: &mut Problems) {
        let what = match first.certified {
            Certified::Ends(_) => "names the certificate of that host; name the same Secret, or remove it",
            Certified::PassesOn { .. } => "passes TLS of that host on to its app; remove it",
        };
        let message = format!(
            "has no effect for {}: {} ({}) is older and {what}",
            self.name, first.ingress.name, first.ingress.location
        );
        problems.overruled(self.ingress, self.field, message);
    }

    /// Has the listener at `place` pass connections on to who gets the requests for `/`.
    fn pass_on(&self, place: usize, hosts: &Hosts<'_>, draft: &mut Draft<'_>, problems: &mut Problems) {
        let host = hosts.covering(&self.name).filter(|host| host.name == self.name);
        let root = host.and_then(|host| host.paths.iter().find(|path| path.is_root()));
        let Some(path) = root else {
            let message =
                format!("needs a path / of {}, so nobody is served there over TLS; add one", self.name);
            return problems.error(self.ingress, self.field, message);
        };
        let at = draft.host(place, &self.name);
        let index = rules::backend(path.ingress, path.backend, &Nginx::default(), &mut at.backends, problems);
        let backends = vec![WeightedBackend::new(at.backends.at_layer(index, Layer::Tls), 1)];
        let name = ingress_rule_name(self.ingress, SSL_PASSTHROUGH);
        at.tcp = vec![TcpRule { name, layer: Layer::Tcp, matches: Vec::new(), backends }];
    }

    /// How TLS ends. Without a certificate that can be shown, nobody is served.
    fn termination(
        &self,
        secret: Option<&str>,
        draft: &mut Draft<'_>,
        problems: &mut Problems,
    ) -> Termination {
        let mut certificates = Vec::new();
        let outcome = format!("so nobody is served at {} over TLS", self.name);
        match secret {
            None => {
                let message =
                    format!("names no secretName, {outcome}; name a Secret of the type kubernetes.io/tls");
                problems.error(self.ingress, self.field, message);
            }
            Some(secret) => match draft.certificate(&self.ingress.name.namespace, secret, &self.name) {
                Ok(found) => {
                    certificates.push(found.server.name.clone());
                    let field = format!("{}.secretName", self.field);
                    found.remarks.into_iter().for_each(|one| one.report(self.ingress, &field, problems));
                }
                Err(refused) => {
                    let field = format!("{}.secretName", self.field);
                    problems.error(self.ingress, &field, format!("{} ({outcome})", refused.why));
                    refused.at_object.into_iter().for_each(|problem| problems.add(*problem));
                }
            },
        }
        Termination { certificates, clients: None, tls12: true, http: true }
    }
}
