//! What is said of requests, over the documents of the canary example, which are those of the first lesson, over routes as
//! Istio's samples have them, and over bad questions.

mod gateways;

use std::{fs, path::Path};

use clap::Parser;
use selvedge_control_plane::sources::directory::{self, Options};

use super::{
    arguments::RequestArgs,
    explanation::Explanation,
    gateway::{self, Outside},
    question::Question,
    request, tree,
};
use crate::documented::is_documented;

const LESSON: &str = concat!(
    include_str!("../../../../examples/canary/config/service.yaml"),
    "\n---\n",
    include_str!("../../../../examples/canary/config/destinationrule.yaml"),
    "\n---\n",
    include_str!("../../../../examples/canary/config/virtualservice.yaml"),
    "\n---\n",
    include_str!("../../../../examples/canary/config/peerauthentication.yaml"),
);

/// A workload with a sidecar for each version of `reviews`, and one that calls them.
const WORKLOADS: &str = "---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: frontend, annotations: {config.selvedge.io/inbound: '127.0.0.1:4143'}}
spec:
  address: 127.0.0.1
  labels: {app: frontend, security.istio.io/tlsMode: istio}
  ports: {http: 9000}
  serviceAccount: frontend
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: reviews-v1, annotations: {config.selvedge.io/inbound: '127.0.0.2:4143'}}
spec:
  address: 127.0.0.2
  labels: {app: reviews, version: v1, security.istio.io/tlsMode: istio}
  ports: {http: 9080}
  serviceAccount: reviews
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: reviews-v2}
spec:
  address: 127.0.0.3
  labels: {app: reviews, version: v2}
  ports: {http: 9080}
  serviceAccount: reviews
";

/// Routes of the kinds that Istio's samples show: a fault for one user, a canary, a mirror; and more filters.
const SAMPLES: &str = "---
apiVersion: v1
kind: Service
metadata: {name: ratings}
spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ratings}
spec:
  host: ratings
  subsets: [{name: v1, labels: {version: v1}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings}
spec:
  hosts: [ratings]
  http:
  - match: [{headers: {end-user: {exact: jason}}}]
    fault: {abort: {percentage: {value: 100}, httpStatus: 500}}
    route: [{destination: {host: ratings, subset: v1}}]
  - match: [{uri: {prefix: /slow}, sourceLabels: {app: batch}}, {uri: {regex: '/v[0-9]+/.*'}, method: {exact: PUT}}]
    fault: {delay: {percentage: {value: 10}, fixedDelay: 7s}}
    route: [{destination: {host: ratings, subset: v1}}]
  - match: [{uri: {prefix: /old/}, queryParams: {lang: {exact: de}}}]
    headers: {request: {set: {x-lang: '%REQ(accept-language)%'}, remove: [cookie]}, response: {add: {x-by: mesh}}}
    rewrite: {uri: /new/, authority: ratings.example}
    timeout: 3s
    retries: {attempts: 3, perTryTimeout: 1s, retryOn: '5xx,409'}
    mirror: {host: reviews, subset: v2}
    mirrorPercentage: {value: 25}
    route:
    - destination: {host: ratings, subset: v1}
      weight: 3
      headers: {request: {add: {x-share: one}}}
    - {destination: {host: ratings, subset: v9}, weight: 1}
  - match: [{uri: {exact: /moved}}]
    redirect: {uri: /here, scheme: https, redirectCode: 308}
  - match: [{uri: {exact: /teapot}}]
    directResponse: {status: 418, body: {string: short and stout}}
";

/// That only one ServiceAccount may read `reviews`.
const POLICY: &str = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers}
spec:
  selector: {matchLabels: {app: reviews}}
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/default/sa/frontend]}}]
    to: [{operation: {methods: [GET]}}]
";

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    request: RequestArgs,
}

/// What is said of the request of this command line, by these documents.
fn explain(documents: &[&str], line: &[&str]) -> Result<Explanation, String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    fs::write(directory.path().join("mesh.yaml"), documents.concat()).map_err(|error| error.to_string())?;
    explain_directory(directory.path(), line)
}

fn explain_directory(directory: &Path, line: &[&str]) -> Result<Explanation, String> {
    let words = ["explain"].iter().chain(line);
    let args = Line::try_parse_from(words).map_err(|error| error.to_string())?.request;
    let loaded = directory::load(directory, Options::default()).map_err(|error| error.to_string())?;
    let explanation = match &args.from {
        Some(from) => request::of(&loaded, &args, Question::new(&args, from)?),
        None => gateway::of(&loaded, &args.documents, &Outside::request(&args)?),
    };
    explanation.inspect(|explanation| is_documented("explain", explanation))
}

