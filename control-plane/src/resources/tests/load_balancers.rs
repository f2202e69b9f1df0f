//! `loadBalancer` of a `DestinationRule`, as it is read and refused.

use std::time::Duration;

use selvedge_model::{
    ConsistentHash, HashCookie, HashKey, HashTable, LoadBalancer, Warmup, filter::Fraction,
};

use super::*;
use crate::resources::load_balancer::BalancerBlock;

fn annotated(annotations: &str, load_balancer: &str) -> Decoded {
    only(&format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a, annotations: {{{annotations}}}}}\n\
         spec:\n  host: a\n  trafficPolicy:\n    loadBalancer: {load_balancer}\n"
    ))
}

fn block(load_balancer: &str) -> BalancerBlock {
    let decoded = annotated("", load_balancer);
    policy(&decoded).load_balancer.clone().unwrap()
}

fn hash(key: HashKey, table: HashTable) -> LoadBalancer {
    LoadBalancer::ConsistentHash(ConsistentHash { key, table, load_bound: None })
}

#[test]
fn what_a_load_balancer_says_is_read_as_istio_reads_it() {
    let header = || HashKey::Header("x-user".to_owned());
    let cookie = HashCookie {
        name: "user".to_owned(),
        ttl: Some(Duration::ZERO),
        path: Some("/shop".to_owned()),
        attributes: vec!["SameSite=Lax".to_owned(), "Secure".to_owned()],
        renewed_on_failure: false,
        key: None,
    };
    for (yaml, expected) in [
        ("{simple: PASSTHROUGH}", LoadBalancer::Passthrough),
        ("{consistentHash: {httpHeaderName: X-User}}", hash(header(), HashTable::Ring { minimum: 1024 })),
        (
            "{consistentHash: {httpHeaderName: x-user, maglev: {tableSize: 65537}}}",
            hash(header(), HashTable::Maglev { size: 65_537 }),
        ),
        (
            "{consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 7}}}",
            hash(HashKey::SourceAddress, HashTable::Ring { minimum: 7 }),
        ),
        (
            "{consistentHash: {httpQueryParameterName: q, maglev: {tableSize: 101}}}",
            hash(HashKey::Query("q".to_owned()), HashTable::Maglev { size: 101 }),
        ),
        (
            "{consistentHash: {httpCookie: {name: user, ttl: 0s, path: /shop, attributes: [{name: SameSite, value: Lax}, \
             {name: Secure}]}}}",
            hash(HashKey::Cookie(cookie), HashTable::RING),
        ),
    ] {
        assert_eq!(block(yaml), BalancerBlock { balancer: expected, ..BalancerBlock::default() }, "{yaml}");
        assert_eq!(told(&annotated("", yaml)), [], "{yaml}");
    }

    let minimum = Fraction::of_percent(10.0).unwrap();
    let usual = Warmup { duration: Duration::from_secs(60), minimum, aggression_thousandths: 1_000 };
    let said = Warmup { minimum: Fraction::of_percent(2.5).unwrap(), aggression_thousandths: 1_500, ..usual };
    assert_eq!(block("{warmupDurationSecs: 60s}").warmup, Some(usual));
    assert_eq!(block("{warmup: {duration: 60s}}").warmup, Some(usual));
    let short = Warmup { duration: Duration::from_millis(1), ..usual };
    assert_eq!(block("{warmup: {duration: 1ms}}").warmup, Some(short), "as in Istio");
    let yaml = "{simple: ROUND_ROBIN, warmup: {duration: 1m, minimumPercent: 2.5, aggression: 1.5}}";
    assert_eq!(block(yaml).warmup, Some(said));
}

