use clap::Parser;
use selvedge_model::TrustDomain;

use super::*;
use crate::inject::InjectArgs;

#[derive(Debug, Parser)]
struct Program {
    #[command(flatten)]
    args: InjectArgs,
}

fn wanted() -> Wanted {
    Wanted {
        namespace: "shop".into(),
        name: "edge".into(),
        class: Some("selvedge".into()),
        uid: Some("u-1".into()),
        ports: BTreeMap::from([(80, "http"), (443, "https"), (9000, "tcp")]),
        labels: BTreeMap::from([owned(("team", "shop"))]),
        annotations: BTreeMap::from([owned(("example.com/internal", "true"))]),
        address: None,
    }
}

fn objects(wanted: &Wanted, parameters: &Parameters) -> BTreeMap<ObjectKind, Value> {
    let args = Program::parse_from(["control-plane", "--image-tag=0.1.0"]).args;
    let settings = args.settings(vec!["0123456789abcdef".repeat(4)], TrustDomain::default(), "selvedge");
    wanted.objects(parameters, &settings).unwrap().into_iter().collect()
}

#[test]
fn a_gateway_is_four_objects_that_belong_to_it() {
    let objects = objects(&wanted(), &Parameters::default());

    assert_eq!(objects.len(), ObjectKind::ALL.len());
    let text: Vec<String> = objects.values().map(|object| serde_saphyr::to_string(object).unwrap()).collect();
    insta::assert_snapshot!(text.join("---\n"));
}

#[test]
fn nobodys_labels_or_annotations_take_the_place_of_ours() {
    let mut wanted = wanted();
    for label in [NAME_LABEL, CLASS_LABEL, MADE_BY_US[0].0, MADE_BY_US[1].0, NOT_INJECTED.0] {
        wanted.labels.insert(label.to_owned(), "theirs".to_owned());
    }
    wanted.annotations.insert(GATEWAY_PORTS_ANNOTATION.to_owned(), "80=1".to_owned());

    let refused = wanted.objects(
        &Parameters::default(),
        &Program::parse_from(["a"]).args.settings(Vec::new(), TrustDomain::default(), "selvedge"),
    );
    assert!(refused.unwrap_err()[0].contains(GATEWAY_PORTS_ANNOTATION));
    wanted.annotations.clear();
    let objects = objects(&wanted, &Parameters::default());
    let template = &objects[&ObjectKind::Deployment]["spec"]["template"]["metadata"];
    assert_eq!(template["labels"][NOT_INJECTED.0], NOT_INJECTED.1);
    assert_eq!(template["labels"][NAME_LABEL], "edge");
    assert_eq!(template["labels"][MADE_BY_US[1].0], MADE_BY_US[1].1);
    assert_eq!(template["annotations"][GATEWAY_ANNOTATION], "shop/edge");
}

#[test]
fn parameters_say_how_it_runs() {
    let parameters = Parameters {
        replicas: Some(3),
        service_type: ServiceType::LoadBalancer,
        external_traffic_policy: Some("Local".to_owned()),
        load_balancer_class: Some("example.com/a".to_owned()),
        load_balancer_source_ranges: vec!["192.0.2.0/24".to_owned()],
        resources: BTreeMap::from([("proxy-cpu-limit", "2".to_owned())]),
    };
    let wanted = Wanted { address: Some("192.0.2.7".parse().unwrap()), ..wanted() };

    let mut objects = objects(&wanted, &parameters);

    assert_eq!(objects[&ObjectKind::Deployment]["spec"]["replicas"], 3);
    let mut spec = objects.get_mut(&ObjectKind::Service).unwrap()["spec"].take();
    spec.as_object_mut().unwrap().retain(|key, _| !["ports", "selector"].contains(&key.as_str()));
    let expected = json!({
        "type": "LoadBalancer", "externalTrafficPolicy": "Local", "loadBalancerClass": "example.com/a",
        "loadBalancerSourceRanges": ["192.0.2.0/24"], "loadBalancerIP": "192.0.2.7",
    });
    assert_eq!(spec, expected);
}

#[test]
fn a_gateway_without_a_port_has_no_service() {
    let objects = objects(&Wanted { ports: BTreeMap::new(), ..wanted() }, &Parameters::default());

    assert!(!objects.contains_key(&ObjectKind::Service) && objects.contains_key(&ObjectKind::Deployment));
}

#[test]
fn names_that_a_service_cannot_have_are_shortened_and_stay_different() {
    let name = |name: &str| Wanted { name: name.into(), ..wanted() }.object_name();
    let long = "a".repeat(80);

    assert_eq!(name("edge"), "edge-selvedge");
    let odd = [
        name("1st"),
        name("shop.example"),
        name(&long),
        name(&format!("{long}b")),
        name(&format!("{long}-c")),
    ];
    for (index, name) in odd.iter().enumerate() {
        assert!(is_service_name(name), "{name}");
        assert!(!odd[..index].contains(name), "{name}");
    }
    assert!(odd[1].starts_with("shop-example-selvedge-"), "{}", odd[1]);
    assert!(label(&long).len() <= LONGEST);
}
