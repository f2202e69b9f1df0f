//! What is written down and traced where, by `Telemetry` and by annotations.

use selvedge_model::telemetry::{LabelChange, LabelValue, LogTo, OneWay, TagValue, Telemetry};

use super::*;

/// A `Telemetry`.
fn document(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
    )
}

/// What `documents` come to at the workload reviews-v1, and what is wrong.
fn telemetry(documents: &str) -> (Telemetry, Vec<Problem>) {
    let (mesh, problems) = compiled(&format!("{MESH}{documents}"));
    let name = WorkloadName::new("default", "reviews-v1").unwrap();
    (mesh.workloads[&name].telemetry.as_deref().cloned().unwrap_or_default(), problems)
}

fn said(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(|problem| format!("{} {}", problem.field, problem.message)).collect()
}

/// In a few letters: where lines go with their filters, and how many of a million are traced.
fn short(one_way: &OneWay) -> (Vec<String>, Option<u32>) {
    let to = |LogTo { sink, filter }: &LogTo| match filter {
        None => format!("{sink:?}"),
        Some(filter) => format!("{sink:?} {filter}"),
    };
    (one_way.access_log.0.iter().map(to).collect(), one_way.tracing.as_ref().map(|tracing| tracing.sampling))
}

#[test]
fn nothing_is_written_down_or_traced_unless_it_is_said() {
    let (found, problems) = telemetry("");

    assert!(found.is_nothing(), "{found:?}");
    assert_eq!(said(&problems), [""; 0]);
}

#[test]
fn a_workload_replaces_its_namespace_and_that_the_mesh_field_by_field() {
    let mesh = "{accessLogging: [{providers: [{name: envoy}], filter: {expression: response.code >= 400}}], tracing: \
                [{randomSamplingPercentage: 5, customTags: {a: {literal: {value: b}}}}]}";
    let namespace = "{accessLogging: [{providers: [{name: json}, {name: otel}]}], tracing: [{randomSamplingPercentage: 7.25}]}";
    let own = "{selector: {matchLabels: {version: v1}}, accessLogging: [{match: {mode: SERVER}, disabled: true}, {match: {mode: \
               CLIENT}, filter: {expression: connection.mtls}}], tracing: [{match: {mode: CLIENT}, disableSpanReporting: true}]}";
    let (mesh, namespace, own) = (
        document("mesh", "istio-system", mesh),
        document("wide", "default", namespace),
        document("own", "default", own),
    );

    let (found, problems) = telemetry(&mesh);
    let expected = (vec!["Stdout response.code >= 400".to_owned()], Some(50_000));
    assert_eq!((short(&found.inbound), short(&found.outbound)), (expected.clone(), expected));
    assert_eq!(said(&problems), [""; 0]);

    let (found, _) = telemetry(&format!("{mesh}{namespace}"));
    // A filter is that of the providers which it was written for.
    let lines = ["Json", "Otlp"].map(str::to_owned).to_vec();
    assert_eq!(short(&found.inbound), (lines, Some(72_500)));
    let tags = &found.inbound.tracing.as_ref().unwrap().tags;
    assert!(matches!(&tags[..], [tag] if tag.name == "a" && tag.value == TagValue::Literal("b".to_owned())));

    let (found, problems) = telemetry(&format!("{own}{mesh}{namespace}"));
    assert_eq!(short(&found.inbound), (vec![], Some(72_500)));
    let lines = ["Json connection.mtls", "Otlp connection.mtls"].map(str::to_owned).to_vec();
    assert_eq!(short(&found.outbound), (lines, None));
    assert_eq!(said(&problems), [""; 0]);

    // Whoever names a provider again says anew which requests are lines, and turns on what was off.
    let filtered =
        "{accessLogging: [{providers: [{name: json}], filter: {expression: response.code >= 400}}]}";
    let filtered = document("mesh", "istio-system", filtered);
    let (found, _) = telemetry(&format!("{filtered}{namespace}"));
    assert_eq!(short(&found.inbound).0, ["Json", "Otlp"]);
    let off =
        document("mesh", "istio-system", "{accessLogging: [{providers: [{name: json}], disabled: true}]}");
    let on = document("wide", "default", "{accessLogging: [{filter: {expression: connection.mtls}}]}");
    assert_eq!(short(&telemetry(&off).0.inbound).0, [""; 0]);
    assert_eq!(short(&telemetry(&format!("{off}{on}")).0.inbound).0, ["Json connection.mtls"]);

    // Another workload has the namespace's.
    let (mesh, _) = compiled(&format!("{MESH}{own}{namespace}"));
    let other =
        mesh.workloads[&WorkloadName::new("default", "reviews-v2").unwrap()].telemetry.clone().unwrap();
    assert_eq!(short(&other.inbound).0, ["Json", "Otlp"]);
}

