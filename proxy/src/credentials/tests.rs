use std::net::Ipv4Addr;

use futures_util::future::join_all;
use http::HeaderValue;
use selvedge_model::gateway::{UserListForm, UserListName};

use super::{
    failures::{FAILURES, FAILURES_IN},
    *,
};

/// Each is of `secret`; from openssl(1), perl's crypt(3) and by hand.
const OF_SECRET: [&str; 10] = [
    "$apr1$Uu1.eRtt$4uvvI39f/k0Od4JugIz6Y.",
    "$1$ab$dslkcXxVH.x8LwW1W/oAB/",
    "$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA",
    "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1",
    "$6$rounds=1000$abc$MqEcPZUYRGGcOeq7PhMpfjfu/F0HrVEI0OlZBijWvO8mSG77iNUDP5MqFceKpJTBc8iITVtNyLiNTRNCxv6oh0",
    "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
    "{SSHA}gVK8WC9YyFT1gMsQHTGCgT3sSv5zYWx0",
    "{PLAIN}secret",
    "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a",
    "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW",
];

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn list(users: &[(&str, &str)]) -> UserList {
    let users = users.iter().map(|(name, hash)| ((*name).into(), hash.parse().unwrap()));
    UserList::new(UserListName::new("shop", "users", UserListForm::File), users)
}

fn headers(values: &[&str]) -> HeaderMap {
    let each = values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_str(value).unwrap()));
    each.collect()
}

fn presented(text: &str) -> Presented {
    let value = format!("Basic {}", BASE64_STANDARD.encode(text));
    Presented::of(&headers(&[&value])).unwrap()
}

#[test]
fn a_password_has_the_hash_that_others_have_made_of_it_and_no_other_password_has() {
    for text in OF_SECRET {
        let hash: PasswordHash = text.parse().unwrap();
        assert!(htpasswd::verify(&hash, b"secret"), "{text}");
        for other in ["", "Secret", "secret ", "secre"] {
            assert!(!htpasswd::verify(&hash, other.as_bytes()), "{text} {other:?}");
        }
    }
}

#[test]
fn passwords_of_every_length_have_the_hashes_that_openssl_makes() {
    for (password, apr1, crypt) in [
        ("", "$apr1$Uu1.eRtt$sy9JhGX8cSJgPUGLM2kjE.", "$1$ab$rn6aQS/o7141mj179E/zA."),
        ("a", "$apr1$Uu1.eRtt$8lw8RK.fXZx.6SMAa06Ju0", "$1$ab$NM4FR4Dl/CzoTSJTd3YJ3."),
        (
            "a longer password of more than sixteen bytes",
            "$apr1$Uu1.eRtt$aWq3MeoEkLvNLR7/VH5g.1",
            "$1$ab$hnp1l1qDna02fvevU8LqP0",
        ),
        ("pässword", "$apr1$Uu1.eRtt$FCPDGFpsVbq..phj/Bdpj/", "$1$ab$zSxXTAOa3MsUL6fbBrrN71"),
    ] {
        for text in [apr1, crypt] {
            let hash: PasswordHash = text.parse().unwrap();
            assert!(htpasswd::verify(&hash, password.as_bytes()), "{password:?} {text}");
        }
    }
}

#[test]
fn one_field_with_a_name_and_a_password_is_read_and_nothing_else() {
    let read = |values: &[&str]| {
        let found = Presented::of(&headers(values))?;
        Some((found.user().to_vec(), found.password().to_vec()))
    };

    assert_eq!(read(&["basic  YW5uOmE6Yg=="]), Some((b"ann".to_vec(), b"a:b".to_vec())));
    for values in [
        &[][..],
        &["Bearer YW5uOmE6Yg=="],
        &["Basic YW5u"],
        &["Basic *"],
        &["Basic"],
        &["BasicYW5uOmE6Yg=="],
        &["Basic YW5uOmE6Yg==", "Basic YW5uOmE6Yg=="],
    ] {
        assert_eq!(read(values), None, "{values:?}");
    }
    assert_eq!(format!("{:?}", presented("ann:secret")), "Presented(..)");
}

#[tokio::test]
async fn a_user_with_the_password_is_let_in_and_remembered_until_its_hash_is_another() {
    let credentials = Credentials::default();
    let judge = async |users: &UserList, text: &str| {
        credentials.judge(users, &presented(text), HERE, Instant::now()).await
    };
    let users = list(&[("ann", OF_SECRET[0]), ("bob", OF_SECRET[9])]);

    assert_eq!(judge(&users, "ann:secret").await, Verdict::Right);
    assert_eq!(judge(&users, "bob:secret").await, Verdict::Right);
    assert_eq!(credentials.verified.borrow().now.len(), 2);
    assert_eq!(judge(&users, "ann:secret").await, Verdict::Right);
    for wrong in ["ann:Secret", "eve:secret", ":secret", "ann:", "Ann:secret", "ann:secret\0"] {
        assert_eq!(judge(&users, wrong).await, Verdict::Wrong, "{wrong:?}");
    }
    assert_eq!(judge(&list(&[("bob", OF_SECRET[9])]), "ann:secret").await, Verdict::Wrong, "she is gone");
    assert_eq!(judge(&list(&[("ann", "{PLAIN}new")]), "ann:secret").await, Verdict::Wrong);
    assert_eq!(judge(&list(&[]), "ann:secret").await, Verdict::Wrong);
    assert_eq!(judge(&users, &format!("ann:{}", "a".repeat(LONGEST_PASSWORD + 1))).await, Verdict::Wrong);
    assert_eq!(credentials.verified.borrow().now.len(), 2);
}

