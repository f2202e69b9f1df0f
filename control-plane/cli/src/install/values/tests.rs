use super::*;

fn refused(add: impl FnOnce(&mut Values) -> anyhow::Result<()>) -> String {
    let mut values = Values::defaults().unwrap();
    format!("{:#}", add(&mut values).unwrap_err())
}

#[test]
fn a_later_layer_wins_name_by_name() {
    let mut values = Values::defaults().unwrap();

    values.add_ha().unwrap();
    values.add_yaml("controlPlane: {replicas: 5}\nimage: {pullSecrets: [a]}").unwrap();
    values.set("image.tag=1.0").unwrap();
    values.set("image.pullSecrets={b,c}").unwrap();
    values.set(r"controlPlane.nodeSelector.example\.com/pool=mesh").unwrap();
    values.set("validator.enabled=false").unwrap();

    let values = values.get();
    assert_eq!(values["controlPlane"]["replicas"], 5);
    assert_eq!(values["controlPlane"]["antiAffinity"], "required");
    assert_eq!(values["controlPlane"]["nodeSelector"]["example.com/pool"], "mesh");
    assert_eq!(values["controlPlane"]["nodeSelector"]["kubernetes.io/os"], "linux");
    assert_eq!(values["image"]["tag"], "1.0", "a number that is to be text stays as it was written");
    assert_eq!(values["image"]["pullSecrets"], serde_json::json!(["b", "c"]));
    assert_eq!(values["validator"]["enabled"], false);
}

#[test]
fn null_takes_a_value_away() {
    let mut values = Values::defaults().unwrap();

    values.add_yaml("controlPlane: {resources: {limits: null}}").unwrap();

    assert_eq!(values.get()["controlPlane"]["resources"].get("limits"), None);
}

#[test]
fn an_unknown_value_is_refused_with_the_nearest_name() {
    assert_eq!(
        refused(|values| values.set("controlPlane.replica=3")),
        "controlPlane.replica: there is no such value; did you mean controlPlane.replicas?"
    );
    assert_eq!(
        refused(|values| values.add_yaml("replicas: 3")),
        "replicas: there is no such value; did you mean controlPlane.replicas?"
    );
    assert_eq!(refused(|values| values.set("zzz=3")), "zzz: there is no such value");
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_with_what_it_must_be() {
    assert_eq!(
        refused(|values| values.set("controlPlane.replicas=three")),
        r#"controlPlane.replicas: must be a whole number from 1 to 100, not "three""#
    );
    assert_eq!(
        refused(|values| values.set("controlPlane.replicas=0")),
        "controlPlane.replicas: must be a whole number from 1 to 100, not 0"
    );
    assert_eq!(
        refused(|values| values.set("injector.failurePolicy=fail")),
        r#"injector.failurePolicy: must be Fail or Ignore, not "fail""#
    );
    assert_eq!(
        refused(|values| values.set("injector.nativeSidecars=no")),
        r#"injector.nativeSidecars: must be auto or true or false, not "no""#
    );
    assert_eq!(
        refused(|values| values.add_yaml("controlPlane: {podLabels: {a: 1}}")),
        "controlPlane.podLabels.a: must be text, not 1"
    );
    assert!(refused(|values| values.set("trustDomain=A/b")).starts_with("trustDomain: must be text like"));
    assert!(refused(|values| values.add_yaml("- a")).contains("must be a mapping"));
    assert!(refused(|values| values.set("image.tag")).contains("must be PATH=VALUE"));
}

#[test]
fn the_schema_names_every_value_and_only_uses_words_that_are_checked() {
    fn words(schema: &Value, path: &str) {
        for word in schema.as_object().unwrap().keys() {
            let known = ["$schema", "type", "properties", "additionalProperties", "items", "enum"];
            let of_scalars = ["minimum", "maximum", "pattern"];
            assert!(known.contains(&&**word) || of_scalars.contains(&&**word), "{path}: {word}");
        }
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            words(schema, &format!("{path}.{name}"));
        }
    }
    fn same_names(values: &Value, schema: &Value, path: &str) {
        let Some(properties) = schema["properties"].as_object() else { return };
        let names: Vec<&String> = values.as_object().unwrap().keys().collect();
        let described: Vec<&String> = properties.keys().collect();
        assert_eq!(names, described, "{path}");
        for (name, schema) in properties {
            same_names(&values[name], schema, &format!("{path}.{name}"));
        }
    }
    let Values { values, schema } = Values::defaults().unwrap();

    words(&schema, "");
    same_names(&values, &schema, "");
    let mut wrong = Vec::new();
    check(&values, &schema, "", &mut wrong);
    assert_eq!(wrong, Vec::<String>::new());
}
