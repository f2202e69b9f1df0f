//! Nothing goes round in circles, whatever led it round.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use selvedge_demo::{call, workload::Spec};
use selvedge_tests::poll;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use super::{super::SOON, Scene};
use crate::BOTH_VERSIONS;

/// Something that passes bytes on to a listener of ours, so that no address shows where they end.
async fn relay(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, accepted) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&accepted);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut there = TcpStream::connect(to).await.unwrap();
                // Either end may break off.
                let _ = copy_bidirectional(&mut stream, &mut there).await;
            });
        }
    });
    (address, accepted)
}

#[tokio::test]
async fn what_comes_back_is_noticed_whatever_led_it_round() {
    let scene = Scene::start().await;
    let neighbour = scene.mesh.workload("neighbour").outbound;
    for (through, rounds) in [(scene.outbound, 1), (neighbour, 2)] {
        for version in BOTH_VERSIONS {
            let (relay, accepted) = relay(through).await;
            // Made up, too many, and as a client may write them by chance: none of it hides that it comes back.
            for hops in ["", "nonsense", "00000000,11111111", "a,b,c,d,e,f,g,h,i,j"] {
                accepted.store(0, Ordering::Relaxed);
                let mut call = call::to(&relay.to_string(), "/").version(version);
                if !hops.is_empty() {
                    call = call.header("selvedge-hops", hops);
                }

                let answer = scene.ask(call).await;

                assert_eq!(answer.status, 508, "{through}, {hops:?}: {}", answer.summary());
                let times = accepted.load(Ordering::Relaxed);
                assert!(times <= rounds + 1, "{through}: it went round {times} times");
            }
        }
    }
    scene.is_well().await;
}

/// Only what is on this host, and not in the mesh, is told through which proxies a request came.
#[tokio::test]
async fn apps_in_the_mesh_do_not_see_the_hops() {
    let scene = Scene::start().await;
    let (outside, seen) = noting().await;
    let answer = scene.ask(call::to(&outside.to_string(), "/").header("selvedge-hops", "12345678")).await;
    assert_eq!(answer.status, 200, "{}", answer.summary());
    let head = seen.lock().unwrap().clone();
    assert!(head.contains("selvedge-hops: 12345678,"), "{head}");

    // The same server as an app of the mesh, called over mutual TLS and in plaintext.
    let mut target = Spec::server("target", "target", 9080);
    target.app = selvedge_demo::workload::AppKind::None;
    let mut scene = scene;
    scene.mesh.service("target", 9080);
    scene.mesh.add([target]).await.unwrap();
    let target = scene.mesh.workload("target");
    let seen = note_at(TcpListener::bind(target.app).await.unwrap());
    for at in [scene.outbound, target.inbound] {
        poll(SOON, "the app is called", async || {
            let call = call::to("target:9080", "/").header("selvedge-hops", "12345678");
            let answer = call::send(at, call.timeout(SOON)).await.map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(answer.summary()) }
        })
        .await;
        let head = seen.lock().unwrap().clone();
        assert!(head.contains("HTTP/1.1") && !head.contains("selvedge-hops"), "{head}");
    }
}

/// A server that notes the head of the last request.
async fn noting() -> (SocketAddr, Arc<std::sync::Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap(), note_at(listener))
}

fn note_at(listener: TcpListener) -> Arc<std::sync::Mutex<String>> {
    let seen = Arc::new(std::sync::Mutex::new(String::new()));
    let notes = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let length = stream.read(&mut head).await.unwrap_or_default();
            *notes.lock().unwrap() = String::from_utf8_lossy(&head[..length]).into_owned();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(answer).await; // it may have gone
        }
    });
    seen
}
