//! What a change can reach: the ties of [`Index`] from what has changed, until there are no more.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use selvedge_model::{Host, WorkloadName};

use super::{
    affected::Affected,
    changes::ChangedWorkloads,
    entries::addresses_in,
    index::{Everything, Fixed, Index, Item, Key, addresses_of, both, key, labelled, pods_of},
};
use crate::resources::{
    Document, EndpointSliceSpec, PodSpec, ServiceEntrySpec, ServiceSpec, WorkloadEntrySpec,
    service_entry::EntryEndpoints,
};

/// The most documents that are worth being compiled alone. Both what there was and what there is are.
const MOST: usize = 2_000;

impl Index {
    /// All that these changes, what is behind `hosts`, and these `workloads` can reach, of what is in the index: what there was before them.
    pub(super) fn affected(
        &self,
        changed: &ChangedWorkloads,
        hosts: &HashSet<Arc<str>>,
        workloads: &[WorkloadName],
    ) -> Result<Affected, Everything> {
        let mut affected = Affected::default();
        for document in both(&changed.entries.changed) {
            affected.items.insert(Item::Entry(key(&document.name)));
            self.reach_entry(document, &mut affected)?;
        }
        for document in both(&changed.pods.changed) {
            affected.items.insert(Item::Pod(key(&document.name)));
            self.reach_pod(document, &mut affected)?;
        }
        for document in both(&changed.slices.changed) {
            affected.items.insert(Item::Slice(key(&document.name)));
            self.reach_slice(document, &mut affected)?;
        }
        for document in both(&changed.service_entries.changed) {
            affected.items.insert(Item::ServiceEntry(key(&document.name)));
            self.reach_service_entry(document, &mut affected)?;
        }
        for document in both(&changed.services.changed) {
            affected.hosts.insert(self.host(document));
        }
        for document in both(&changed.services.changed) {
            self.reach_behind(&self.host(document), document, &mut affected)?;
        }
        for name in workloads {
            let key: Key = (Arc::from(name.namespace()), Arc::from(name.name()));
            affected.add(if self.pods.contains_key(&key) { Item::Pod(key) } else { Item::Entry(key) });
        }
        for host in hosts {
            let (host, _) = self.services.get_key_value(host).ok_or(Everything)?;
            affected.add_host(host);
        }
        loop {
            if affected.items.len() > MOST {
                return Err(Everything);
            }
            if let Some(host) = affected.hosts_left.pop() {
                self.reach_service(&host, &mut affected)?;
            } else if let Some(item) = affected.left.pop() {
                self.reach(&item, &mut affected)?;
            } else {
                return Ok(affected);
            }
        }
    }

    fn reach(&self, item: &Item, affected: &mut Affected) -> Result<(), Everything> {
        match item {
            Item::Entry(key) => self.reach_entry(self.entries.get(key).ok_or(Everything)?, affected),
            Item::Pod(key) => self.reach_pod(self.pods.get(key).ok_or(Everything)?, affected),
            Item::Slice(key) => self.reach_slice(self.slices.get(key).ok_or(Everything)?, affected),
            Item::ServiceEntry(key) => {
                self.reach_service_entry(self.service_entries.get(key).ok_or(Everything)?, affected)
            }
        }
    }

    fn reach_entry(
        &self,
        document: &Document<WorkloadEntrySpec>,
        affected: &mut Affected,
    ) -> Result<(), Everything> {
        let spec = &document.spec;
        let selecting = self.selecting(&document.name.namespace, &spec.labels)?;
        selecting.into_iter().for_each(|key| affected.add(Item::ServiceEntry(key)));
        if spec.gateway.is_some() || spec.address.as_ref().is_some_and(|host| host.name().is_some()) {
            return Err(Everything);
        }
        if let Some(ip) = spec.address.as_ref().and_then(Host::ip) {
            self.reach_address(ip, affected)?;
        }
        let key = key(&document.name);
        if self.pods.contains_key(&key) {
            affected.add(Item::Pod(key));
        }
        let here = self.groups.get(&document.name.namespace);
        for (label, value) in &spec.labels {
            let group = here.and_then(|here| here.get(label)?.get(value));
            for host in group.into_iter().flat_map(|group| &group.hosts) {
                affected.add_host(host);
            }
        }
        Ok(())
    }

