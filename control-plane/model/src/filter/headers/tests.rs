use super::*;

fn pieces(text: &str) -> Vec<Piece> {
    text.parse::<HeaderText>().unwrap().pieces
}

fn text(text: &'static str) -> Piece {
    Piece::Text(HeaderValue::from_static(text))
}

#[test]
fn commands_stand_among_text() {
    assert_eq!(pieces("plain"), [text("plain")]);
    assert_eq!(pieces(""), [text("")]);
    assert_eq!(pieces("100%% sure"), [text("100% sure")]);
    assert_eq!(
        pieces("a %REQ(X-Trace)%%PROTOCOL% b"),
        [text("a "), Piece::RequestHeader(HeaderName::from_static("x-trace")), Piece::Protocol, text(" b")]
    );
}

#[test]
fn what_is_not_known_is_named() {
    assert_eq!(
        "%UPSTREAM_HOST%".parse::<HeaderText>(),
        Err(HeaderTextError::UnknownCommand("UPSTREAM_HOST".to_owned()))
    );
    assert_eq!("50%".parse::<HeaderText>(), Err(HeaderTextError::Unfinished));
    assert!(matches!("a\nb".parse::<HeaderText>(), Err(HeaderTextError::Forbidden(_))));
    assert!(matches!("%REQ(a b)%".parse::<HeaderText>(), Err(HeaderTextError::UnknownCommand(_))));
}

fn change(name: &'static str, value: &str) -> HeaderChange {
    HeaderChange { name: HeaderName::from_static(name), value: value.parse().unwrap() }
}

fn list(headers: &HeaderMap) -> Vec<String> {
    let mut list: Vec<_> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    list.sort();
    list
}

#[test]
fn headers_are_removed_then_set_then_added() {
    let changes = HeaderChanges {
        remove: vec![HeaderName::from_static("gone"), HeaderName::from_static("both")],
        set: vec![change("set", "new"), change("both", "again")],
        add: vec![change("added", "2"), change("set", "more")],
    };
    let mut headers = HeaderMap::new();
    for (name, value) in [("gone", "x"), ("both", "x"), ("set", "old"), ("set", "older"), ("added", "1")] {
        headers.append(name, HeaderValue::from_static(value));
    }

    changes.apply(&mut headers);

    assert_eq!(list(&headers), ["added: 1", "added: 2", "both: again", "set: more", "set: new"]);
}

#[test]
fn commands_stand_for_what_the_request_has() {
    let changes = HeaderChanges {
        set: vec![
            change("all", "%PROTOCOL% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %HOSTNAME% %REQ(X-A)%%%"),
            change("time", "%START_TIME%"),
            change("missing", "%REQ(x-missing)%"),
            change("part", "a%REQ(x-missing)%"),
            change("empty", ""),
        ],
        ..HeaderChanges::default()
    };
    let mut headers = HeaderMap::new();
    headers.insert("x-a", HeaderValue::from_static("b"));
    let commands = Commands {
        headers: &headers,
        remote_address: IpAddr::from([10, 0, 0, 7]),
        protocol: "HTTP/2",
        start_time: SystemTime::UNIX_EPOCH,
        hostname: "node-1",
    };
    assert!(changes.has_commands());

    let mut changed = HeaderMap::new();
    changes.said(&commands).apply(&mut changed);

    let expected = ["all: HTTP/2 10.0.0.7 node-1 b%", "empty: ", "part: a", "time: 1970-01-01T00:00:00.000Z"];
    assert_eq!(list(&changed), expected);
}

#[test]
fn what_holds_a_message_together_is_not_changed() {
    let names = ["host", "connection", "content-length", "te", "selvedge-error", "selvedge_hops", "x-ok"];
    let changes = HeaderChanges {
        remove: names.map(HeaderName::from_static).into(),
        set: names.map(|name| change(name, "x")).into(),
        add: names.map(|name| change(name, "x")).into(),
    };
    let left = changes.that_may_be_made();
    assert_eq!(left.remove, ["x-ok"]);
    assert_eq!((left.set, left.add), (vec![change("x-ok", "x")], vec![change("x-ok", "x")]));
    assert!(!may_change(&HeaderName::from_static("x_forwarded_client_cert")));
}

#[test]
fn a_literal_reads_back_as_itself() {
    let literal = HeaderText::literal("50% %REQ(a)%").unwrap();

    assert_eq!(literal.pieces, [text("50% %REQ(a)%")]);
    assert_eq!(literal.to_string().parse::<HeaderText>().unwrap(), literal);
}