/// In a few letters: which metrics are off, and which labels are changed.
fn changed(one_way: &OneWay) -> Vec<String> {
    let each = one_way.metrics.iter().map(|(metric, change)| {
        let labels = change.labels.iter().map(|(name, change)| match change {
            LabelChange::Removed => format!(" -{name}"),
            LabelChange::Set(LabelValue::Literal(text)) => format!(" {name}={text}"),
            LabelChange::Set(LabelValue::Fact(fact)) => format!(" {name}={fact:?}"),
        });
        format!("{metric:?}{}{}", if change.disabled { " off" } else { "" }, labels.collect::<String>())
    });
    each.collect()
}

#[test]
fn metrics_are_changed_for_the_mesh_a_namespace_and_a_workload_each_on_top_of_the_other() {
    let mesh = "{metrics: [{providers: [{name: prometheus}], overrides: [{match: {metric: REQUEST_COUNT}, tagOverrides: \
                {team: {value: \"'all'\"}, source_principal: {operation: REMOVE}, port: {value: \"string(destination.port)\"}}}]}]}";
    let namespace = "{metrics: [{overrides: [{match: {metric: REQUEST_COUNT, mode: SERVER}, tagOverrides: {team: {value: \
                     \"'books'\"}}}, {match: {metric: REQUEST_SIZE}, disabled: true}]}]}";
    let own = "{selector: {matchLabels: {version: v1}}, metrics: [{overrides: [{match: {metric: REQUEST_SIZE, mode: CLIENT}, \
               disabled: false}, {match: {metric: TCP_SENT_BYTES, mode: CLIENT}, disabled: true}]}]}";
    let (mesh, namespace, own) = (
        document("mesh", "istio-system", mesh),
        document("wide", "default", namespace),
        document("own", "default", own),
    );
    let counted = |team: &str| format!("RequestCount port=Port -source_principal team={team}");

    let (found, problems) = telemetry(&mesh);
    assert_eq!(changed(&found.inbound), [counted("all")]);
    assert_eq!(changed(&found.outbound), [counted("all")]);
    assert_eq!(said(&problems), [""; 0]);
    let (found, _) = telemetry(&format!("{mesh}{namespace}"));
    assert_eq!(changed(&found.inbound), [counted("books"), "RequestSize off".to_owned()]);
    assert_eq!(changed(&found.outbound), [counted("all"), "RequestSize off".to_owned()]);
    let (found, problems) = telemetry(&format!("{mesh}{namespace}{own}"));
    assert_eq!(changed(&found.inbound), [counted("books"), "RequestSize off".to_owned()]);
    assert_eq!(changed(&found.outbound), [counted("all"), "TcpSentBytes off".to_owned()]);
    assert_eq!(said(&problems), [""; 0]);
}

#[test]
fn all_metrics_are_off_until_a_later_override_and_for_providers_that_are_no_prometheus() {
    let all_off = document("mesh", "istio-system", "{metrics: [{overrides: [{disabled: true}]}]}");
    let eight = |found: &OneWay| changed(found).iter().filter(|one| one.ends_with(" off")).count();
    let (found, problems) = telemetry(&all_off);
    assert_eq!((eight(&found.inbound), eight(&found.outbound)), (8, 8));
    assert_eq!(said(&problems), [""; 0]);
    // Whatever is said later turns them on again, as in Istio.
    let later = "{metrics: [{overrides: [{match: {mode: SERVER}, tagOverrides: {a: {value: '1'}}}]}]}";
    let (found, _) = telemetry(&format!("{all_off}{}", document("wide", "default", later)));
    assert_eq!((eight(&found.inbound), eight(&found.outbound)), (0, 8));
    assert!(changed(&found.inbound).iter().all(|one| one.ends_with(" a=1")), "{:?}", changed(&found.inbound));

    // The last that names providers says who is told; what was said for others changes nothing of what Prometheus is told.
    let elsewhere = "{metrics: [{providers: [{name: stackdriver}], overrides: [{match: {metric: REQUEST_COUNT}, disabled: true}]}]}";
    let (found, _) = telemetry(&document("wide", "default", elsewhere));
    assert_eq!((eight(&found.inbound), eight(&found.outbound)), (8, 8));
    // Only of the provider that Istio itself defines is it known what it is.
    for (name, told) in [("Prometheus", true), ("promtail", false), ("prometheus-eu", false)] {
        let of_one = format!("{{metrics: [{{providers: [{{name: {name}}}]}}]}}");
        let (found, problems) = telemetry(&document("wide", "default", &of_one));
        assert_eq!(eight(&found.inbound) == 0, told, "{name}");
        assert_eq!(
            said(&problems).concat().contains("MeshConfig is not read"),
            !told,
            "{name}: {problems:?}"
        );
    }
    let elsewhere = document("mesh", "istio-system", elsewhere);
    let here = document("wide", "default", "{metrics: [{providers: [{name: prometheus}]}]}");
    let (found, _) = telemetry(&format!("{elsewhere}{here}"));
    assert_eq!(changed(&found.inbound), [""; 0]);
}

