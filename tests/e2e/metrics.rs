//! `/metrics` of both daemons, in the format that is asked for, as Prometheus' own tool reads it.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use selvedge_demo::{call, workload::Spec};
use selvedge_tests::{Mesh, needs::Need};

use crate::SELVEDGE;

/// As Prometheus 3 asks.
const SCRAPER: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                       application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

/// What is wrong with `text` by `promtool check metrics`; nothing if the tool is not there.
fn checked(text: &str) -> String {
    let Some(promtool) = Need::Promtool.program() else { return String::new() };
    let mut promtool = Command::new(promtool);
    let child = promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn both_daemons_speak_both_formats_of_metrics() {
    let mesh =
        Mesh::of(SELVEDGE, [Spec::client("caller"), Spec::server("reviews-v1", "reviews", 9080)]).await;
    let caller = mesh.workload("caller");
    assert_eq!(caller.call(call::to("reviews:9080", "/")).await.unwrap().status, 200);
    let control_plane = mesh.control_plane_process().unwrap().listener("admin", selvedge_tests::SOON);
    let admins = [("proxy", caller.admin), ("control plane", control_plane.await.unwrap())];
    for (name, admin) in admins {
        let scrape = async |accept: Option<&str>| {
            let call = call::to(&admin.to_string(), "/metrics");
            let call = accept.into_iter().fold(call, |call, accept| call.header("accept", accept));
            let answer = call::send(admin, call).await.unwrap();
            let kind = answer.headers["content-type"].to_str().unwrap().to_owned();
            (kind, answer.text().to_owned())
        };

        for accept in [None, Some("*/*"), Some("text/plain;version=0.0.4")] {
            let (kind, text) = scrape(accept).await;
            assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8", "{name}");
            assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{name}: {text}");
            let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
            for (family, kind) in types {
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{name}: {family} {kind}");
                assert_eq!(kind == "counter", family.ends_with("_total"), "{name}: {family} {kind}");
            }
            assert_eq!(checked(&text), "", "{name}");
        }
        let (kind, text) = scrape(Some(SCRAPER)).await;
        assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8", "{name}");
        assert!(text.ends_with("# EOF\n") && text.contains(" info\n"), "{name}: {text}");
    }
}
