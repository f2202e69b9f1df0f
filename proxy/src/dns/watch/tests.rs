use selvedge_ops::Resolved;

use super::{
    task::{MIN_PAUSE, pause},
    *,
};

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().unwrap()).collect()
}

fn said(list: &[&str]) -> Result<Resolved, ResolveError> {
    Ok(Resolved { addresses: ips(list), valid_for: Duration::ZERO, lacks_ipv6: false })
}

#[test]
fn ipv6_addresses_stay_while_nobody_says_anything_about_them() {
    let both = next(&State::default(), said(&["10.0.0.1", "fd00::1"]));
    let silent = said(&["10.0.0.2"]).map(|resolved| Resolved { lacks_ipv6: true, ..resolved });

    let later = next(&both, silent);
    assert_eq!(later.addresses, ips(&["10.0.0.2", "fd00::1"]));
    assert_eq!(later.one, Some("10.0.0.2".parse().unwrap()));
    assert_eq!(next(&later, said(&["10.0.0.2"])).addresses, ips(&["10.0.0.2"]));
}

#[test]
fn addresses_follow_the_answers_and_stay_when_there_is_none() {
    let first = next(&State::default(), said(&["10.0.0.2", "10.0.0.1", "10.0.0.2"]));
    assert_eq!(first.addresses, ips(&["10.0.0.1", "10.0.0.2"]));

    let failing = next(&first, Err(ResolveError::NoSuchName));
    assert_eq!(failing.addresses, first.addresses);
    assert!(failing.failing.as_ref().unwrap().contains("NXDOMAIN"));

    let again = next(&failing, said(&["10.0.0.3"]));
    assert_eq!((again.addresses, again.failing), (ips(&["10.0.0.3"]), None));
}

#[test]
fn the_one_address_in_use_stays_while_it_is_among_the_answers() {
    let first = next(&State::default(), said(&["10.0.0.2", "10.0.0.1"]));
    assert_eq!(first.one, Some("10.0.0.2".parse().unwrap()), "the first of the answer");

    let rotated = next(&first, said(&["10.0.0.1", "10.0.0.2"]));
    assert_eq!(rotated.one, first.one);
    assert_eq!(rotated, first, "and nothing has changed");

    let gone = next(&rotated, said(&["10.0.0.1", "10.0.0.3"]));
    assert_eq!(gone.one, Some("10.0.0.1".parse().unwrap()));
}

#[test]
fn pauses_are_the_ttl_within_limits_and_double_while_it_fails() {
    let mut failures = 0;
    let found = |seconds| {
        Ok(Resolved {
            addresses: ips(&["10.0.0.1"]),
            valid_for: Duration::from_secs(seconds),
            lacks_ipv6: false,
        })
    };

    assert_eq!(pause(&found(4), &mut failures), Duration::from_secs(4));
    assert_eq!(pause(&found(0), &mut failures), MIN_PAUSE);
    assert_eq!(pause(&found(45), &mut failures), Duration::from_secs(45));
    let of_ipv4_alone = found(45).map(|resolved| Resolved { lacks_ipv6: true, ..resolved });
    assert_eq!(pause(&of_ipv4_alone, &mut failures), Duration::from_secs(5));
    let failed = Err(ResolveError::NoSuchName);
    let pauses: Vec<u64> = (0..5).map(|_| pause(&failed, &mut failures).as_secs()).collect();
    assert_eq!(pauses, [1, 2, 4, 5, 5]);
    pause(&found(5), &mut failures);
    assert_eq!(pause(&failed, &mut failures), MIN_PAUSE);
}
