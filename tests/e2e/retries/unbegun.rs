//! Requests that a server certainly did not look at are sent again whatever their method: streams that it refused, and
//! those above the last one that its GOAWAY names.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::{Method, Version};
use selvedge_demo::{call, workload::Spec};
use selvedge_tests::Mesh;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::outside;
use crate::{
    SELVEDGE,
    hostile::http2::{ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, SETTINGS, frame},
};

/// How a server refuses the stream of this number.
type Refuses = fn(u32) -> Vec<u8>;

/// Serves one connection. The first request of all is refused; the others are answered 200.
async fn serve(mut stream: TcpStream, asked: Arc<AtomicUsize>, refuses: Refuses) -> std::io::Result<()> {
    stream.read_exact(&mut [0; 24]).await?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let mut payload = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
        stream.read_exact(&mut payload).await?;
        let (kind, flags) = (head[3], head[4]);
        let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match kind {
            SETTINGS if flags & ACK == 0 => stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await?,
            DATA | HEADERS if flags & END_STREAM != 0 => {
                let says = match asked.fetch_add(1, Ordering::Relaxed) {
                    0 => refuses(number),
                    // Index 8 of HPACK's static table: `:status: 200`.
                    _ => frame(HEADERS, END_HEADERS | END_STREAM, number, &[0x88]),
                };
                stream.write_all(&says).await?;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_stream_that_the_server_never_began_is_sent_again_whatever_its_method() {
    let mut mesh = Mesh::empty(SELVEDGE);
    let refusals: [(&str, Refuses); 2] = [
        ("refused", |stream| frame(RST_STREAM, 0, stream, &7_u32.to_be_bytes())),
        ("leaving", |_| frame(GOAWAY, 0, 0, &[0; 8])),
    ];
    let mut counts = Vec::new();
    for (place, (name, refuses)) in (201..).zip(refusals) {
        let address = mesh.ground().socket(place, 9004).unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        counts.push(Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&asked), refuses));
            }
        });
        // No retries are asked for, and no budget allows any.
        let budget = "retryBudget: {percent: 0, minRetryConcurrency: 0}";
        let documents = outside(name, address, budget, "attempts: 0").replace("name: http,", "name: http2,");
        mesh.write(&format!("{name}.yaml"), &documents).unwrap();
    }
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::client("caller")]).await.unwrap();

    for ((name, _), asked) in refusals.iter().zip(&counts) {
        let call =
            call::to(&format!("{name}.test"), "/").method(Method::POST).body("once").version(Version::HTTP_2);
        let answer = mesh.workload("caller").call(call).await.unwrap();
        assert_eq!(answer.status, 200, "{name}: {}", answer.summary());
        assert_eq!(asked.load(Ordering::Relaxed), 2, "{name}");
    }
}
