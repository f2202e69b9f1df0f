//! What the ConfigMap says that a Gateway's `spec.infrastructure.parametersRef` names. Pure.

use std::{collections::BTreeMap, str::FromStr};

use ipnet::IpNet;

use crate::inject::{annotations, settings::Quantity};

/// The most replicas that anybody may ask for.
const MOST_REPLICAS: u32 = 1000;

/// How a gateway runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Parameters {
    /// How many pods; `None`: one, or as many as a HorizontalPodAutoscaler wants.
    pub(super) replicas: Option<u32>,
    /// Settings of the pods, such as `proxy-cpu-limit` or `trusted-hops`.
    pub(super) resources: BTreeMap<&'static str, String>,
    /// How others reach it.
    pub(super) service_type: ServiceType,
    /// `Cluster` or `Local`; `None`: the cluster's default.
    pub(super) external_traffic_policy: Option<String>,
    /// Which load balancer.
    pub(super) load_balancer_class: Option<String>,
    /// The clients that the load balancer lets in; empty: all.
    pub(super) load_balancer_source_ranges: Vec<String>,
}

/// The `type` of a Service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ServiceType {
    /// A load balancer outside the cluster.
    #[default]
    LoadBalancer,
    /// A port of every node.
    NodePort,
    /// Inside the cluster alone.
    ClusterIp,
}

impl ServiceType {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::LoadBalancer => "LoadBalancer",
            Self::NodePort => "NodePort",
            Self::ClusterIp => "ClusterIP",
        }
    }
}

/// Every key, in the order of the guide.
const KEYS: [&str; 14] = [
    "replicas",
    "serviceType",
    "externalTrafficPolicy",
    "loadBalancerClass",
    "loadBalancerSourceRanges",
    "cpuRequest",
    "cpuLimit",
    "memoryRequest",
    "memoryLimit",
    "proxyProtocolFrom",
    "trustedHops",
    "maxBodyBytes",
    "drainDelay",
    "drainTimeout",
];

impl Parameters {
    /// Reads `data`, the data of a ConfigMap.
    ///
    /// # Errors
    /// Each key that is unknown, or whose value cannot be used, with what to write instead.
    pub(super) fn read(data: &BTreeMap<String, String>) -> Result<Self, Vec<String>> {
        let (mut read, mut wrong) = (Self::default(), Vec::new());
        for (key, value) in data {
            if let Err(reason) = read.set(key, value.trim()) {
                wrong.push(format!("data.{key}: {reason}"));
            }
        }
        if read.service_type == ServiceType::ClusterIp && read.external_traffic_policy.is_some() {
            wrong.push(
                "data.externalTrafficPolicy: has no meaning with serviceType ClusterIP; remove it".into(),
            );
        }
        if read.service_type != ServiceType::LoadBalancer {
            let of_load_balancers = [
                ("loadBalancerClass", read.load_balancer_class.is_some()),
                ("loadBalancerSourceRanges", !read.load_balancer_source_ranges.is_empty()),
            ];
            let given = of_load_balancers.into_iter().filter(|(_, is_given)| *is_given);
            wrong.extend(given.map(|(key, _)| {
                format!("data.{key}: has a meaning only with serviceType LoadBalancer; remove it")
            }));
        }
        if wrong.is_empty() { Ok(read) } else { Err(wrong) }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "replicas" => {
                let number = value.parse().ok().filter(|number| (0..=MOST_REPLICAS).contains(number));
                let refused = || format!("{value:?} is not a whole number from 0 to {MOST_REPLICAS}");
                self.replicas = Some(number.ok_or_else(refused)?);
            }
            "serviceType" => {
                let all = [ServiceType::LoadBalancer, ServiceType::NodePort, ServiceType::ClusterIp];
                self.service_type = one_of(value, &all, |one| one.word())?;
            }
            "externalTrafficPolicy" => {
                self.external_traffic_policy =
                    Some(one_of(value, &["Cluster", "Local"], |one| one)?.to_owned());
            }
            "loadBalancerClass" => self.load_balancer_class = Some(value.to_owned()),
            "loadBalancerSourceRanges" => self.load_balancer_source_ranges = networks(value)?,
            "cpuRequest" => self.amount("proxy-cpu-request", value)?,
            "cpuLimit" => self.amount("proxy-cpu-limit", value)?,
            "memoryRequest" => self.amount("proxy-memory-request", value)?,
            "memoryLimit" => self.amount("proxy-memory-limit", value)?,
            "proxyProtocolFrom" => self.setting("proxy-protocol-from", &networks(value)?.join(","))?,
            "trustedHops" => self.setting("trusted-hops", value)?,
            "maxBodyBytes" => self.setting("max-body-bytes", value)?,
            "drainDelay" => self.setting("drain-delay", value)?,
            "drainTimeout" => self.setting("drain-timeout", value)?,
            _ => return Err(format!("is not a parameter of gateways; those are {}", KEYS.join(", "))),
        }
        Ok(())
    }

    /// One of the settings that annotations can make too.
    fn setting(&mut self, setting: &'static str, value: &str) -> Result<(), String> {
        annotations::find(setting).map_or(Ok(()), |known| known.check(value))?;
        self.resources.insert(setting, value.to_owned());
        Ok(())
    }

    fn amount(&mut self, setting: &'static str, value: &str) -> Result<(), String> {
        Quantity::from_str(value).map_err(|error| format!("{value:?} is {error}"))?;
        self.resources.insert(setting, value.to_owned());
        Ok(())
    }
}

