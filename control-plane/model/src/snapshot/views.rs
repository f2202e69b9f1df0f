//! What clients see of a service's port. All those of a namespace see the same, but for those whom rules select by their
//! labels.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::Service;

/// One service port, as each class of clients sees it.
#[derive(Debug, Clone)]
pub struct ServiceViews {
    /// For clients in a namespace that `by_namespace` does not name.
    pub default: Arc<Service>,
    /// For clients in namespaces with rules of their own for this host.
    pub by_namespace: BTreeMap<Arc<str>, Arc<Service>>,
    /// For those of these clients that rules select by their labels, where they see something else. There seldom are any.
    pub selected: Option<Box<SelectedViews>>,
}

/// What clients see that rules select: by their namespace, and by those of their labels by which rules do.
pub type SelectedViews = BTreeMap<Arc<str>, BTreeMap<Arc<BTreeMap<String, String>>, Arc<Service>>>;

/// Clients that see the same: those of a namespace that the same rules select.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Clients {
    /// Their namespace.
    pub namespace: Arc<str>,
    /// Those of their labels by which rules select them, of all such rules together: whoever has these is selected by
    /// the very same rules. `None`: none does.
    pub selected: Option<Arc<BTreeMap<String, String>>>,
}

impl ServiceViews {
    /// The service as a client in `namespace` sees it that no rule selects by its labels.
    pub fn for_namespace(&self, namespace: &str) -> &Arc<Service> {
        self.by_namespace.get(namespace).unwrap_or(&self.default)
    }

    /// The service as `clients` see it.
    pub fn for_clients(&self, clients: &Clients) -> &Arc<Service> {
        self.own_of(clients).unwrap_or_else(|| self.for_namespace(&clients.namespace))
    }

    /// The service as these `clients` see it whom rules select, if others of their namespace see something else.
    pub fn own_of(&self, clients: &Clients) -> Option<&Arc<Service>> {
        let (views, labels) = (self.selected.as_ref()?, clients.selected.as_ref()?);
        views.get(&clients.namespace)?.get(labels)
    }

    /// Each of the views that clients see whom rules select, with their namespace and their labels.
    pub fn each_selected(
        &self,
    ) -> impl Iterator<Item = (&Arc<str>, &Arc<BTreeMap<String, String>>, &Arc<Service>)> {
        let namespaces = self.selected.iter().flat_map(|views| views.iter());
        namespaces
            .flat_map(|(namespace, views)| views.iter().map(move |(labels, view)| (namespace, labels, view)))
    }

    /// Every view.
    pub fn each(&self) -> impl Iterator<Item = &Arc<Service>> {
        let selected = self.each_selected().map(|(_, _, view)| view);
        std::iter::once(&self.default).chain(self.by_namespace.values()).chain(selected)
    }
}

impl fmt::Display for Clients {
    /// Their namespace, and their labels if these count.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.namespace)?;
        for (number, (name, value)) in self.selected.iter().flat_map(|labels| labels.iter()).enumerate() {
            let before = if number == 0 { " with " } else { "," };
            write!(f, "{before}{name}={value}")?;
        }
        Ok(())
    }
}
