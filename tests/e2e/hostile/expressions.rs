//! Regular expressions that are short to write and large when compiled: neither a proxy nor the control plane holds many.

use std::time::Duration;

use serde_json::Value;

use super::{Mesh, resident_mib};

/// How long so many expressions may take to compile, in a build that is not optimized.
const COMPILED: Duration = Duration::from_secs(60);

/// Routes of the service `target`, of which each has `each` expressions of some 450 KiB.
fn routes(documents: usize, each: usize) -> String {
    let document = |place: usize| {
        let matches: Vec<String> =
            (0..each).map(|at| format!("    - uri: {{regex: '/{place}/{at}/\\pL{{1,5}}'}}\n")).collect();
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: large-{documents}-{place}}}\n\
             spec:\n  hosts: [target]\n  http:\n  - match:\n{}    route: [{{destination: {{host: target}}}}]\n\
             \x20 - route: [{{destination: {{host: target}}}}]\n",
            matches.concat()
        )
    };
    (0..documents).map(document).collect::<Vec<_>>().join("---\n")
}

#[tokio::test]
async fn neither_one_document_nor_many_make_anybody_hold_large_expressions_without_bound() {
    let mesh = Mesh::start(&[]).await;

    for (documents, each, told) in [(1, 300, "in this document"), (20, 2, "those of its namespace")] {
        mesh.cluster.write("large.yaml", &routes(documents, each)).unwrap();
        selvedge_tests::poll(COMPILED, "the control plane to refuse it", async || {
            let answer = mesh.cluster.control_plane_admin("/problems").await;
            let answer = answer.map_err(|error| error.to_string())?;
            let problems: Vec<Value> = answer.json().map_err(|error| error.to_string())?;
            let refused = problems.iter().any(|problem| {
                problem["severity"] == "error"
                    && problem["message"].as_str().is_some_and(|message| message.contains(told))
            });
            if refused { Ok(()) } else { Err(format!("{problems:?}")) }
        })
        .await;
        mesh.is_well().await;
    }
    let resident = resident_mib(mesh.cluster.control_plane_process().expect("it was started").pid());
    assert!(resident < 100, "the control plane has {resident} MiB");
}
