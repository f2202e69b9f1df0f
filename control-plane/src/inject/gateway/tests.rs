use clap::Parser;
use selvedge_model::TrustDomain;

use super::*;
use crate::inject::InjectArgs;

#[derive(Debug, Parser)]
struct Program {
    #[command(flatten)]
    args: InjectArgs,
}

fn spec(annotations: &[(&str, &str)], resources: &[(&'static str, &str)]) -> Result<Value, Refused> {
    let args = ["control-plane", "--inject-default=ingress=enabled;log-level=warn"];
    let settings = Program::parse_from(args).args.settings(Vec::new(), TrustDomain::default(), "selvedge");
    let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let resources = resources.iter().map(|(key, value)| (*key, (*value).to_owned()));
    let ports = [("port-80".to_owned(), 8080)];
    pod_spec(&settings, &annotations.collect(), &resources.collect(), &ports, "edge-selvedge")
}

fn env(spec: &Value) -> BTreeMap<&str, &str> {
    let env = spec["containers"][0]["env"].as_array().unwrap().iter();
    env.map(|one| (one["name"].as_str().unwrap(), one["value"].as_str().unwrap_or_default())).collect()
}

#[test]
fn a_gateway_is_a_proxy_alone_that_proves_who_it_is() {
    let spec = spec(&[], &[]).unwrap();

    let (container, env) = (&spec["containers"][0], env(&spec));
    assert_eq!((env.get("SELVEDGE_GATEWAY"), env.get("SELVEDGE_REDIRECTED")), (Some(&"true"), None));
    assert_eq!(env["SELVEDGE_WORKLOAD"], "$(POD_NAMESPACE)/$(POD_NAME)");
    assert_eq!(
        (env.get("SELVEDGE_INGRESS"), env["SELVEDGE_LOG"]),
        (None, "warn"),
        "what is for apps is left out"
    );
    assert_eq!(container["ports"][1], json!({"name": "port-80", "containerPort": 8080, "protocol": "TCP"}));
    assert_eq!(container["securityContext"]["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(container["resources"]["requests"], json!({"cpu": "100m", "memory": "64Mi"}));
    assert_eq!(container.get("lifecycle"), None);
    let token = &spec["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(
        (&token["audience"], &spec["serviceAccountName"]),
        (&json!("selvedge"), &json!("edge-selvedge"))
    );
}

#[test]
fn settings_come_from_parameters_before_annotations_before_defaults() {
    let annotations =
        [("config.selvedge.io/log-level", "debug"), ("config.selvedge.io/proxy-memory-limit", "1Gi")];

    let spec = spec(&annotations, &[("proxy-memory-limit", "32Mi")]).unwrap();

    assert_eq!(env(&spec)["SELVEDGE_LOG"], "debug");
    let resources = &spec["containers"][0]["resources"];
    assert_eq!(resources["limits"], json!({"memory": "32Mi"}));
    assert_eq!(resources["requests"]["memory"], "32Mi", "no more than the limit");
}

#[test]
fn what_has_no_meaning_at_a_gateway_is_refused() {
    for (annotation, says) in [
        (("config.selvedge.io/skip-inbound-ports", "80"), "has no effect at a gateway"),
        (("config.selvedge.io/log-levle", "warn"), "log-level is one"),
        (("config.selvedge.io/workers", "0"), "not a whole number"),
    ] {
        let refused = spec(&[annotation], &[]).unwrap_err();
        assert!(refused.reasons[0].contains(says), "{refused:?}");
    }
    let contradictory = spec(&[], &[("proxy-cpu-limit", "1"), ("proxy-cpu-request", "2")]).unwrap_err();
    assert!(contradictory.reasons[0].contains("is less than"), "{contradictory:?}");
}

#[test]
fn a_pod_is_given_more_time_than_its_proxy_takes() {
    let usual = spec(&[], &[]).unwrap();
    assert_eq!((env(&usual)["SELVEDGE_DRAIN_DELAY"], env(&usual)["SELVEDGE_DRAIN_TIMEOUT"]), ("15s", "60s"));
    assert_eq!(usual["terminationGracePeriodSeconds"], 75);

    let patient = spec(&[("config.selvedge.io/drain-timeout", "5m")], &[("drain-delay", "1m")]).unwrap();

    assert_eq!(env(&patient)["SELVEDGE_DRAIN_DELAY"], "1m");
    assert_eq!(patient["terminationGracePeriodSeconds"], 315);
}