#[test]
fn what_istio_refuses_of_a_load_balancer_is_refused() {
    for (yaml, field, words) in [
        ("{simple: RANDOM, consistentHash: {useSourceIp: true}}", "", "both simple and consistentHash"),
        ("{consistentHash: {}}", ".consistentHash", "exactly one"),
        ("{consistentHash: {useSourceIp: true, httpHeaderName: a}}", ".consistentHash", "exactly one"),
        (
            "{consistentHash: {useSourceIp: true, ringHash: {}, maglev: {}}}",
            ".consistentHash",
            "both ringHash",
        ),
        (
            "{consistentHash: {useSourceIp: true, maglev: {tableSize: 100}}}",
            ".consistentHash.maglev.tableSize",
            "prime",
        ),
        (
            "{consistentHash: {useSourceIp: true, maglev: {tableSize: 5000011}}}",
            ".consistentHash.maglev.tableSize",
            "below 5000011",
        ),
        ("{consistentHash: {useSourceIp: true, maglev: {}}}", ".consistentHash.maglev", "has no tableSize"),
        (
            "{consistentHash: {useSourceIp: true, maglev: {tableSize: 0}}}",
            ".consistentHash.maglev",
            "has no tableSize",
        ),
        ("{consistentHash: {httpHeaderName: 'a b'}}", ".consistentHash.httpHeaderName", "header"),
        ("{consistentHash: {httpCookie: {ttl: 1s}}}", ".consistentHash.httpCookie.name", "name the cookie"),
        ("{consistentHash: {httpCookie: {name: 'a;b'}}}", ".consistentHash.httpCookie.name", "a;b"),
        ("{consistentHash: {httpCookie: {name: a, path: '/;x'}}}", ".consistentHash.httpCookie.path", ";"),
        ("{warmup: {}}", ".warmup", "duration"),
        ("{warmup: {duration: 0s}}", ".warmup.duration", "1ms"),
        ("{warmup: {duration: 5s, aggression: 0.5}}", ".warmup.aggression", "0.5"),
        ("{warmup: {duration: 5s, minimumPercent: 101}}", ".warmup.minimumPercent", "101"),
    ] {
        let decoded = annotated("", yaml);

        assert!(matches!(decoded.outcome, DecodeOutcome::Failed), "{yaml}");
        let problem = &decoded.problems[0];
        assert_eq!(problem.field, format!("spec.trafficPolicy.loadBalancer{field}"), "{yaml}");
        assert!(problem.message.contains(words), "{problem}");
        assert_eq!(problem.line, Some(7), "{yaml}");
    }
}

#[test]
fn annotations_ask_for_what_istio_has_no_field_for() {
    let of = |annotations: &str, yaml: &str| {
        policy(&annotated(annotations, yaml)).load_balancer.clone().unwrap().balancer
    };
    let ewma = "config.selvedge.io/load-balancer: PEAK_EWMA";
    assert_eq!(of(ewma, "{}"), LoadBalancer::PeakEwma);
    assert_eq!(of(ewma, "{simple: ROUND_ROBIN}"), LoadBalancer::RoundRobin);
    let bound = "config.selvedge.io/hash-load-bound: '125'";
    let LoadBalancer::ConsistentHash(hash) = of(bound, "{consistentHash: {useSourceIp: true}}") else {
        panic!("a hash")
    };
    assert_eq!(hash.load_bound, Some(125));
    for (annotation, yaml) in [
        (ewma, "{simple: RANDOM}"),
        (ewma, "{simple: ROUND_ROBIN}"),
        (ewma, "{consistentHash: {useSourceIp: true}}"),
        (bound, "{simple: RANDOM}"),
        (bound, "{}"),
    ] {
        let field = format!("metadata.annotations[{}]", annotation.split_once(':').unwrap().0);
        let decoded = annotated(annotation, yaml);
        let [problem] = &decoded.problems[..] else { panic!("{yaml}: {:?}", decoded.problems) };
        assert_eq!((&*problem.field, problem.severity), (&*field, Severity::NotActedOn), "{yaml}");
    }
    for (annotation, yaml) in [(ewma, "{}"), (bound, "{consistentHash: {useSourceIp: true}}")] {
        assert_eq!(told(&annotated(annotation, yaml)), [], "{annotation}, {yaml}");
    }

    for wrong in ["config.selvedge.io/load-balancer: FASTEST", "config.selvedge.io/hash-load-bound: '100'"] {
        let decoded = annotated(wrong, "{}");
        assert!(matches!(decoded.outcome, DecodeOutcome::Failed), "{wrong}");
    }
    let random = annotated("", "{simple: RANDOM, warmup: {duration: 60s}}");
    assert_eq!(told(&random)[0].0, "spec.trafficPolicy.loadBalancer.warmup");
    assert_eq!(policy(&random).load_balancer.as_ref().unwrap().warmup, None);
}
