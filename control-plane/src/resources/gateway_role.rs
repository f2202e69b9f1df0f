//! That a workload is a gateway, as the annotations of a `WorkloadEntry` or a `Pod` say it.

use std::collections::BTreeMap;

use selvedge_model::WorkloadName;

use super::{
    annotated::place,
    document::{Metadata, wrong},
    typed::FieldError,
};

/// The annotation that says which gateway a workload is: `NAMESPACE/NAME`.
pub const GATEWAY_ANNOTATION: &str = "config.selvedge.io/gateway";

/// The annotation that says where it listens for a port that clients call, if that is another one: `80=8080,443=8443`.
pub const GATEWAY_PORTS_ANNOTATION: &str = "config.selvedge.io/gateway-ports";

/// Which gateway a workload is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayAnnotations {
    /// The gateway's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where it listens for each port that clients call, if that is another one.
    pub ports: BTreeMap<u16, u16>,
}

/// What the annotations in `metadata` say. `None`: the workload is not a gateway.
pub(super) fn read(metadata: &Metadata) -> Result<Option<GatewayAnnotations>, FieldError> {
    let ports = metadata.annotations.get(GATEWAY_PORTS_ANNOTATION);
    let Some(name) = metadata.annotations.get(GATEWAY_ANNOTATION) else {
        let message = format!("has no effect without {GATEWAY_ANNOTATION}: NAMESPACE/NAME; add that");
        return match ports {
            Some(_) => Err(wrong(place(GATEWAY_PORTS_ANNOTATION), message)),
            None => Ok(None),
        };
    };
    let Ok(gateway) = name.parse::<WorkloadName>() else {
        let message = format!("{name:?} is not the name of a gateway; write NAMESPACE/NAME");
        return Err(wrong(place(GATEWAY_ANNOTATION), message));
    };
    let ports = read_ports(ports.map(String::as_str).unwrap_or_default())?;
    let (namespace, name) = (gateway.namespace().to_owned(), gateway.name().to_owned());
    Ok(Some(GatewayAnnotations { namespace, name, ports }))
}

fn read_ports(list: &str) -> Result<BTreeMap<u16, u16>, FieldError> {
    let at = || place(GATEWAY_PORTS_ANNOTATION);
    let mut ports: BTreeMap<u16, u16> = BTreeMap::new();
    for pair in list.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let port = |text: &str| text.trim().parse::<u16>().ok();
        let both = pair.split_once('=').and_then(|(called, here)| port(called).zip(port(here)));
        // Where it listens may be 0: any port that is free.
        let both = both.filter(|(called, _)| *called > 0);
        let Some((called, here)) = both else {
            let message = format!("{pair:?} is not a pair of ports; write for example 80=8080,443=8443");
            return Err(wrong(at(), message));
        };
        if here > 0 && ports.values().any(|other| *other == here) {
            return Err(wrong(at(), format!("{here} is given for two ports; give each its own")));
        }
        if ports.insert(called, here).is_some() {
            return Err(wrong(at(), format!("{called} is given twice; keep one")));
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_annotations(annotations: &[(&str, &str)]) -> Result<Option<GatewayAnnotations>, FieldError> {
        let annotations = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        read(&Metadata { annotations: annotations.collect(), ..Metadata::default() })
    }

    #[test]
    fn a_gateway_has_a_name_and_ports_of_its_own() {
        assert_eq!(read_annotations(&[]), Ok(None));
        let role = read_annotations(&[
            (GATEWAY_ANNOTATION, "shop/edge"),
            (GATEWAY_PORTS_ANNOTATION, "80=8080, 443=8443"),
        ]);

        let expected = GatewayAnnotations {
            namespace: "shop".to_owned(),
            name: "edge".to_owned(),
            ports: BTreeMap::from([(80, 8080), (443, 8443)]),
        };
        assert_eq!(role, Ok(Some(expected)));
    }

    #[test]
    fn what_is_not_a_name_or_not_ports_is_refused() {
        for name in ["", "edge", "a/b/c", "Shop/edge"] {
            let error = read_annotations(&[(GATEWAY_ANNOTATION, name)]).unwrap_err();
            assert_eq!(error.field, "metadata.annotations[config.selvedge.io/gateway]", "{name}");
        }
        for ports in ["80", "0=80", "80=a", "80=81=82", "80=8080,80=8081", "80=8080,81=8080", "70000=1"] {
            let annotations = [(GATEWAY_ANNOTATION, "a/b"), (GATEWAY_PORTS_ANNOTATION, ports)];
            let error = read_annotations(&annotations).unwrap_err();
            assert_eq!(error.field, "metadata.annotations[config.selvedge.io/gateway-ports]", "{ports}");
        }
        let alone = read_annotations(&[(GATEWAY_PORTS_ANNOTATION, "80=8080")]).unwrap_err();
        assert!(alone.message.contains("add that"), "{}", alone.message);
    }
}