/// The same as a tree. Files are named by their names.
fn text(documents: &[&str], line: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("mesh.yaml"), documents.concat()).unwrap();
    let text = tree::text(&explain_directory(directory.path(), line).unwrap());
    text.replace(&format!("{}/", directory.path().display()), "")
}

const FROM: [&str; 2] = ["--from", "default/frontend"];

fn line<'a>(to: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&FROM[..], &["--to", to], more].concat()
}

#[test]
fn the_lesson_for_everybody() {
    insta::assert_snapshot!(text(&[LESSON, WORKLOADS], &line("http://reviews:9080/reviews/1", &[])));
}

#[test]
fn the_lesson_for_one_user() {
    let of_jason = line("http://reviews:9080/", &["-H", "end-user: jason"]);
    insta::assert_snapshot!(text(&[LESSON, WORKLOADS], &of_jason));
}

#[test]
fn a_fault_for_one_user() {
    let of_jason = line("http://ratings:9080/", &["-H", "end-user: jason"]);
    insta::assert_snapshot!(text(&[LESSON, WORKLOADS, SAMPLES], &of_jason));
}

#[test]
fn every_filter_in_order() {
    let asked = line(
        "http://ratings:9080/old/a?lang=de",
        &["-H", "cookie: a=b", "-H", "accept-language: de", "-X", "POST"],
    );
    insta::assert_snapshot!(text(&[LESSON, WORKLOADS, SAMPLES], &asked));
}

#[test]
fn nothing_matches() {
    insta::assert_snapshot!(text(&[LESSON, WORKLOADS, SAMPLES], &line("http://ratings:9080/slow", &[])));
}

#[test]
fn a_policy_of_the_destination_refuses() {
    let asked = line("http://reviews:9080/", &["-X", "DELETE", "-H", "end-user: nobody"]);
    insta::assert_snapshot!(text(&[LESSON, WORKLOADS, POLICY], &asked));
}

#[test]
fn network_policies_of_either_side_are_asked() {
    const DENY: &str = "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {matchLabels: {app: APP}}, policyTypes: [DIRECTION]}
";
    for (app, direction, who) in
        [("reviews", "Ingress", "its sidecar refuses this"), ("frontend", "Egress", "")]
    {
        let deny = DENY.replace("APP", app).replace("DIRECTION", direction);
        let found = explain(&[LESSON, WORKLOADS, &deny], &line("http://reviews:9080/", &[])).unwrap();
        let refused = found.backends[0].answer.as_ref().unwrap();
        assert_eq!((refused.status, refused.error), (403, Some("policy")), "{direction}");
        assert!(refused.why.contains("NetworkPolicy default/closed"), "{}", refused.why);
        assert!(refused.why.starts_with(who), "{}", refused.why);
    }
}

#[test]
fn redirects_and_fixed_answers_are_the_meshs() {
    let documents = [LESSON, WORKLOADS, SAMPLES];
    for (path, status, location) in [
        ("/moved?x=y", 308, Some("https://ratings:9080/here?x=y")),
        ("/teapot", 418, None),
        ("/none", 404, None),
    ] {
        let found = explain(&documents, &line(&format!("http://ratings:9080{path}"), &[])).unwrap();
        let answer = found.answer.unwrap();
        assert!(!found.sent);
        assert_eq!((answer.status, answer.location.as_deref()), (status, location));
    }
    let call = line("http://ratings:9080", &["--grpc", "a.B/C"]);
    let answer = explain(&documents, &call).unwrap().answer.unwrap();
    assert_eq!((answer.status, answer.grpc_status, answer.error), (200, Some(12), Some("no-route")));
}

#[test]
fn a_seed_draws_one_backend_and_always_the_same() {
    let drawn = |seed: &str| {
        let asked = line("http://reviews:9080/", &["--seed", seed]);
        let found = explain(&[LESSON, WORKLOADS], &asked).unwrap();
        let drawn: Vec<_> = found.backends.into_iter().filter(|one| one.drawn == Some(true)).collect();
        assert_eq!(drawn.len(), 1);
        drawn[0].name.clone()
    };
    let all: Vec<String> = (0..200).map(|seed| drawn(&seed.to_string())).collect();
    assert_eq!(drawn("7"), all[7]);
    let canary = all.iter().filter(|name| name.ends_with("/v2")).count();
    assert!((5..=40).contains(&canary), "{canary} of 200");
}

