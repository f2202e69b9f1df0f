use futures_util::FutureExt;

use super::*;
use crate::clients::WaitingFor;

fn advance(patience: &Patience, time: Duration) {
    for _ in 0..time.as_millis() / patience.tick().as_millis() {
        patience.advance();
    }
}

#[test]
fn each_wait_has_its_own_limit() {
    let (head, idle) = (Duration::from_secs(1), Duration::from_secs(10));
    let patience = Patience::new(head, idle);
    let watch = patience.watch();
    advance(&patience, idle);
    assert_eq!(watch.over().now_or_never(), None);
    patience.advance();
    assert_eq!(watch.over().now_or_never(), Some(()));

    watch.wait(WaitingFor::Head);
    advance(&patience, head);
    assert_eq!(watch.over().now_or_never(), None);
    patience.advance();
    assert_eq!(watch.over().now_or_never(), Some(()));

    watch.wait(WaitingFor::Nothing);
    advance(&patience, 10 * idle);
    assert_eq!(watch.over().now_or_never(), None);
}

#[test]
fn what_is_gone_is_forgotten() {
    let patience = Patience::new(Duration::from_secs(1), Duration::from_secs(1));
    drop(patience.watch());
    let _kept = patience.watch();

    patience.advance();

    assert_eq!(patience.connections.borrow().len(), 1);
}
