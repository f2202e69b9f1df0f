//! Of which workloads the matrix is.

use std::str::FromStr;

use selvedge_model::{Mesh, Workload, WorkloadName};

/// Some workloads: one by its name, those of a ServiceAccount, or all of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Workloads {
    namespace: String,
    /// A workload or a ServiceAccount; `None`: all of the namespace.
    name: Option<String>,
}

impl FromStr for Workloads {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not NAMESPACE/NAME or NAMESPACE/*");
        let (namespace, name) = text.split_once('/').ok_or_else(wrong)?;
        let name = if name == "*" { None } else { Some(name) };
        WorkloadName::new(namespace, name.unwrap_or("any")).map_err(|error| error.to_string())?;
        Ok(Self { namespace: namespace.to_owned(), name: name.map(str::to_owned) })
    }
}

impl Workloads {
    fn is_one(&self, workload: &Workload) -> bool {
        let Self { namespace, name } = self;
        let is_in = workload.name.namespace() == *namespace;
        let Some(name) = name else { return is_in };
        let account = &workload.identity;
        let runs_as = account.namespace() == *namespace && account.service_account() == *name;
        (is_in && workload.name.name() == *name) || runs_as
    }
}

/// Which clients and which servers; none: all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub(crate) from: Vec<Workloads>,
    pub(crate) to: Vec<Workloads>,
}

impl Filter {
    pub(crate) fn is_client(&self, workload: &Workload) -> bool {
        is_any(&self.from, workload)
    }

    pub(crate) fn is_server(&self, workload: &Workload) -> bool {
        is_any(&self.to, workload)
    }

    /// # Errors
    /// If it asks for somebody whom no document declares.
    pub(crate) fn check(&self, mesh: &Mesh) -> Result<(), String> {
        for (option, all) in [("--from", &self.from), ("--to", &self.to)] {
            let is_there = |some: &&Workloads| mesh.workloads.values().any(|workload| some.is_one(workload));
            if let Some(Workloads { namespace, name }) = all.iter().find(|some| !is_there(some)) {
                let name = name.as_deref().unwrap_or("*");
                return Err(format!(
                    "{option} {namespace}/{name}: no document declares a workload of that name, and none runs as \
                     such a ServiceAccount"
                ));
            }
        }
        Ok(())
    }
}

fn is_any(some: &[Workloads], workload: &Workload) -> bool {
    some.is_empty() || some.iter().any(|some| some.is_one(workload))
}