#[test]
fn labels_that_are_given_decide_about_rules_for_some_clients() {
    let documents = [LESSON, WORKLOADS, SAMPLES];
    let to = ["--to", "http://ratings:9080/slow"];
    let found = |from| explain(&documents, &[&["--from", from], &to[..]].concat()).unwrap();
    assert!(found("default/frontend,app=batch").sent);
    let missed = found("default/frontend").missed;
    assert!(missed[1].why.starts_with("it is for clients with the label app=batch"), "{missed:?}");
}

#[test]
fn a_rule_that_selects_clients_is_told_of_those_with_their_labels() {
    let rule = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: front}\nspec:\n  \
                host: reviews\n  workloadSelector: {matchLabels: {tier: front}}\n  \
                trafficPolicy: {connectionPool: {tcp: {maxConnections: 3}}}\n  \
                subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]\n";
    let documents = [LESSON, WORKLOADS, rule];
    let found = |from| text(&documents, &["--from", from, "--to", "http://reviews.default:9080/"]);

    let selected = found("default/frontend,tier=front");
    assert!(selected.contains(", as clients in default with tier=front see it; "), "{selected}");
    assert!(selected.contains("at most 3 connections"), "{selected}");
    let other = found("default/frontend");
    assert!(!other.contains("as clients in") && !other.contains("connections; further"), "{other}");
    let of_another = found("shop/frontend,tier=front");
    assert!(!of_another.contains("as clients in"), "{of_another}");
}

#[test]
fn what_no_document_declares_is_let_out_as_the_policy_says() {
    let documents = [LESSON, WORKLOADS];
    let found = |more: &[&str]| explain(&documents, &line("http://example.com/", more)).unwrap();
    assert!(found(&[]).sent);
    let refused = found(&["--outbound-traffic-policy", "registry-only"]).answer.unwrap();
    assert_eq!((refused.status, refused.error), (502, Some("registry-only")));
}

#[test]
fn an_address_of_a_workload_has_no_routes_and_keeps_its_mutual_tls() {
    let found = explain(&[LESSON, WORKLOADS], &line("http://127.0.0.2:9080/", &[])).unwrap();
    assert!(found.sent && found.rule.is_none());
    assert!(found.backends[0].endpoints[0].mutual_tls);
}

#[test]
fn a_question_that_nobody_can_mean_is_refused_with_the_remedy() {
    let documents = [LESSON, WORKLOADS];
    for (line, why) in [
        (["--from", "frontend", "--to", "http://reviews/"].as_slice(), "is not NAMESPACE/NAME"),
        (&["--from", "a/b", "--to", "https://reviews/"], "write http:// for what it sends without"),
        (&["--from", "a/b", "--to", "reviews"], "is not a URL"),
        (&["--from", "a/b", "--to", "http://user@reviews/"], "names a user"),
        (&["--from", "a/b", "--to", "http://reviews/%zz"], "malformed"),
        (&["--from", "a/b", "--to", "http://reviews/", "-X", "A B"], "not an HTTP method"),
        (&["--from", "a/b", "--to", "http://reviews/", "-X", "CONNECT"], "tunnel"),
        (&["--from", "a/b", "--to", "http://reviews/", "-H", "x"], "is not 'NAME: VALUE'"),
        (&["--from", "a/b", "--to", "http://reviews/", "-H", "host: x"], "stands in --to"),
        (&["--from", "a/b", "--to", "http://reviews/a", "--grpc", "a/b"], "remove that"),
        (&["--from", "a/b", "--to", "http://reviews/", "--grpc", "a"], "is not SERVICE/METHOD"),
        (&["--from", "a/b", "--to", "http://reviews/", "--grpc", "a/b", "-X", "PUT"], "cannot be used with"),
    ] {
        let error = explain(&documents, line).unwrap_err();
        assert!(error.contains(why), "{line:?}: {error}");
    }
}

#[test]
fn whatever_the_samples_say_can_be_explained() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let samples = ["seed-yaml", "acceptance-yaml/istio/samples/bookinfo/networking"];
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/policies");
    // A plain clone has the examples alone.
    let directories = samples.iter().map(|name| shared.join(name)).filter(|directory| directory.exists());
    for directory in directories.chain([own]) {
        for host in ["reviews", "ratings", "details", "productpage", "my-app", "payments", "api", "catalog"] {
            let to = format!("http://{host}:9080/a?b=c");
            let found = explain_directory(&directory, &line(&to, &["-H", "end-user: jason"]));
            let found = found.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
            assert!(tree::text(&found).contains("outcome: "), "{host}");
        }
    }
}
