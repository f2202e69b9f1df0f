//! `localityLbSetting`, as it is read and refused.

use selvedge_model::locality::{Failover, PriorityLabel};

use super::*;
use crate::resources::locality_setting::LocalitySetting;

fn rule(policy: &str) -> Decoded {
    only(&format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a}}\nspec:\n  host: a\n  \
         trafficPolicy: {policy}\n"
    ))
}

fn setting(yaml: &str) -> LocalitySetting {
    let decoded = rule(&format!("{{outlierDetection: {{}}, loadBalancer: {{localityLbSetting: {yaml}}}}}"));
    assert_eq!(told(&decoded), [], "{yaml}");
    policy(&decoded).load_balancer.clone().unwrap().locality.unwrap()
}

#[test]
fn a_setting_of_places_is_read_as_istio_reads_it() {
    let nearest = LocalitySetting::Failover(Failover::nearest());
    assert_eq!(setting("{}"), nearest);
    assert_eq!(setting("{enabled: true}"), nearest);
    assert_eq!(setting("{enabled: false}"), LocalitySetting::Off);
    let regions = vec![("us".to_owned(), "eu".to_owned())];
    let led = Failover { regions: regions.clone(), ..Failover::nearest() };
    assert_eq!(setting("{failover: [{from: us, to: eu}]}"), LocalitySetting::Failover(led));
    let labels = vec![PriorityLabel::of("version"), PriorityLabel::of("tier=web")];
    let labelled =
        |by_place, regions| LocalitySetting::Failover(Failover { labels: labels.clone(), by_place, regions });
    assert_eq!(setting("{failoverPriority: [version, tier=web]}"), labelled(false, Vec::new()));
    let both = "{failoverPriority: [version, tier=web], failover: [{from: us, to: eu}]}";
    assert_eq!(setting(both), labelled(true, regions));
    let LocalitySetting::Distribute(list) =
        setting("{distribute: [{from: us/a/*, to: {us/a/*: 80, us/b: 20}}, {from: us/*, to: {us: 100}}]}")
    else {
        panic!("a distribution")
    };
    assert_eq!((list.len(), list[0].to.len(), list[0].from.to_string()), (2, 2, "us/a/*".to_owned()));
}

#[test]
fn what_a_setting_says_that_is_not_enabled_has_no_effect_and_is_told() {
    for (field, said) in [
        ("failover", "[{from: us, to: eu}]"),
        ("failoverPriority", "[version]"),
        ("distribute", "[{from: us, to: {us: 100}}]"),
    ] {
        let decoded =
            rule(&format!("{{loadBalancer: {{localityLbSetting: {{enabled: false, {field}: {said}}}}}}}"));
        let place = format!("spec.trafficPolicy.loadBalancer.localityLbSetting.{field}");
        assert_eq!(told(&decoded), [(place.as_str(), 6, Severity::Warning)], "{field}");
        let block = policy(&decoded).load_balancer.clone().unwrap();
        assert_eq!(block.locality, Some(LocalitySetting::Off), "{field}");
    }
}

#[test]
fn what_istio_refuses_of_a_setting_of_places_is_refused() {
    let many: Vec<String> = (0..26).map(|label| format!("l{label}")).collect();
    let many = format!("{{failoverPriority: [{}]}}", many.join(", "));
    for (yaml, field, words) in [
        (
            "{distribute: [{from: a, to: {a: 100}}], failover: [{from: a, to: b}]}",
            "",
            "both distribute and failover",
        ),
        ("{distribute: [{from: a, to: {a: 60, b: 30}}]}", ".distribute[0].to", "sum to 90"),
        ("{distribute: [{from: a, to: {a: 100, b: 0}}]}", ".distribute[0].to.b", "1 to 100"),
        ("{distribute: [{from: a, to: {a: 101}}]}", ".distribute[0].to.a", "1 to 100"),
        ("{distribute: [{from: a, to: {}}]}", ".distribute[0].to", "sum to 0"),
        ("{distribute: [{to: {a: 100}}]}", ".distribute[0].from", "not a place"),
        ("{distribute: [{from: 'a/*/b', to: {a: 100}}]}", ".distribute[0].from", "not a place"),
        ("{distribute: [{from: 'a/b/c/d', to: {a: 100}}]}", ".distribute[0].from", "not a place"),
        ("{distribute: [{from: a, to: {'a//c': 100}}]}", ".distribute[0].to.a//c", "not a place"),
        ("{distribute: [{from: a, to: {a/b: 50, 'a/*': 50}}]}", ".distribute[0].to", "overlaps"),
        (
            "{distribute: [{from: 'a/*', to: {a: 100}}, {from: a/b, to: {a: 100}}]}",
            ".distribute[1].from",
            "comes before it",
        ),
        (
            "{distribute: [{from: a/b, to: {a: 100}}, {from: a, to: {a: 100}}]}",
            ".distribute[1].from",
            "comes before it",
        ),
        ("{failover: [{from: a, to: a}]}", ".failover[0]", "itself"),
        ("{failover: [{from: a/b, to: c}]}", ".failover[0].from", "not a region"),
        ("{failover: [{from: a, to: '*'}]}", ".failover[0].to", "not a region"),
        ("{failover: [{from: a}]}", ".failover[0].to", "not a region"),
        (
            "{failover: [{from: a, to: b}], failoverPriority: [topology.kubernetes.io/zone]}",
            ".failoverPriority[0]",
            "exclude each other",
        ),
        ("{failoverPriority: ['=a']}", ".failoverPriority[0]", "not a label"),
        ("{failoverPriority: ['a=b=c']}", ".failoverPriority[0]", "not a label"),
        (&many, ".failoverPriority", "at most 25"),
    ] {
        let decoded = rule(&format!("{{loadBalancer: {{localityLbSetting: {yaml}}}}}"));

        assert!(matches!(decoded.outcome, DecodeOutcome::Failed), "{yaml}");
        let problem = &decoded.problems[0];
        let place = "spec.trafficPolicy.loadBalancer.localityLbSetting";
        assert!(problem.field.starts_with(&format!("{place}{field}")), "{yaml}: {problem}");
        assert!(problem.message.contains(words), "{problem}");
        assert_eq!(problem.line, Some(6), "{yaml}");
    }
}

#[test]
fn failover_without_outlier_detection_is_reported_where_it_is_written() {
    let nearest = "loadBalancer: {localityLbSetting: {enabled: true}}";
    let fields = |policy: &str| -> Vec<String> {
        let decoded = rule(policy);
        told(&decoded).into_iter().map(|(field, ..)| field.to_owned()).collect()
    };

    assert_eq!(fields(&format!("{{{nearest}}}")), ["spec.trafficPolicy.loadBalancer.localityLbSetting"]);
    assert_eq!(fields(&format!("{{{nearest}, outlierDetection: {{}}}}")), [""; 0]);
    assert_eq!(
        fields(&format!(
            "{{outlierDetection: {{}}, portLevelSettings: [{{port: {{number: 80}}, outlierDetection: {{}}}}, {{port: \
             {{number: 79}}, {nearest}}}]}}"
        )),
        ["spec.trafficPolicy.portLevelSettings[1].loadBalancer.localityLbSetting"]
    );
    let beside =
        "loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {a: 100}}], failoverPriority: [b]}}";
    assert_eq!(
        fields(&format!("{{{beside}}}")),
        ["spec.trafficPolicy.loadBalancer.localityLbSetting.failoverPriority"]
    );
}