#[test]
fn of_several_documents_of_one_rank_the_first_counts_and_the_others_are_reported() {
    let text = |name: &str| "{accessLogging: [{providers: [{name: NAME}]}]}".replace("NAME", name);
    let own = |name: &str| format!("{{selector: {{matchLabels: {{app: reviews}}}}, {}", &text(name)[1..]);

    let (found, problems) = telemetry(&format!(
        "{}{}",
        document("a", "default", &text("json")),
        document("b", "default", &text("otel"))
    ));
    assert_eq!(short(&found.inbound).0, ["Json"]);
    assert!(said(&problems).concat().contains("Telemetry default/a (mesh.yaml:"), "{problems:?}");
    assert_eq!(problems.len(), 1);

    let (found, problems) = telemetry(&format!(
        "{}{}",
        document("a", "default", &own("text")),
        document("b", "default", &own("json"))
    ));
    assert_eq!(short(&found.inbound).0, ["Text"]);
    assert!(said(&problems).concat().contains("is for too, which came first"), "{problems:?}");

    let selects_nobody = document("a", "default", "{selector: {matchLabels: {app: nobody}}, tracing: [{}]}");
    let (found, problems) = telemetry(&selects_nobody);
    assert!(found.is_nothing());
    assert!(said(&problems).concat().contains("selects no workload"), "{problems:?}");

    // Who only adds a tag does not turn on again what is disabled for the namespace.
    let off = document("a", "default", "{tracing: [{disableSpanReporting: true}]}");
    let own = |rule: &str| {
        document(
            "b",
            "default",
            &format!("{{selector: {{matchLabels: {{app: reviews}}}}, tracing: [{rule}]}}"),
        )
    };
    let (found, _) = telemetry(&format!("{off}{}", own("{customTags: {a: {literal: {value: b}}}}")));
    assert_eq!(short(&found.inbound).1, None);
    let (found, _) = telemetry(&format!("{off}{}", own("{disableSpanReporting: false}")));
    assert_eq!(short(&found.inbound).1, Some(10_000));

    // What is for a Service is for those behind it.
    let target = "{targetRefs: [{group: '', kind: Service, name: reviews}], tracing: [{}]}";
    let (found, problems) = telemetry(&document("a", "default", target));
    assert_eq!((short(&found.inbound).1, said(&problems)), (Some(10_000), Vec::new()));
}

#[test]
fn annotations_have_the_rank_of_what_they_stand_on_and_yield_to_its_document() {
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: default, annotations: {config.selvedge.io/access-log: \
                     'json,otlp', config.selvedge.io/trace-sampling: '50'}}\n---\n";
    let (found, problems) = telemetry(namespace);
    assert_eq!(short(&found.inbound), (vec!["Json".to_owned(), "Otlp".to_owned()], Some(500_000)));
    assert_eq!(said(&problems), [""; 0]);

    let document = document(
        "wide",
        "default",
        "{accessLogging: [{disabled: true}], tracing: [{randomSamplingPercentage: 1}]}",
    );
    let (found, _) = telemetry(&format!("{namespace}{document}"));
    assert_eq!(short(&found.inbound), (vec![], Some(10_000)));

    let wrong = namespace.replace("'50'", "'500'");
    let (found, problems) = telemetry(&wrong);
    assert!(found.is_nothing() && said(&problems).concat().contains("percent from 0 to 100"), "{problems:?}");
}

#[test]
fn a_route_says_where_lines_about_its_requests_go() {
    let route = virtual_service("r", "{hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}]}");
    let route =
        route.replacen("metadata: {", "metadata: {annotations: {config.selvedge.io/access-log: 'off'}, ", 1);
    let (mesh, problems) = compiled(&format!("{MESH}{route}"));
    assert_eq!(errors(&problems), [""; 0], "{route}");
    let rule = reviews(&mesh).routes.rules()[0].access_log.clone();
    assert_eq!(rule.map(|log| log.is_off()), Some(true), "{route}");

    // Each rule is sent with its filter.
    let filter = format!("config.selvedge.io/access-log-filter: \"request.path != '{}'\"", "x".repeat(1_980));
    let of_rules = |rules: usize| {
        let rule = "{route: [{destination: {host: reviews}}]}";
        let route =
            virtual_service("r", &format!("{{hosts: [reviews], http: [{}]}}", vec![rule; rules].join(", ")));
        let route = route.replacen("metadata: {", &format!("metadata: {{annotations: {{{filter}}}, "), 1);
        errors(&compiled(&format!("{MESH}{route}")).1).concat()
    };
    assert!(!of_rules(16).contains("rules has it"), "{}", of_rules(16));
    assert!(of_rules(17).contains("each of the 17 rules has it"), "{}", of_rules(17));

    let (_, problems) = compiled(&format!("{MESH}{}", route.replace("'off'", "nowhere")));
    assert!(errors(&problems).concat().contains("not where an access log goes"), "{problems:?}");
}

