//! The mesh of a fleet, as files: services, each with its workloads, and one that everybody calls.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

/// Workloads of one service.
const OF_SERVICE: usize = 20;
/// Subscriptions of each proxy.
const ASKED: usize = 10;
/// Services of one namespace.
const OF_NAMESPACE: usize = 25;
/// The service that everybody calls.
pub(super) const COMMON: usize = 0;
/// Endpoints of the large service, and how many of them a slice has.
const OF_LARGE: usize = 10_000;
const OF_SLICE: usize = 100;
/// The large service, as it is asked for.
pub(super) const LARGE: &str = "large.team0.svc.cluster.local:80";

/// How large the fleet is, and what edits have made of its documents.
#[derive(Debug)]
pub(super) struct Documents {
    directory: PathBuf,
    workloads: usize,
    /// The number of the last edit of each service's endpoints, which its first endpoint has as its weight.
    edits: Vec<u32>,
    /// What the route of the common service gives to the common service.
    weight: u32,
}

impl Documents {
    pub(super) fn write(directory: &Path, workloads: usize) -> anyhow::Result<Self> {
        fs::create_dir_all(directory)?;
        let services = workloads.div_ceil(OF_SERVICE).max(ASKED + 1);
        let documents =
            Self { directory: directory.to_owned(), workloads, edits: vec![1; services], weight: 50 };
        for service in 0..services {
            documents.write_service(service)?;
        }
        documents.write_route()?;
        Ok(documents)
    }

    pub(super) fn services(&self) -> usize {
        self.edits.len()
    }

    /// The number of the last edit of the service's endpoints.
    pub(super) fn edited(&self, service: usize) -> u32 {
        self.edits[service]
    }

    /// Has the service's first endpoint another weight: the next number, which is the same nowhere else.
    pub(super) fn edit(&mut self, service: usize, number: u32) -> anyhow::Result<()> {
        self.edits[service] = number;
        self.write_service(service)
    }

    /// Gives the common service another part of its requests.
    pub(super) fn shift(&mut self) -> anyhow::Result<()> {
        self.weight = 1 + self.weight % 98;
        self.write_route()
    }

    fn write_service(&self, service: usize) -> anyhow::Result<()> {
        let (name, namespace) = (format!("svc{service}"), namespace(service));
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec:\n  selector: {{app: {name}}}\n  ports:\n  - {{name: http, port: 80, targetPort: 8080}}\n"
        );
        for workload in (service..self.workloads).step_by(self.services()) {
            let weight = if workload == service { self.edits[service] } else { 1 };
            let [_, a, b, c] = u32::try_from(workload + 1)?.to_be_bytes();
            text += &format!(
                "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n\
                 metadata: {{name: w{workload}, namespace: {namespace}}}\nspec:\n  address: 10.{a}.{b}.{c}\n  \
                 serviceAccount: w{workload}\n  weight: {weight}\n  \
                 labels: {{app: {name}, security.istio.io/tlsMode: istio}}\n"
            );
        }
        self.replace(&format!("{name}.yaml"), &text)
    }

    fn write_route(&self) -> anyhow::Result<()> {
        let (host, other) = (host(COMMON), host(1));
        let (weight, rest) = (self.weight, 100 - self.weight);
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
             metadata: {{name: common, namespace: {}}}\nspec:\n  hosts: [{host}]\n  http:\n  - route:\n    \
             - {{destination: {{host: {host}}}, weight: {weight}}}\n    \
             - {{destination: {{host: {other}}}, weight: {rest}}}\n",
            namespace(COMMON)
        );
        self.replace("route.yaml", &text)
    }

    /// The large service with every so-manyth of its endpoints.
    pub(super) fn write_large(&self, every: usize) -> anyhow::Result<()> {
        let mut text = "apiVersion: v1\nkind: Service\nmetadata: {name: large, namespace: team0}\n\
             spec: {ports: [{name: http, port: 80}]}\n"
            .to_owned();
        for slice in 0..OF_LARGE / OF_SLICE {
            text += &format!(
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: large-{slice}, \
                 namespace: team0, labels: {{kubernetes.io/service-name: large}}}}\naddressType: IPv4\n\
                 ports: [{{name: http, port: 8080, protocol: TCP}}]\nendpoints:\n"
            );
            for endpoint in (0..OF_SLICE).step_by(every) {
                text +=
                    &format!("- {{addresses: [10.200.{slice}.{endpoint}], conditions: {{ready: true}}}}\n");
            }
        }
        self.replace("large.yaml", &text)
    }

    /// A file that cannot be read, each time in another way.
    pub(super) fn write_broken(&self, number: usize) -> anyhow::Result<()> {
        let broken = [
            "apiVersion: v1\nkind: Service\nmetadata: [\n",
            "apiVersion: v1\nkind: Service\nmetadata: {name: broken}\nspec: {ports: [{port: 0}]}\n",
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: broken}\nspec: {\n",
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: broken}\nspec: {hosts: 5}\n",
        ];
        self.replace("broken.yaml", broken[number % broken.len()])
    }

    /// Removes what is written above and is not of the fleet's.
    pub(super) fn remove(&self, name: &str) -> anyhow::Result<()> {
        let path = self.directory.join(name);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
    }

    /// As editors do: nobody sees half of a file.
    fn replace(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let new = self.directory.join(format!(".{name}.new"));
        fs::write(&new, text).with_context(|| format!("cannot write {}", new.display()))?;
        Ok(fs::rename(&new, self.directory.join(name))?)
    }

    /// The services that a workload asks for: the common one, and others that are the same in every run.
    pub(super) fn asked_by(&self, workload: usize) -> Vec<usize> {
        let others = self.services() - 1;
        // Steps that share no divisor with the number of services meet each of them once.
        let step = (others / 3..).find(|step| greatest_common_divisor(*step, others) == 1).unwrap_or(1);
        let each = (0..ASKED - 1).map(|index| 1 + (workload * (ASKED - 1) + index * step) % others);
        std::iter::once(COMMON).chain(each).collect()
    }
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// The namespace of a service and of its workloads.
pub(super) fn namespace(service: usize) -> String {
    format!("team{}", service / OF_NAMESPACE)
}

/// The service's name.
pub(super) fn host(service: usize) -> String {
    format!("svc{service}.{}.svc.cluster.local", namespace(service))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_proxy_asks_for_ten_services_and_every_service_is_asked_for() {
        for workloads in [60, 300, 1000] {
            let directory = tempfile::tempdir().unwrap();
            let documents = Documents::write(directory.path(), workloads).unwrap();
            let asked: Vec<BTreeSet<usize>> =
                (0..workloads).map(|workload| documents.asked_by(workload).into_iter().collect()).collect();

            assert!(asked.iter().all(|asked| asked.len() == ASKED && asked.contains(&COMMON)));
            let met: BTreeSet<usize> = asked.into_iter().flatten().collect();
            assert_eq!(met.len(), documents.services());
        }
    }
}
