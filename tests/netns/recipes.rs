//! Policies as people write them: with each of them in force, every pair of workloads is tried at every port, where
//! connections are redirected.

use std::collections::BTreeMap;

use selvedge_tests::{
    SOON,
    policies::recipes::{Asked, KNOWN, LESSON, NAMESPACES, OUTSIDE, PORTS, RECIPES, Recipe},
    poll,
};

use crate::{
    matrix::tried::{Done, Kind, Tried, serve, tried},
    mesh::{Mesh, Mode, Workload, client},
    namespace::Namespace,
    network,
    rights::netns,
};

/// Where clients and servers are, by name.
struct Place {
    name: &'static str,
    namespace: Namespace,
    address: std::net::IpAddr,
}

/// All workloads of the recipes, and somebody outside. All serve all ports.
async fn world() -> (Mesh, Vec<Place>) {
    let mut mesh = Mesh::on(network::Kind::Bridge).await;
    mesh.write("peerauthentication.yaml", "# everybody may come in\n");
    mesh.write("namespaces.yaml", NAMESPACES);
    let specs = KNOWN.map(|one| {
        let mode = if one.is_meshed { Mode::Redirected } else { Mode::NoSidecar };
        client(one.name).namespace(one.namespace).mode(mode)
    });
    mesh.add(specs).await;
    let mut places = Vec::new();
    for one in KNOWN {
        mesh.edit(&format!("workload-{}.yaml", one.name), |text| {
            let ports: String = PORTS.map(|port| format!("    port-{port}: {port}\n")).concat();
            let (key, value) = one.label;
            text.replace("  ports:\n", &format!("  ports:\n{ports}"))
                .replace("  labels:\n", &format!("  labels:\n    {key}: {value}\n"))
        });
        let Workload { place, .. } = mesh.workload(one.name);
        places.push(Place { name: one.full, namespace: place.namespace.clone(), address: place.address });
    }
    let outside = mesh.network.join(OUTSIDE);
    places.push(Place { name: OUTSIDE, namespace: outside.namespace, address: outside.address });
    for place in &places {
        for port in PORTS {
            serve(&place.namespace, port);
        }
    }
    (mesh, places)
}

/// Everything that is tried, by client.
fn all(places: &[Place]) -> BTreeMap<&'static str, Vec<(Asked, Tried)>> {
    let to = |from: &Place| {
        let others = places.iter().filter(|to| to.name != from.name);
        let each = others.flat_map(|to| PORTS.map(|port| (to, port)));
        each.map(|(to, port)| {
            let kind = if port == 8080 { Kind::Get } else { Kind::Opaque };
            (Asked { from: from.name, to: to.name, port }, Tried::to(kind, (to.address, port).into()))
        })
        .collect()
    };
    places.iter().map(|from| (from.name, to(from))).collect()
}

/// What a connection comes to that is let through, or is not.
fn wanted(asked: Asked, lets: bool) -> Done {
    match (lets, asked.port) {
        (true, _) => Done::Served,
        (false, 8080) => Done::Status(403),
        (false, _) => Done::Ended,
    }
}

async fn each_of(recipes: &[Recipe]) {
    let (mesh, places) = world().await;
    let all = all(&places);
    let open = Recipe { name: "no policy", documents: &[], into: |_| true, out: |_| true };
    for recipe in std::iter::once(&open).chain(recipes) {
        let documents = recipe.documents.join("\n---\n");
        mesh.write("policies.yaml", &format!("# {}\n{documents}", recipe.name));
        poll(SOON, &format!("{}\n{documents}", recipe.name), async || {
            let mut wrong = String::new();
            for place in &places {
                let (asked, trying): (Vec<_>, Vec<_>) = all[place.name].iter().cloned().unzip();
                for (asked, (_, done)) in asked.into_iter().zip(tried(&place.namespace, &trying).await) {
                    let wanted = wanted(asked, recipe.lets(asked));
                    if done != wanted {
                        wrong += &format!("{asked:?}: {done:?} instead of {wanted:?}\n");
                    }
                }
            }
            if wrong.is_empty() { Ok(()) } else { Err(wrong) }
        })
        .await;
    }
}

#[test]
fn the_lessons_documents_let_through_what_they_say_and_nothing_else() {
    netns(async || each_of(LESSON).await);
}

#[test]
fn the_recipes_of_every_guide_let_through_what_they_say_and_nothing_else() {
    netns(async || each_of(RECIPES).await);
}
