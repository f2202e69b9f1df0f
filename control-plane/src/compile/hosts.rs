//! Host names in documents: short names, wildcards, and which of several patterns is the most specific.

use std::{borrow::Borrow, collections::BTreeMap, ops::Bound};

/// The full name of `host` as a rule in `namespace` means it: a name without a dot is a service there.
pub(super) fn resolve(host: &str, namespace: &str, cluster_domain: &str) -> String {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.contains(['.', '*', ':']) {
        return host.to_owned();
    }
    service_host(host, namespace, cluster_domain)
}

/// The full name of a Kubernetes service.
pub(super) fn service_host(name: &str, namespace: &str, cluster_domain: &str) -> String {
    format!("{name}.{namespace}.svc.{cluster_domain}")
}

/// The namespace that `host` belongs to, if it is a name of services (`NAME.NAMESPACE.svc`, with or without the domain);
/// `*`: it is a name of every namespace's.
pub(super) fn namespace_of<'h>(host: &'h str, cluster_domain: &str) -> Option<&'h str> {
    let without = host.strip_suffix(cluster_domain).and_then(|host| host.strip_suffix('.'));
    let names = without.unwrap_or(host).strip_suffix(".svc")?;
    if names == "*" { Some(names) } else { Some(names.rsplit_once('.')?.1) }
}

/// What `patterns` (names, or `*` and a suffix) have for `host`, each with how closely it names it. They are looked up: by the
/// name, and by each of its suffixes if there is a wildcard at all.
pub(super) fn matching<'m, K: Borrow<str> + Ord, V>(
    patterns: &'m BTreeMap<K, V>,
    host: &str,
) -> impl Iterator<Item = (usize, &'m V)> + use<'m, K, V> {
    let mut found: Vec<(usize, &V)> = Vec::new();
    let mut wildcards = patterns.range::<str, _>((Bound::Included("*"), Bound::Excluded("+")));
    if wildcards.next().is_some() {
        let mut pattern = String::with_capacity(host.len());
        for (start, _) in host.char_indices().skip(1).chain([(host.len(), ' ')]).filter(|_| !host.is_empty())
        {
            pattern.clear();
            pattern.push('*');
            pattern.push_str(&host[start..]);
            found.extend(patterns.get(pattern.as_str()).map(|value| (host.len() - start, value)));
        }
    }
    // A wildcard is no name, also where it is written the same.
    let name = patterns.get(host).filter(|_| !host.starts_with('*'));
    found.extend(name.map(|value| (usize::MAX, value)));
    found.into_iter()
}

/// What to write instead of a host that nothing has, if that can be told.
pub(super) fn suggestion(host: &str, cluster_domain: &str, known: impl Fn(&str) -> bool) -> String {
    let full = format!("{host}.svc.{cluster_domain}");
    if known(&full) {
        format!("write {full}: only names without a dot are completed")
    } else {
        "add a Service or ServiceEntry for it, or correct the name".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How closely `pattern` (a name, or `*` and a suffix) names `host`; `None` if it does not. What [`matching`] is held to.
    fn closeness(pattern: &str, host: &str) -> Option<usize> {
        match pattern.strip_prefix('*') {
            None => (pattern == host).then_some(usize::MAX),
            Some(suffix) => (host.len() > suffix.len() && host.ends_with(suffix)).then_some(suffix.len()),
        }
    }

    #[test]
    fn only_a_name_without_a_dot_is_completed() {
        assert_eq!(resolve("a", "shop", "cluster.local"), "a.shop.svc.cluster.local");
        assert_eq!(resolve("a.shop", "x", "cluster.local"), "a.shop");
        assert_eq!(resolve("*", "x", "cluster.local"), "*");
        assert_eq!(resolve("a.example.com.", "x", "cluster.local"), "a.example.com");
    }

    #[test]
    fn names_of_services_belong_to_their_namespaces() {
        let of = |host| namespace_of(host, "cluster.local");

        assert_eq!(of("a.shop.svc.cluster.local"), Some("shop"));
        assert_eq!(of("a-0.a.shop.svc.cluster.local"), Some("shop"));
        assert_eq!(of("a.shop.svc"), Some("shop"));
        assert_eq!(of("*.shop.svc.cluster.local"), Some("shop"));
        assert_eq!(of("*.svc.cluster.local"), Some("*"));
        for other in ["a.shop", "a.example.com", "*.cluster.local", "*.local", "a.svc", "svc.cluster.local"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn patterns_are_looked_up_as_they_would_be_looked_through() {
        let words = [
            "*", "*.", "*a", "*.a", "*.b.a", "*.c.b.a", "a", "b.a", "c.b.a", "*b.a", "é.a", "*é.a", "*.é.a",
            "",
        ];
        for without in 0..words.len() {
            let patterns: BTreeMap<String, usize> =
                words.iter().map(|word| (*word).to_owned()).zip(0..).collect();
            let patterns: BTreeMap<String, usize> =
                patterns.into_iter().filter(|(_, place)| *place != without).collect();
            let names = patterns.iter().filter(|(pattern, _)| !pattern.starts_with('*'));
            let names: BTreeMap<String, usize> =
                names.map(|(pattern, place)| (pattern.clone(), *place)).collect();
            for host in words {
                for patterns in [&patterns, &names] {
                    let mut found: Vec<_> = matching(patterns, host).collect();
                    found.sort_unstable();
                    let naive = patterns.iter();
                    let mut naive: Vec<_> = naive
                        .filter_map(|(pattern, place)| Some((closeness(pattern, host)?, place)))
                        .collect();
                    naive.sort_unstable();
                    assert_eq!(found, naive, "{host} in {patterns:?}");
                }
            }
        }
    }

    #[test]
    fn the_longest_suffix_is_the_closest() {
        let host = "a.shop.svc.cluster.local";

        assert_eq!(closeness(host, host), Some(usize::MAX));
        assert!(closeness("*.shop.svc.cluster.local", host) > closeness("*.cluster.local", host));
        assert_eq!(closeness("*", host), Some(0));
        assert_eq!(closeness("*.other", host), None);
        assert_eq!(closeness("*.shop.svc.cluster.local", "shop.svc.cluster.local"), None);
    }
}
