use super::*;

const QUOTA: Quota = Quota { requests: 10, per: Duration::from_secs(1), burst: 10 };

fn identity(account: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/default/sa/{account}").parse().unwrap()
}

fn asker<'a>(address: &str, identity: Option<&'a SpiffeId>, headers: &'a HeaderMap) -> Asker<'a> {
    Asker { address: Some(address.parse().unwrap()), identity, headers, route: None }
}

#[test]
fn a_client_is_known_by_its_address_and_by_its_network_of_ipv6() {
    let (limit, none) = (Limit::new(By::ClientAddress, QUOTA), HeaderMap::new());
    let whose = |address| limit.whose(asker(address, None, &none)).unwrap();

    assert_eq!(whose("10.0.0.1"), whose("::ffff:10.0.0.1"));
    assert_ne!(whose("10.0.0.1"), whose("10.0.0.2"));
    assert_eq!(whose("2001:db8::1"), whose("2001:db8::ffff:2"));
    assert_ne!(whose("2001:db8::1"), whose("2001:db8:0:1::1"));
}

#[test]
fn what_a_limit_asks_for_and_a_client_does_not_say_leads_to_one_bucket() {
    let (none, ours) = (HeaderMap::new(), identity("a"));
    let by = |by| Limit::new(by, QUOTA);

    let by_identity = by(By::ClientIdentity);
    assert_eq!(by_identity.whose(asker("10.0.0.1", None, &none)), Some(Whose::Unknown));
    assert_eq!(by_identity.whose(asker("10.0.0.1", Some(&ours), &none)), Some(Whose::Identity(&ours)));
    let by_header = by(By::Header(HeaderName::from_static("x-key")));
    assert_eq!(by_header.whose(asker("10.0.0.1", None, &none)), Some(Whose::Unknown));
}

#[test]
fn a_header_is_told_apart_by_its_value_if_there_is_one_alone() {
    let limit = Limit::new(By::Header(HeaderName::from_static("x-key")), QUOTA);
    let headers = |values: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-key", HeaderValue::from_static(value));
        }
        headers
    };
    let [one, again, other] = [headers(&["a"]), headers(&["a"]), headers(&["a, b"])];
    let whose = |headers| limit.whose(asker("10.0.0.1", None, headers)).unwrap();

    assert_eq!(whose(&one), whose(&again));
    assert_ne!(whose(&one), whose(&other));
    let mut spelt = headers(&[]);
    spelt.insert("x_key", HeaderValue::from_static("a"));
    let mut both = spelt.clone();
    both.insert("x-key", HeaderValue::from_static("a"));
    let evasions = [headers(&["a", "b"]), headers(&["a", "a"]), headers(&["a", ""]), spelt, both];
    for evasion in &evasions {
        assert_eq!(whose(evasion), Whose::Unknown, "{evasion:?}");
    }
}

#[test]
fn an_exception_has_a_bucket_and_a_quota_of_its_own() {
    let (a, b, none) = (identity("a"), identity("b"), HeaderMap::new());
    let more = Quota { requests: 99, ..QUOTA };
    let exceptions = vec![Exception { identities: [a.clone()].into(), quota: more }];
    let limit = Limit { exceptions, ..Limit::new(By::ClientIdentity, QUOTA) };

    let whose = limit.whose(asker("10.0.0.1", Some(&a), &none)).unwrap();
    assert_eq!((limit.quota(&whose), whose), (more, Whose::Exception(0)));
    let whose = limit.whose(asker("10.0.0.1", Some(&b), &none)).unwrap();
    assert_eq!(limit.quota(&whose), QUOTA);
}

#[test]
fn who_is_exempt_draws_on_no_bucket() {
    let exempt = AddressSet::new(["10.0.0.0/8".parse().unwrap()]);
    let (limit, none) = (Limit { exempt, ..Limit::new(By::Everyone, QUOTA) }, HeaderMap::new());

    assert_eq!(limit.whose(asker("10.1.2.3", None, &none)), None);
    assert_eq!(limit.whose(asker("192.0.2.1", None, &none)), Some(Whose::Everyone));
}

#[test]
fn what_all_share_is_asked_last() {
    let limits = vec![Limit::new(By::Everyone, QUOTA), Limit::new(By::ClientAddress, QUOTA)];

    let limit = RateLimit::new("a".into(), Some([80].into()), false, limits);

    assert_eq!(limit.limits[1].by, By::Everyone);
    assert!(limit.is_for(80) && !limit.is_for(81));
}
