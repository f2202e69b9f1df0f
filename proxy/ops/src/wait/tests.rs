use std::{net::TcpListener, sync::Arc, thread};

use axum::Router;

use super::*;
use crate::{Admin, Condition, Drain, Readiness, admin, listen, logging};

/// Long enough for a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);

/// An admin port with one condition that is not met; it ends with the process.
fn daemon() -> (SocketAddr, Condition) {
    let listener = listen::tcp("--admin", "[::]:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let readiness = Readiness::default();
    let condition = readiness.condition("certificate");
    thread::spawn(move || {
        let (_layer, log_level) = logging::filter("info").unwrap();
        let metrics = Arc::new(|| "# EOF\n".into());
        let admin = Admin { readiness, drain: Drain::default(), log_level, metrics, local: Router::new() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(admin::serve(listener, admin.router()))
    });
    (address, condition)
}

/// A server that says one thing to everybody.
fn server(says: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(says.as_bytes());
        }
    });
    address
}

#[test]
fn a_daemon_is_waited_for_until_it_is_ready() {
    let (admin, condition) = daemon();
    let waiting = thread::spawn(move || until_ready(admin, PATIENCE));

    let not_yet = until_ready(admin, SHORT).unwrap_err();
    condition.met();

    assert!(not_yet.to_string().contains("still missing: certificate"), "{not_yet}");
    assert_eq!(waiting.join().unwrap(), Ok(()));
}

#[test]
fn nobody_there_is_told_with_the_setting_to_look_at() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();

    let error = until_ready(free, SHORT).unwrap_err().to_string();

    assert!(error.contains("refused") && error.contains("is its --admin"), "{error}");
}

#[test]
fn a_daemon_that_appears_late_is_found() {
    let place = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = place.local_addr().unwrap();
    drop(place);
    let waiting = thread::spawn(move || until_ready(admin, PATIENCE));

    let listener = TcpListener::bind(admin).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let _ = stream.read(&mut [0; 1024]).unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nready\n").unwrap();
    drop(stream);

    assert_eq!(waiting.join().unwrap(), Ok(()));
}

#[test]
fn another_server_on_the_port_is_named() {
    let admin = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");

    let error = until_ready(admin, SHORT).unwrap_err();

    assert!(matches!(error.seen, Seen::Stranger { .. }), "{error}");
    assert!(error.to_string().contains("200 OK"), "{error}");
}

#[test]
fn a_server_that_says_nothing_does_not_hold_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();

    let error = until_ready(listener.local_addr().unwrap(), SHORT).unwrap_err();

    assert!(error.to_string().contains("does not answer"), "{error}");
}
