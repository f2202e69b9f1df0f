use selvedge_model::traffic::Way;

use super::*;

fn name(text: &str) -> WorkloadName {
    text.parse().unwrap()
}

fn question(session: &str, of: Option<&str>) -> TapQuestion {
    let (session, of) = (session.to_owned(), of.map(str::to_owned));
    TapQuestion { session, of, wanted: "{}".to_owned(), over: false }
}

fn sample() -> Sample {
    Sample {
        at_ms: 1,
        way: Way::Inbound,
        method: "GET".to_owned(),
        authority: "a".to_owned(),
        path: "/".to_owned(),
        query: None,
        status: Some(200),
        grpc_status: None,
        reason: None,
        micros: 1,
        client_address: "127.0.0.1:1".to_owned(),
        client_identity: None,
        route: None,
        endpoint: None,
        endpoint_workload: None,
        endpoint_identity: None,
        attempts: 1,
        headers: Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_is_shown_what_has_come_and_is_forgotten_when_he_is_gone() {
    let taps = Arc::new(Taps::default());
    let both = || vec![name("shop/a"), name("other/b")];
    let first = taps.ask(question("me", Some("shop/*")), both).await.unwrap();
    assert_eq!(first, TapAnswer { proxies: 1, is_first: true, ..TapAnswer::default() });
    let asked = taps.of(&name("shop/a"));
    assert_eq!((asked.list.len(), taps.of(&name("other/b")).list.len()), (1, 0));

    let number = asked.list[0].0;
    taps.show(&name("shop/a"), vec![(number, sample()), (number + 1, sample())], &[(number, 7)]);
    taps.show(&name("other/b"), vec![(number, sample())], &[(number, 1)]);
    let second = taps.ask(question("me", Some("shop/*")), both).await.unwrap();
    assert_eq!((second.samples.len(), second.limited, second.lost), (1, 7, 0));
    let text = serde_json::to_string(&second).unwrap();
    assert_eq!(serde_json::from_str::<TapAnswer>(&text).unwrap(), second);

    for workload in 0..6 {
        taps.show(&name(&format!("shop/{workload}")), vec![(number, sample()); 200], &[]);
    }
    let third = taps.ask(question("me", Some("shop/*")), both).await.unwrap();
    assert_eq!((third.samples.len(), third.lost, third.is_first), (WAITING, 200, false));

    let mut changes = taps.changes();
    changes.borrow_and_update();
    changes.changed().await.unwrap();
    assert_eq!(taps.of(&name("shop/a")), Asked::default());
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_shows_more_than_it_may_has_no_more_than_its_share_and_nothing_that_was_not_asked_for() {
    let taps = Arc::new(Taps::default());
    taps.ask(question("me", None), Vec::new).await.unwrap();
    let number = taps.of(&name("a/liar")).list[0].0;
    let field = ("authorization".to_owned(), "x".repeat(1_000));
    let long = Sample { query: Some("secret".to_owned()), headers: vec![field; 64], ..sample() };
    taps.show(&name("a/liar"), vec![(number, long.clone()); 5_000], &[]);
    let answer = taps.ask(question("me", None), Vec::new).await.unwrap();
    assert_eq!((answer.samples.len(), answer.limited), (MOST_TAKEN as usize, 5_000 - u64::from(MOST_TAKEN)));
    assert!(answer.samples.iter().all(|seen| seen.sample == sample()), "nobody has asked for it");

    let revealing = TapQuestion {
        wanted: r#"{"headers":true,"reveal":"authorization","query":true}"#.to_owned(),
        ..question("other", None)
    };
    taps.ask(revealing, Vec::new).await.unwrap();
    let number = taps.of(&name("a/liar")).list[1].0;
    for second in 0..3 {
        taps.show(&name("a/liar"), vec![(number, long.clone()); 200], &[]);
        taps.show(&name(&format!("a/{second}")), vec![(number, sample())], &[]);
        tokio::time::advance(Duration::from_millis(1_001)).await;
        let inner = taps.lock();
        let session = &inner.sessions[&number];
        assert!(session.bytes <= WAITING_BYTES_OF_ONE + 10 * sample().bytes());
        assert_eq!(session.bytes, session.waiting.iter().map(|seen| seen.sample.bytes()).sum::<usize>());
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_ended_or_is_silent_leaves_his_place_to_others() {
    let taps = Arc::new(Taps::default());
    for number in 0..2 * MOST_TAPS {
        taps.ask(question(&number.to_string(), None), Vec::new).await.unwrap();
        let over = TapQuestion { over: true, ..question(&number.to_string(), None) };
        assert_eq!(taps.ask(over, Vec::new).await, Ok(TapAnswer::default()));
    }
    assert!(taps.of(&name("a/b")).list.is_empty());

    for number in 0..MOST_TAPS {
        taps.enter(question(&number.to_string(), None)).unwrap();
    }
    assert!(taps.enter(question("newer", None)).is_err());
    tokio::time::advance(SILENT_AFTER).await;
    taps.enter(question("0", None)).unwrap();
    taps.enter(question("newer", None)).unwrap();
    assert_eq!(taps.of(&name("a/b")).list.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn reports_come_often_while_somebody_looks() {
    let taps = Arc::new(Taps::default());
    let mut changes = taps.changes();
    taps.look_often();
    taps.look_often();
    changes.changed().await.unwrap();
    assert!(taps.of(&name("shop/a")).often);

    changes.changed().await.unwrap();
    assert_eq!(taps.of(&name("shop/a")), Asked::default());
}

#[tokio::test(start_paused = true)]
async fn only_so_many_may_ask_and_only_what_can_be_understood() {
    let taps = Arc::new(Taps::default());
    for number in 0..MOST_TAPS {
        assert!(taps.enter(question(&number.to_string(), None)).is_ok());
    }
    assert!(taps.ask(question("one more", None), Vec::new).await.unwrap_err().contains("others are asking"));
    assert!(taps.ask(question("0", Some("nobody")), Vec::new).await.unwrap_err().contains("NAMESPACE/NAME"));
    let wrong = TapQuestion { wanted: "{".to_owned(), ..question("0", None) };
    assert!(taps.ask(wrong, Vec::new).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_known_asks_for_nothing_else() {
    let taps = Arc::new(Taps::default());
    taps.ask(question("me", Some("shop/*")), Vec::new).await.unwrap();

    let other = TapQuestion { wanted: r#"{"method":"GET"}"#.to_owned(), ..question("me", Some("shop/*")) };
    for question in [question("me", None), question("me", Some("shop/a")), other] {
        let refused = taps.ask(question, Vec::new).await.unwrap_err();
        assert!(refused.contains("asks for something else already"), "{refused}");
    }
    taps.ask(question("me", Some("shop/*")), Vec::new).await.unwrap();
}
