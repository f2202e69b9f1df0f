//! Sessions, one after the other, whatever the connection does with their bytes.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};

use super::{frames::LONGEST, *};

fn pair(room: usize) -> (Framed<DuplexStream>, Framed<DuplexStream>) {
    let (client, server) = duplex(room);
    (Framed::new(client), Framed::new(server))
}

/// One side of a session: says `pieces` and ends; what the other side has said.
async fn exchange(stream: &mut Framed<DuplexStream>, pieces: &[Vec<u8>]) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let writing = async {
        for piece in pieces {
            writer.write_all(piece).await.unwrap();
        }
        writer.shutdown().await.unwrap();
    };
    let mut read = Vec::new();
    let ((), ended) = tokio::join!(writing, reader.read_to_end(&mut read));
    ended.unwrap();
    read
}

#[tokio::test]
async fn a_session_is_its_bytes_in_frames_and_its_end() {
    let (client, mut wire) = duplex(1024);
    let mut client = Framed::new(client);

    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();

    let mut written = [0; 13];
    wire.read_exact(&mut written).await.unwrap();
    assert_eq!(&written, b"\0\0\0\x05hello\0\0\0\0");
}

#[tokio::test]
async fn what_goes_along_goes_first() {
    let (mut client, mut server) = pair(1024);

    server.send_along([7, 8]);
    server.write_all(b"welcome").await.unwrap();

    let mut read = [0; 9];
    client.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"\x07\x08welcome");
}

#[tokio::test]
async fn who_waits_for_the_other_side_to_speak_has_begun_its_session() {
    let (mut client, mut server) = pair(1024);
    let one = [b"one".to_vec()];
    tokio::join!(exchange(&mut client, &one), exchange(&mut server, &one));

    client.begin();
    let (greeting, ()) = tokio::join!(exchange(&mut client, &[]), async {
        assert!(server.next_session().await.unwrap());
        server.write_all(b"220 ready").await.unwrap();
        server.shutdown().await.unwrap();
    });

    assert_eq!(greeting, b"220 ready");
}

#[tokio::test]
async fn a_connection_that_ends_in_a_session_breaks_it_off() {
    for sent in [&b""[..], b"\0\0", b"\0\0\0\x05hel"] {
        let (client, mut wire) = duplex(1024);
        wire.write_all(sent).await.unwrap();
        drop(wire);

        let error = Framed::new(client).read_to_end(&mut Vec::new()).await.unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{sent:?}");
    }
}

