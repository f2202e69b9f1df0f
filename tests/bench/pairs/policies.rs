//! Many policies over many workloads, as a cluster of teams has them. Requests of the benchmark are let in by all of them.

/// Namespaces of other teams, each with as many workloads and policies.
const TEAMS: usize = 50;
/// Workloads of a team.
const WORKLOADS: usize = 100;
/// Policies of a team; the app has a few, too.
const POLICIES: usize = 20;
/// Rules of the app's `AuthorizationPolicy`, of which the client matches the last.
const RULES: usize = 100;

/// All of it.
pub(super) fn documents() -> String {
    let teams = (0..TEAMS).map(|team| {
        let workloads: String = (0..WORKLOADS).map(|number| workload(team, number)).collect();
        let policies: String = (0..POLICIES).map(|number| policy(team, number)).collect();
        let labels = format!("{{team: team-{team}, stage: {}}}", ["test", "live"][team % 2]);
        format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: team-{team}, labels: {labels}}}\n---\n{workloads}{policies}")
    });
    teams.chain([of_the_app()]).collect()
}

fn document(version: &str, kind: &str, namespace: &str, name: &str, spec: &str) -> String {
    let metadata = format!("{{name: {name}, namespace: {namespace}}}");
    format!("apiVersion: {version}\nkind: {kind}\nmetadata: {metadata}\nspec: {spec}\n---\n")
}

fn workload(team: usize, number: usize) -> String {
    let (app, place) = (number % 10, team * WORKLOADS + number);
    let spec = format!(
        "{{address: 10.1.{}.{}, ports: {{http: 8080}}, serviceAccount: app-{app}, labels: {{app: app-{app}, tier: {}, \
         security.istio.io/tlsMode: istio}}}}",
        place / 250,
        place % 250 + 1,
        ["web", "data"][app % 2]
    );
    document(
        "networking.istio.io/v1",
        "WorkloadEntry",
        &format!("team-{team}"),
        &format!("app-{number}"),
        &spec,
    )
}

fn policy(team: usize, number: usize) -> String {
    let (app, other, own) = (number % 10, (team + number) % TEAMS, format!("team-{team}"));
    let (version, kind, spec) = match number % 4 {
        0 => (
            "security.istio.io/v1",
            "AuthorizationPolicy",
            format!(
                "{{selector: {{matchLabels: {{app: app-{app}}}}}, rules: [{{from: [{{source: {{principals: \
                 [cluster.local/ns/team-{other}/sa/app-1]}}}}], to: [{{operation: {{methods: [GET], paths: [/items/*]}}}}]}}]}}"
            ),
        ),
        1 => (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            format!(
                "{{podSelector: {{matchLabels: {{app: app-{app}}}}}, ingress: [{{from: [{{podSelector: {{}}}}, \
                 {{namespaceSelector: {{matchLabels: {{team: team-{other}}}}}}}], ports: [{{port: 8080}}]}}]}}"
            ),
        ),
        2 => (
            "projectcalico.org/v3",
            "NetworkPolicy",
            format!(
                "{{order: {number}, selector: \"app == 'app-{app}'\", ingress: [{{action: Deny, source: {{selector: \"tier == \
                 'data'\", namespaceSelector: \"team == 'team-{other}'\"}}}}, {{action: Allow}}]}}"
            ),
        ),
        _ => (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            format!(
                "{{podSelector: {{matchLabels: {{app: app-{app}}}}}, policyTypes: [Egress], egress: [{{to: \
                 [{{namespaceSelector: {{matchLabels: {{stage: live}}}}}}]}}]}}"
            ),
        ),
    };
    document(version, kind, &own, &format!("policy-{number}"), &spec)
}

/// What is asked of the requests that are measured: the client is in sets of thousands, and matches the last of many rules.
fn of_the_app() -> String {
    let rule = |number: usize| {
        let account = if number == RULES { "client".to_owned() } else { format!("other-{number}") };
        format!(
            "{{from: [{{source: {{principals: [cluster.local/ns/bench/sa/{account}]}}}}], to: [{{operation: {{methods: [GET, POST, \
             PUT], paths: [/own-{number}/*, /*]}}}}]}}"
        )
    };
    let rules: Vec<String> = (1..=RULES).map(rule).collect();
    let who_may = format!("{{selector: {{matchLabels: {{app: app}}}}, rules: [{}]}}", rules.join(", "));
    let everybody = "{podSelector: {matchLabels: {app: app}}, ingress: [{from: [{namespaceSelector: {}}]}]}";
    let in_order = "{order: 10, selector: \"app == 'app'\", ingress: [{action: Deny, source: {selector: \"tier == 'data'\", \
                    namespaceSelector: all()}}]}";
    [
        document("security.istio.io/v1", "AuthorizationPolicy", "bench", "who-may-what", &who_may),
        document("networking.k8s.io/v1", "NetworkPolicy", "bench", "everybody", everybody),
        document("projectcalico.org/v3", "NetworkPolicy", "bench", "in-order", in_order),
    ]
    .concat()
}
