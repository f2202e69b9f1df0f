//! Networks that clients connect from, without parts of them.

use ipnet::IpNet;
use selvedge_model::policy::address;
use serde::Deserialize;

use crate::resources::{document::wrong, typed::FieldError};

/// One network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// All of it.
    pub all: IpNet,
    /// Without these.
    pub except: Vec<IpNet>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NetworkYaml {
    cidr: String,
    except: Vec<String>,
}

/// The networks of the list at `field`.
pub(super) fn read(yaml: Vec<NetworkYaml>, field: &str) -> Result<Vec<Network>, FieldError> {
    let read = |(number, yaml): (usize, NetworkYaml)| yaml.read(&format!("{field}[{number}]"));
    yaml.into_iter().enumerate().map(read).collect()
}

impl NetworkYaml {
    fn read(self, field: &str) -> Result<Network, FieldError> {
        let all = block(&self.cidr, &format!("{field}.cidr"))?;
        let mut except = Vec::new();
        for (number, text) in self.except.iter().enumerate() {
            let at = format!("{field}.except[{number}]");
            let part = block(text, &at)?;
            if part.contains(&all) {
                return Err(wrong(at, format!("{text} leaves nothing of {}; remove one of them", self.cidr)));
            }
            if !all.contains(&part) {
                return Err(wrong(at, format!("{text} is no part of {}; remove it", self.cidr)));
            }
            except.push(part);
        }
        Ok(Network { all, except })
    }
}

fn block(text: &str, field: &str) -> Result<IpNet, FieldError> {
    address::block(text).ok_or_else(|| {
        wrong(field, format!("{text:?} is not an IP address or block; write it as 10.0.0.1 or 10.0.0.0/8"))
    })
}