#[tokio::test]
async fn an_address_that_fails_too_often_is_refused_but_not_who_was_let_in_before() {
    let credentials = Credentials::default();
    let users = list(&[("ann", "{PLAIN}secret")]);
    let now = Instant::now();
    let there: IpAddr = "192.0.2.1".parse().unwrap();
    let judge = async |text: &str, from: IpAddr| credentials.judge(&users, &presented(text), from, now).await;

    for _ in 0..3 * FAILURES {
        assert_eq!(judge("ann:secret", HERE).await, Verdict::Right, "what is right costs nothing");
    }
    for attempt in 0..FAILURES {
        assert_eq!(judge("ann:wrong", HERE).await, Verdict::Wrong, "{attempt}");
    }

    assert!(matches!(judge("ann:wrong", HERE).await, Verdict::TooMany(_)));
    assert!(matches!(judge("eve:other", HERE).await, Verdict::TooMany(_)));
    assert!(matches!(judge(":", HERE).await, Verdict::TooMany(_)), "an empty name is one, too");
    assert_eq!(judge("ann:secret", HERE).await, Verdict::Right, "it is remembered");
    assert_eq!(judge("ann:wrong", there).await, Verdict::Wrong, "another address");
    let later = credentials.judge(&users, &presented("ann:wrong"), HERE, now + FAILURES_IN / FAILURES).await;
    assert_eq!(later, Verdict::Wrong);
}

#[tokio::test]
async fn what_was_proven_from_one_network_is_told_to_no_other_for_nothing() {
    let credentials = Credentials::default();
    let users = list(&[("ann", "{PLAIN}secret")]);
    let now = Instant::now();
    let judge = async |text: &str, from: &str| {
        credentials.judge(&users, &presented(text), from.parse().unwrap(), now).await
    };
    assert_eq!(judge("ann:secret", "2001:db8::1").await, Verdict::Right);
    for _ in 0..FAILURES {
        assert_eq!(judge("ann:wrong", "192.0.2.1").await, Verdict::Wrong);
        assert_eq!(judge("ann:wrong", "2001:db8::1").await, Verdict::Wrong);
    }

    assert!(matches!(judge("ann:secret", "192.0.2.1").await, Verdict::TooMany(_)), "it may be a guess");
    assert_eq!(judge("ann:secret", "2001:db8::2").await, Verdict::Right, "the same network");
}

#[tokio::test]
async fn what_one_worker_has_seen_verified_the_others_know() {
    let verifier = Arc::<Verifier>::default();
    let [one, other] = [(); 2].map(|()| Credentials::new(Arc::clone(&verifier)));
    let users = list(&[("ann", "{PLAIN}secret")]);
    let now = Instant::now();
    assert_eq!(one.judge(&users, &presented("ann:secret"), HERE, now).await, Verdict::Right);
    for _ in 0..FAILURES {
        assert_eq!(other.judge(&users, &presented("ann:wrong"), HERE, now).await, Verdict::Wrong);
    }

    assert_eq!(other.judge(&users, &presented("ann:secret"), HERE, now).await, Verdict::Right);
    assert_eq!(other.verified.borrow().now.len(), 1);
}

#[tokio::test]
async fn many_who_come_at_once_with_the_same_password_cost_as_much_as_one() {
    let credentials = Credentials::default();
    let users = list(&[("ann", OF_SECRET[0])]);
    let now = Instant::now();
    let judge = async |text: &str| credentials.judge(&users, &presented(text), HERE, now).await;
    let right = join_all((0..3 * FAILURES).map(|_| judge("ann:secret"))).await;
    assert!(right.iter().all(|verdict| *verdict == Verdict::Right), "{right:?}");

    // Wrong ones too, whether there is such a user or not, so that it does not show.
    let hash = users.find(b"ann").unwrap();
    let tag = credentials.verifier.tag(HERE, hash, b"wrong");
    let mut answers = Vec::new();
    for (is_user, name) in [(true, "ann"), (false, "eve"), (false, "zed")] {
        for _ in 0..3 * FAILURES {
            let asked = (is_user, name.as_bytes().into(), tag);
            answers.push(credentials.answer(asked, hash, b"wrong", HERE, now).unwrap().unwrap());
        }
    }
    assert!(join_all(answers).await.iter().all(|answer| *answer == Ok(false)));
    for attempt in 3..FAILURES {
        assert_eq!(judge("ann:wrong").await, Verdict::Wrong, "{attempt}");
    }
    assert!(matches!(judge("ann:wrong").await, Verdict::TooMany(_)));
}

#[test]
fn whoever_leaves_before_the_hash_is_computed_has_spent_nothing() {
    let failures = Arc::<Failures>::default();
    let now = Instant::now();
    for _ in 0..3 * FAILURES {
        drop(failures.take(HERE, now).unwrap());
    }
    for _ in 0..FAILURES {
        failures.take(HERE, now).unwrap().spend();
    }
    assert!(failures.take(HERE, now).is_err());
}

#[test]
fn what_is_remembered_is_bounded_and_what_is_in_use_stays() {
    let mut verified = Verified::default();
    let tag = |number: usize| {
        let mut tag = [0; 32];
        tag[..8].copy_from_slice(&number.to_be_bytes());
        tag
    };
    for number in 0..10 * REMEMBERED {
        verified.remember(tag(number));
        assert!(verified.has(&tag(0)), "{number}");
    }

    assert!(verified.now.len() + verified.before.len() <= 2 * REMEMBERED);
    assert!(!verified.has(&tag(1)));
}