fn one_of<T: Copy>(value: &str, all: &[T], word: impl Fn(T) -> &'static str) -> Result<T, String> {
    let found = all.iter().copied().find(|one| word(*one) == value);
    found.ok_or_else(|| {
        let words: Vec<&str> = all.iter().map(|one| word(*one)).collect();
        format!("{value:?} is not one of {}", words.join(", "))
    })
}

fn networks(value: &str) -> Result<Vec<String>, String> {
    let parts = value.split(',').map(str::trim).filter(|part| !part.is_empty());
    let network = |part: &str| match part.parse::<IpNet>() {
        Ok(network) => Ok(network.to_string()),
        Err(_) => Err(format!("{part:?} is not a network; write for example 10.0.0.0/8,fd00::/8")),
    };
    parts.map(network).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[(&str, &str)]) -> Result<Parameters, Vec<String>> {
        Parameters::read(&data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn every_key_is_understood() {
        let parameters = read(&[
            ("replicas", "3"),
            ("serviceType", "LoadBalancer"),
            ("externalTrafficPolicy", "Local"),
            ("loadBalancerClass", "example.com/internal"),
            ("loadBalancerSourceRanges", "192.0.2.0/24, 2001:db8::/32"),
            ("cpuRequest", "250m"),
            ("cpuLimit", "2"),
            ("memoryRequest", "64Mi"),
            ("memoryLimit", "256Mi\n"),
            ("proxyProtocolFrom", "10.0.0.0/8, fd00::/8"),
            ("trustedHops", "1"),
            ("maxBodyBytes", "8388608"),
            ("drainDelay", "30s"),
            ("drainTimeout", "2m"),
        ])
        .unwrap();

        assert_eq!(parameters.replicas, Some(3));
        assert_eq!(parameters.external_traffic_policy.as_deref(), Some("Local"));
        assert_eq!(parameters.load_balancer_source_ranges, ["192.0.2.0/24", "2001:db8::/32"]);
        assert_eq!(parameters.resources["proxy-memory-limit"], "256Mi");
        assert_eq!(parameters.resources["proxy-protocol-from"], "10.0.0.0/8,fd00::/8");
        assert_eq!(parameters.resources["drain-timeout"], "2m");
        assert_eq!(read(&[]), Ok(Parameters::default()));
    }

    #[test]
    fn what_is_unknown_or_cannot_be_used_is_named() {
        for (key, value, says) in [
            ("replica", "3", "data.replica: is not a parameter of gateways; those are replicas, serviceType"),
            ("replicas", "-1", "from 0 to 1000"),
            ("serviceType", "ExternalName", "LoadBalancer, NodePort, ClusterIP"),
            ("externalTrafficPolicy", "local", "Cluster, Local"),
            ("loadBalancerSourceRanges", "everybody", "is not a network"),
            ("cpuLimit", "much", "not an amount"),
            ("proxyProtocolFrom", "10.0.0.1/33", "is not a network"),
            ("trustedHops", "300", "from 0 to 255"),
            ("drainTimeout", "5", "not a length of time"),
        ] {
            let wrong = read(&[(key, value)]).unwrap_err();
            assert!(wrong[0].contains(says), "{wrong:?}");
        }
        let wrong = read(&[
            ("serviceType", "ClusterIP"),
            ("externalTrafficPolicy", "Local"),
            ("loadBalancerClass", "a"),
        ]);
        assert_eq!(wrong.unwrap_err().len(), 2);
    }
}
