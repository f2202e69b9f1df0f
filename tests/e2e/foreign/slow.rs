//! slowhttptest: a few hundred clients that take for ever.

use std::path::Path;

use selvedge_demo::call;
use selvedge_tests::needs::Need;
use tokio::process::Command;

use super::{APP, SOON, WAYS, Ways, output};

/// Each attack, and what it asks for.
const ATTACKS: [(&[&str], &str); 3] =
    [(&["-H"], "/"), (&["-B", "-s", "8192"], "/echo"), (&["-X", "-w", "10", "-y", "20"], "/?bytes=4000000")];

#[tokio::test]
async fn slow_clients_hold_up_nobody_else() {
    let Some(program) = Need::Slowhttptest.program() else { return };
    let ways = Ways::to_reviews().await;
    let caller = ways.mesh.workload(WAYS[0]);
    for (attack, path) in ATTACKS {
        let mut attackers = attackers(&program, attack, path, &caller.outbound.to_string());
        let attackers = output(&mut attackers);
        tokio::pin!(attackers);
        let mut served = 0;
        let ended = loop {
            tokio::select! {
                ended = &mut attackers => break ended,
                answer = caller.call(call::to(APP, "/normal").timeout(SOON)) => {
                    assert_eq!(answer.expect("an answer").status, 200, "{attack:?}");
                    served += 1;
                }
            }
        };

        let told = String::from_utf8_lossy(&ended.stdout);
        assert!(served > 0 && ended.status.success(), "{attack:?}: {served} served\n{told}");
        assert!(!told.contains("service available: NO"), "{attack:?}\n{told}");
    }
}

/// 300 connections in a second, for five seconds, to a sidecar that is used as a proxy.
fn attackers(program: &Path, attack: &[&str], path: &str, proxy: &str) -> Command {
    let mut command = Command::new(program);
    command.args(attack).args(["-c", "300", "-r", "300", "-i", "1", "-l", "5", "-p", "5"]);
    command.args(["-d", proxy, "-u", &format!("http://{APP}{path}")]);
    command
}