#[tokio::test]
async fn a_length_that_nobody_sends_is_refused() {
    for sent in [OPEN, LONGEST + 1] {
        let (client, mut wire) = duplex(1024);
        wire.write_all(&sent.to_be_bytes()).await.unwrap();

        let error = Framed::new(client).read_to_end(&mut Vec::new()).await.unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{sent:#x}");
    }
}

#[tokio::test]
async fn a_server_that_closes_is_not_given_a_session_and_serves_one_that_has_begun() {
    let (mut client, mut server) = pair(1024);
    let one = [b"one".to_vec()];
    tokio::join!(exchange(&mut client, &one), exchange(&mut server, &one));
    assert!(client.is_free() && client.is_awaited() && server.is_free());

    client.begin();
    client.write_all(b"two").await.unwrap();
    server.say_closing().await.unwrap();

    assert!(server.next_session().await.unwrap());
    let (answer, question) = tokio::join!(exchange(&mut client, &[]), exchange(&mut server, &one));
    assert_eq!((&answer[..], &question[..]), (&b"one"[..], &b"two"[..]));
    assert!(!client.is_free(), "it knows by now");
}

#[tokio::test]
async fn a_connection_that_was_closed_is_not_used_again() {
    let (mut client, mut server) = pair(1024);
    tokio::join!(exchange(&mut client, &[]), exchange(&mut server, &[]));
    assert!(client.is_awaited());

    drop(server);

    assert!(client.is_free() && !client.is_awaited());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever the sizes of what is written and of what the connection takes, sessions keep their bytes to
    /// themselves, in their order.
    #[test]
    fn sessions_follow_one_another(
        room in 1_usize..300,
        sessions in proptest::collection::vec((any::<u64>(), 0_usize..4, 0_usize..4), 1..5),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let pieces = |seed: u64, count: usize| -> Vec<Vec<u8>> {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut piece = || {
                let length = rng.usize(..400);
                std::iter::repeat_with(|| rng.u8(..)).take(length).collect()
            };
            (0..count).map(|_| piece()).collect()
        };
        runtime.block_on(async {
            let (mut client, mut server) = pair(room);
            for (at, (seed, out, back)) in sessions.into_iter().enumerate() {
                let (out, back) = (pieces(seed, out), pieces(!seed, back));
                if at > 0 {
                    assert!(client.is_awaited());
                    client.begin();
                }
                let serving = async {
                    if at > 0 {
                        assert!(server.next_session().await.unwrap());
                    }
                    exchange(&mut server, &back).await
                };
                let (at_client, at_server) = tokio::join!(exchange(&mut client, &out), serving);
                assert_eq!((at_client, at_server), (back.concat(), out.concat()));
                assert!(client.is_free() && server.is_free());
            }
        });
    }
}

/// What is read of an answer's `body`, of which `said` has come already and `later` comes in small pieces, before the
/// connection ends.
async fn answered(body: AnswerBody, said: &str, later: &str) -> io::Result<Vec<u8>> {
    let (client, mut server) = duplex(3);
    let mut stream = Framed::raw(client).in_bodies(body, said.as_bytes().into());
    let serving = async move {
        // Who has read to the end does not take what comes behind it.
        let _ = server.write_all(later.as_bytes()).await;
    };
    let mut read = Vec::new();
    let reading = async {
        let ended = stream.read_to_end(&mut read).await;
        drop(stream);
        ended
    };
    let ((), ended) = tokio::join!(serving, reading);
    ended.map(|_| read)
}

#[tokio::test]
async fn an_answers_body_is_read_as_its_head_says() {
    use AnswerBody::{Chunked, Length, UntilClose};
    for (body, said, later, expected) in [
        (Chunked, "", "5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nx: y\r\n\r\nbehind", "hello world"),
        (Chunked, "5\r\nhel", "lo\r\n0\r\n\r\n", "hello"),
        (Chunked, "0\r\n\r\n", "", ""),
        (Length(5), "he", "llo, and more", "hello"),
        (Length(0), "", "", ""),
        (UntilClose, "he", "llo", "hello"),
    ] {
        assert_eq!(
            answered(body, said, later).await.unwrap(),
            expected.as_bytes(),
            "{body:?} {said} {later}"
        );
    }
    for (body, later, expected) in [
        (Chunked, "5\r\nhel", io::ErrorKind::UnexpectedEof),
        (Chunked, "5\r\nhello\r\n", io::ErrorKind::UnexpectedEof),
        (Chunked, "5\r\nhello5\r\n", io::ErrorKind::InvalidData),
        (Chunked, "five\r\n", io::ErrorKind::InvalidData),
        (Length(5), "hel", io::ErrorKind::UnexpectedEof),
    ] {
        assert_eq!(answered(body, "", later).await.unwrap_err().kind(), expected, "{body:?} {later}");
    }
    let endless = "1".repeat(10_000);
    assert_eq!(answered(Chunked, "", &endless).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn what_is_written_is_a_request_in_chunks_and_its_end() {
    let (client, mut server) = duplex(4);
    let mut stream = Framed::raw(client).in_bodies(AnswerBody::Length(2), BytesMut::from("ok"));
    let serving = async {
        let mut heard = Vec::new();
        while !heard.ends_with(b"0\r\n\r\n") && server.read_buf(&mut heard).await.unwrap() > 0 {}
        heard
    };
    let pieces = [b"hello".to_vec(), vec![b'x'; 17]];
    let (said, heard) = tokio::join!(exchange(&mut stream, &pieces), serving);

    assert_eq!(said, b"ok");
    assert_eq!(heard, [&b"5\r\nhello\r\n11\r\n"[..], &[b'x'; 17], b"\r\n0\r\n\r\n"].concat());
}