#[test]
fn what_is_not_understood_is_an_error_at_its_field_and_what_is_not_acted_on_is_reported() {
    for (spec, field, words) in [
        (
            "{accessLogging: [{filter: {expression: \"request.headers['a'] == 'b'\"}}]}",
            "spec.accessLogging[0].filter.expression",
            "not understood",
        ),
        (
            "{accessLogging: [{providers: [{name: file}]}]}",
            "spec.accessLogging[0].providers[0].name",
            "no MeshConfig",
        ),
        (
            "{tracing: [{randomSamplingPercentage: 101}]}",
            "spec.tracing[0].randomSamplingPercentage",
            "0 to 100",
        ),
        ("{tracing: [{providers: [{name: otel}, {name: b}]}]}", "spec.tracing[0].providers", "keep one"),
        ("{tracing: [{customTags: {a: {}}}]}", "spec.tracing[0].customTags.a", "exactly one"),
        (
            "{tracing: [{customTags: {a: {environment: {name: SELVEDGE_TOKEN}}}}]}",
            "spec.tracing[0].customTags.a.environment.name",
            "never a setting",
        ),
        ("{tracing: [{providers: [{name: zipkin}]}]}", "spec.tracing[0].providers[0].name", "by OTLP"),
        (
            "{tracing: [{useRequestIdForTraceSampling: true}]}",
            "spec.tracing[0].useRequestIdForTraceSampling",
            "trace headers",
        ),
        ("{tracing: [{enableIstioTags: true}]}", "spec.tracing[0].enableIstioTags", "conventions"),
        (
            "{metrics: [{providers: [{name: stackdriver}]}]}",
            "spec.metrics[0].providers[0].name",
            "scrapes /metrics",
        ),
        ("{metrics: [{providers: [{name: stackdriver}]}]}", "spec.metrics[0].providers", "tell nobody"),
        ("{metrics: [{reportingInterval: 5s}]}", "spec.metrics[0].reportingInterval", "as they pass"),
        (
            "{metrics: [{overrides: [{match: {customMetric: mine}, disabled: true}]}]}",
            "spec.metrics[0].overrides[0].match.customMetric",
            "Istio's standard metrics",
        ),
        (
            "{metrics: [{overrides: [{match: {metric: REQUEST_COUNT, customMetric: mine}}]}]}",
            "spec.metrics[0].overrides[0].match.customMetric",
            "remove the other",
        ),
        (
            "{metrics: [{overrides: [{match: {metric: GRPC_REQUEST_MESSAGES}, tagOverrides: {a: {operation: REMOVE}}}]}]}",
            "spec.metrics[0].overrides[0].match.metric",
            "messages of gRPC",
        ),
        (
            "{metrics: [{overrides: [{match: {metric: REQUESTS}}]}]}",
            "spec.metrics[0].overrides[0].match.metric",
            "REQUEST_COUNT",
        ),
        (
            "{metrics: [{overrides: [{disabled: true, tagOverrides: {a: {operation: REMOVE}}}]}]}",
            "spec.metrics[0].overrides[0].tagOverrides",
            "has no effect",
        ),
        (
            "{metrics: [{overrides: [{tagOverrides: {request_host: {value: request.host}}}]}]}",
            "spec.metrics[0].overrides[0].tagOverrides.request_host.value",
            "any number of series",
        ),
        (
            "{metrics: [{overrides: [{tagOverrides: {a: {operation: REMOVE, value: \"'b'\"}}}]}]}",
            "spec.metrics[0].overrides[0].tagOverrides.a.value",
            "remove one of the two",
        ),
        (
            "{metrics: [{overrides: [{tagOverrides: {a: {}}}]}]}",
            "spec.metrics[0].overrides[0].tagOverrides.a",
            "needs a value",
        ),
        (
            "{metrics: [{overrides: [{tagOverrides: {le: {operation: REMOVE}}}]}]}",
            "spec.metrics[0].overrides[0].tagOverrides.le",
            "no label of a metric",
        ),
        (
            "{accessLogging: [{disabled: true, filter: {expression: connection.mtls}}]}",
            "spec.accessLogging[0].filter",
            "has no effect",
        ),
    ] {
        let (_, problems) = telemetry(&document("a", "default", spec));
        let found = problems.iter().find(|problem| problem.field == field);
        let found = found.unwrap_or_else(|| panic!("{spec}: {problems:#?}"));
        assert!(found.message.contains(words) && found.line.is_some(), "{spec}: {found:?}");
    }
}
