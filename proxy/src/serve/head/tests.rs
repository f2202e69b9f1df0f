use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 400, count: 5 };

fn framing(head: &str) -> Framing {
    let judged = judge(head.as_bytes(), LIMITS).unwrap().unwrap();
    assert_eq!(judged.length, head.len());
    judged.framing
}

#[test]
fn a_message_ends_where_its_one_length_says() {
    assert_eq!(framing("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Framing::Empty);
    assert_eq!(framing("\r\nGET /?a=b|c HTTP/1.0\r\nhost:a:1\r\n\r\n"), Framing::Empty);
    assert_eq!(framing("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"), Framing::Empty);
    assert_eq!(framing("PUT / HTTP/1.1\r\nContent-Length: 12 \r\nHost: a\r\n\r\n"), Framing::Sized(12));
    assert_eq!(framing("PUT / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING:\tChunked\r\n\r\n"), Framing::Chunked);
    assert_eq!(framing("GET http://A:80/x HTTP/1.1\r\nHost: a\r\n\r\n"), Framing::Empty);
    assert_eq!(framing("GET HTTP://[::1]:9?x HTTP/1.1\r\nHost: [::1]:9\r\n\r\n"), Framing::Empty);
    assert_eq!(framing("GET http://a/x HTTP/1.0\r\n\r\n"), Framing::Empty);
    assert_eq!(framing("OPTIONS * HTTP/1.1\r\nHost: a\r\nx:\r\n\r\n"), Framing::Empty);
}

#[test]
fn a_head_that_is_too_large_is_told_so() {
    let host = "GET / HTTP/1.1\r\nHost: a\r\n";
    for head in [
        format!("{host}{}\r\n", "a: b\r\n".repeat(5)),
        format!("{host}a: {}\r\n\r\n", "b".repeat(400)),
        format!("{host}a: {}", "b".repeat(400)),
    ] {
        assert_eq!(judge(head.as_bytes(), LIMITS).unwrap_err().reason, Reason::HeadTooLarge, "{head}");
    }
    let just = format!("{host}{}\r\n", "a: b\r\n".repeat(4));
    assert!(judge(just.as_bytes(), LIMITS).unwrap().is_some());
}

#[test]
fn the_method_of_refused_requests_is_no_clients() {
    let head = format!("{REFUSED} / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(judge(head.as_bytes(), LIMITS).unwrap_err().reason, Reason::BadRequest);
}

proptest! {
    #[test]
    fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = judge(&bytes, LIMITS);
    }

    #[test]
    fn a_part_of_a_good_head_is_no_refusal(cut in 0usize..80) {
        let head = b"POST http://a:1/x HTTP/1.1\r\nHost: a:1\r\nContent-Length: 3\r\nx-y: z\r\n\r\nabc";
        let part = &head[..cut.min(head.len())];
        let judged = judge(part, LIMITS).unwrap();
        prop_assert_eq!(judged.is_some(), part.len() >= head.len() - 3);
    }
}