    fn reach_pod(&self, document: &Document<PodSpec>, affected: &mut Affected) -> Result<(), Everything> {
        // Of a `ServiceEntry` that selects pods it is reported which one is the first.
        let selecting = self.selecting(&document.name.namespace, &document.metadata.labels)?;
        if !selecting.is_empty() {
            return Err(Everything);
        }
        if document.spec.gateway.is_some() {
            return Err(Everything);
        }
        document.spec.addresses.iter().try_for_each(|ip| self.reach_address(*ip, affected))?;
        let key = key(&document.name);
        for slice in self.naming.get(&key).into_iter().flatten() {
            affected.add(Item::Slice(slice.clone()));
        }
        if self.entries.contains_key(&key) {
            affected.add(Item::Entry(key));
        }
        Ok(())
    }

    fn reach_slice(
        &self,
        document: &Document<EndpointSliceSpec>,
        affected: &mut Affected,
    ) -> Result<(), Everything> {
        let host = self.host_of(document);
        if self.is_other(&host) {
            return Err(Everything);
        }
        match self.services.get_key_value(&*host) {
            Some((host, _)) => affected.add_host(host),
            None => {
                let others = self.of_host.get(&host).into_iter().flatten();
                others.for_each(|slice| affected.add(Item::Slice(slice.clone())));
            }
        }
        for pod in pods_of(document).filter(|pod| self.pods.contains_key(pod)) {
            affected.add(Item::Pod(pod));
        }
        addresses_of(document).try_for_each(|ip| self.reach_address(ip, affected))
    }

    fn reach_service(&self, host: &Arc<str>, affected: &mut Affected) -> Result<(), Everything> {
        let document = self.services.get(host).ok_or(Everything)?;
        self.reach_behind(host, document, affected)
    }

    /// Reaches what is behind a `Service`, or was before, and what shares its addresses.
    fn reach_behind(
        &self,
        host: &str,
        document: &Document<ServiceSpec>,
        affected: &mut Affected,
    ) -> Result<(), Everything> {
        document.spec.addresses.iter().try_for_each(|ip| self.reach_address(*ip, affected))?;
        self.reach_selected(&document.name.namespace, &document.spec.selector, affected);
        for slice in self.of_host.get(host).into_iter().flatten() {
            affected.add(Item::Slice(slice.clone()));
        }
        Ok(())
    }

    /// Reaches the `WorkloadEntry`s of `namespace` that have the first label of `selector`.
    fn reach_selected(
        &self,
        namespace: &Arc<str>,
        selector: &BTreeMap<String, String>,
        affected: &mut Affected,
    ) {
        let Some((label, value)) = selector.first_key_value() else { return };
        let group = self.groups.get(namespace).and_then(|here| here.get(label)?.get(value));
        let new = match group {
            None => labelled(&self.entries, namespace, (label, value)),
            Some(_) => HashSet::new(),
        };
        for name in group.map_or(&new, |group| &group.entries) {
            affected.add(Item::Entry((Arc::clone(namespace), Arc::clone(name))));
        }
    }

    /// Reaches what a `ServiceEntry` selects, or did before, and what shares its addresses and those of its endpoints.
    fn reach_service_entry(
        &self,
        document: &Document<ServiceEntrySpec>,
        affected: &mut Affected,
    ) -> Result<(), Everything> {
        if let EntryEndpoints::Selected(selector) = &document.spec.endpoints {
            self.reach_selected(&document.name.namespace, selector, affected);
        }
        addresses_in(&document.spec).try_for_each(|ip| self.reach_address(ip, affected))
    }

    fn reach_address(&self, ip: IpAddr, affected: &mut Affected) -> Result<(), Everything> {
        if !affected.addresses.insert(ip) {
            return Ok(());
        }
        for fixed in self.fixed.get(&ip).into_iter().flatten() {
            match fixed {
                Fixed::Service(host) => affected.add_host(host),
                Fixed::Entry(key) => affected.add(Item::ServiceEntry(key.clone())),
                Fixed::Other => return Err(Everything),
            }
        }
        for item in self.at.get(&ip).into_iter().flatten() {
            affected.add(item.clone());
        }
        Ok(())
    }
}
