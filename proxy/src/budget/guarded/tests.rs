use std::sync::Arc;

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::{
    super::{Budget, frames::GOAWAY},
    *,
};

const WINDOW: u32 = 1 << 24;

fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, 0], &stream.to_be_bytes(), payload].concat()
}

/// A server's end that has just told its client how large its window is.
async fn guarded(budget: u64) -> (DuplexStream, Guarded<DuplexStream>, Rc<Ledger>, Arc<Budget>) {
    let budget = Arc::new(Budget::new(budget));
    let ledger = Ledger::new(&budget, WINDOW);
    let (mut client, server) = duplex(1 << 20);
    let mut server = Guarded::new(server, Rc::clone(&ledger), Side::Server, ([127, 0, 0, 1], 1).into());
    server.write_all(&frame(WINDOW_UPDATE, 0, &(WINDOW - 65_535).to_be_bytes())).await.unwrap();
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    (client, server, ledger, budget)
}

/// Reads all that has arrived and may be read.
fn read(server: &mut Guarded<DuplexStream>) -> Option<io::Error> {
    let mut bytes = Vec::new();
    loop {
        match server.read_buf(&mut bytes).now_or_never()? {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => return Some(error),
        }
    }
}

#[tokio::test]
async fn data_is_held_and_nothing_else() {
    let (mut client, mut server, ledger, _) = guarded(1000).await;
    ledger.body_begins();

    client.write_all(&frame(4, 0, &[0; 48])).await.unwrap();
    client.write_all(&frame(DATA, 1, &[0; 300])).await.unwrap();
    read(&mut server);
    assert_eq!(ledger.held(), 300);

    server.write_all(&frame(RST_STREAM, 1, &[0; 4])).await.unwrap();
    client.write_all(&frame(DATA, 1, &[0; 40])).await.unwrap();
    client.write_all(&frame(DATA, 3, &[0; 7])).await.unwrap();
    read(&mut server);
    assert_eq!(ledger.held(), 307, "what comes for a stream that was reset is not kept");

    server.write_all(&frame(WINDOW_UPDATE, 1, &300_u32.to_be_bytes())).await.unwrap();
    assert_eq!(ledger.held(), 307, "that was the stream's window");
    let update = frame(WINDOW_UPDATE, 0, &340_u32.to_be_bytes());
    server.write_all(&update[..11]).await.unwrap();
    server.write_all(&update[11..]).await.unwrap();
    assert_eq!(ledger.held(), 7);
}

#[tokio::test(start_paused = true)]
async fn who_holds_too_much_is_not_read_from_until_it_is_taken() {
    let (mut client, mut server, ledger, budget) = guarded(100_000).await;
    ledger.body_begins();
    let large = vec![0; 70_000];
    for _ in 0..3 {
        client.write_all(&frame(DATA, 1, &large)).await.unwrap();
    }
    assert!(read(&mut server).is_none());
    assert!(budget.is_exhausted() && ledger.held() < 210_000, "{}", ledger.held());

    ledger.taken(usize::try_from(ledger.held()).unwrap() - 1000);
    tokio::time::advance(LOOK).await;
    assert!(read(&mut server).is_none());
    assert!(ledger.held() > 1000, "it is read from again");
}

// Paused: more is allowed as time passes.
#[tokio::test(start_paused = true)]
async fn a_flood_ends_with_a_word_and_is_counted() {
    let (mut client, mut server, _, budget) = guarded(1000).await;
    client.write_all(&frame(HEADERS, 5, &[0; 5])).await.unwrap();
    client.write_all(&frame(6, 0, &[0; 8]).repeat(1_001)).await.unwrap();

    assert!(read(&mut server).unwrap().to_string().contains("too many frames"));

    drop(server);
    let mut told = Vec::new();
    client.read_to_end(&mut told).await.unwrap();
    assert!(told.ends_with(&frame(GOAWAY, 0, &[0, 0, 0, 5, 0, 0, 0, 0xb])), "{told:?}");
    assert_eq!(budget.floods().map(|(_, count)| count).collect::<Vec<_>>(), [1, 0]);
}

#[tokio::test]
async fn a_connection_that_is_cut_ends_while_it_is_waited_for() {
    let (_client, mut server, ledger, _) = guarded(1000).await;
    assert!(read(&mut server).is_none());
    let mut buffer = [0];
    let mut reading = std::pin::pin!(server.read(&mut buffer));
    assert!(reading.as_mut().now_or_never().is_none());
    let cutting = async {
        tokio::task::yield_now().await;
        ledger.cut();
    };

    let (end, ()) = tokio::join!(reading, cutting);

    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
}

#[tokio::test]
async fn a_frame_of_any_kind_that_has_not_ended_is_held_and_the_oldest_goes() {
    for kind in [77, HEADERS, 4, GOAWAY] {
        let (mut client, mut server, ledger, budget) = guarded(1 << 20).await;
        let mut begun = frame(kind, 0, &[0; 9_000]);
        begun[4] = END_HEADERS;
        client.write_all(&begun[..8_009]).await.unwrap();
        assert!(read(&mut server).is_none());
        assert_eq!(ledger.held(), 8_000, "kind {kind}");
        assert!(budget.held() >= 8_000);

        client.write_all(&begun[8_009..]).await.unwrap();
        assert!(read(&mut server).is_none());
        assert_eq!((ledger.held(), budget.held()), (0, 0), "kind {kind}");
    }

    let (mut client, mut server, ledger, budget) = guarded(10_000).await;
    client.write_all(&frame(77, 0, &[0; 20_000])[..15_000]).await.unwrap();
    assert_eq!(read(&mut server).unwrap().kind(), io::ErrorKind::ConnectionAborted);
    assert_eq!((ledger.held(), budget.held()), (0, 0));
}

#[tokio::test]
async fn a_head_that_has_not_ended_is_held() {
    let (mut client, mut server, ledger, budget) = guarded(200_000).await;
    client.write_all(&frame(HEADERS, 1, &[0; 600])).await.unwrap();
    client.write_all(&frame(CONTINUATION, 1, &[0; 700])).await.unwrap();
    assert!(read(&mut server).is_none());
    assert_eq!(ledger.held(), 1300);
    assert!(budget.held() > 100_000, "each byte may be a field: {}", budget.held());

    let last = [&[0, 0, 1, CONTINUATION, END_HEADERS, 0, 0, 0, 1, 0][..]].concat();
    client.write_all(&last).await.unwrap();
    assert!(read(&mut server).is_none());
    assert_eq!((ledger.held(), budget.held()), (0, 0));

    client.write_all(&frame(HEADERS, 3, &[0; 600])).await.unwrap();
    assert!(read(&mut server).is_none());
    drop((server, ledger));
    assert_eq!(budget.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_takes_ends_its_connection() {
    let (mut client, mut server, ledger, budget) = guarded(10).await;
    ledger.body_begins();
    client.write_all(&frame(DATA, 1, &vec![0; 70_000])).await.unwrap();
    assert!(read(&mut server).is_none());

    tokio::time::advance(PATIENCE).await;

    assert!(read(&mut server).unwrap().to_string().contains("--buffer-budget"));
    let closed = budget.actions().find(|(action, _)| *action == Action::ClosedConnection);
    assert_eq!(closed, Some((Action::ClosedConnection, 1)));
    drop((server, ledger));
    assert_eq!(budget.held(), 0);
}
