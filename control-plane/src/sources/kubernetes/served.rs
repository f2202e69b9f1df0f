//! Which of the wanted kinds the API server serves. This is checked again and again, because CRDs come and go.

use std::{collections::BTreeMap, time::Duration};

use selvedge_kubernetes::{Client, Error, Kind};
use tokio::{
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};

use super::held::{EVERY_KIND, Step};
use crate::resources::kinds::{ResourceKind, followed};

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// A kind counts as gone after it was missing in so many looks: an API server that has just started serves
/// its own kinds before those of CRDs.
const LOOKS_UNTIL_GONE: u32 = 3;

/// The kinds that are served; nothing is known before the first look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Served(Option<Vec<Kind>>);

impl Served {
    pub(super) fn is_known(&self) -> bool {
        self.0.is_some()
    }

    /// `wanted` in the best version that is served.
    pub(super) fn find(&self, wanted: &ResourceKind) -> Option<Kind> {
        let served = self.0.as_ref()?;
        let find = |version: &&str| {
            served.iter().find(|kind| kind.kind == wanted.kind && kind.api_version() == **version)
        };
        wanted.api_versions.iter().find_map(find).cloned()
    }
}

/// Looks for as long as anybody wants to know.
pub(super) async fn look(client: Client, served: watch::Sender<Served>, steps: mpsc::Sender<(usize, Step)>) {
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = ServedKinds::default();
    while !served.is_closed() {
        looks.tick().await;
        match kinds(&client, !known.any()).await {
            Ok(kinds) => {
                if steps.send((EVERY_KIND, Step::Answers)).await.is_err() {
                    return;
                }
                known.saw(kinds);
                served.send_if_modified(|served| {
                    let new = Served(Some(known.kinds()));
                    std::mem::replace(served, new.clone()) != new
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot see which kinds are served");
                if steps.send((EVERY_KIND, Step::Failed(error))).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Every kind that is served in one of the versions that are wanted.
async fn kinds(client: &Client, first: bool) -> Result<Vec<Kind>, Error> {
    if first {
        wait_until_ready(client).await?;
    }
    let mut versions: Vec<&str> = followed().flat_map(|wanted| wanted.api_versions).copied().collect();
    versions.sort_unstable();
    versions.dedup();
    let groups = client.api_versions().await?;
    let mut kinds = Vec::new();
    for version in versions {
        if !version.contains('/') || groups.iter().any(|served| served == version) {
            kinds.extend(client.kinds(version).await?);
        }
    }
    kinds.retain(|kind| followed().any(|wanted| wanted.kind == kind.kind));
    Ok(kinds)
}

/// An API server that is not ready does not know its CRDs. One that does not say is trusted to be.
async fn wait_until_ready(client: &Client) -> Result<(), Error> {
    match client.text("/readyz").await {
        Err(error @ (Error::Unreachable { .. } | Error::Refused { .. })) => Err(error),
        _ => Ok(()),
    }
}

/// What the looks so far have shown.
#[derive(Debug, Default)]
struct ServedKinds {
    /// Each kind with the number of looks since it was seen.
    missed: BTreeMap<Kind, u32>,
}

impl ServedKinds {
    fn any(&self) -> bool {
        !self.missed.is_empty()
    }

    fn saw(&mut self, kinds: Vec<Kind>) {
        for missed in self.missed.values_mut() {
            *missed += 1;
        }
        for kind in kinds {
            if self.missed.insert(kind.clone(), 0).is_none() {
                tracing::debug!(%kind, "served");
            }
        }
        self.missed.retain(|kind, missed| {
            let gone = *missed >= LOOKS_UNTIL_GONE;
            if gone {
                tracing::info!(%kind, "the cluster no longer serves this kind; its objects are forgotten");
            }
            !gone
        });
    }

    fn kinds(&self) -> Vec<Kind> {
        self.missed.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(version: &str) -> Kind {
        Kind::namespaced(version, "VirtualService", "virtualservices")
    }

    #[test]
    fn a_kind_is_gone_only_after_several_looks_without_it() {
        let mut known = ServedKinds::default();
        known.saw(vec![kind("networking.istio.io/v1")]);

        known.saw(vec![]);
        known.saw(vec![]);
        assert_eq!(known.kinds().len(), 1);
        known.saw(vec![kind("networking.istio.io/v1")]);
        known.saw(vec![]);
        known.saw(vec![]);
        assert_eq!(known.kinds().len(), 1);
        known.saw(vec![]);
        assert_eq!(known.kinds(), []);
    }

    #[test]
    fn the_best_served_version_is_followed() {
        let wanted = followed().find(|wanted| wanted.kind == "VirtualService").unwrap();
        let served = |versions: &[&str]| {
            Served(Some(versions.iter().map(|version| kind(version)).collect())).find(wanted)
        };

        let both = served(&["networking.istio.io/v1alpha3", "networking.istio.io/v1beta1"]);
        assert_eq!(both, Some(kind("networking.istio.io/v1beta1")));
        assert_eq!(served(&["example.com/v1"]), None);
        assert_eq!(Served::default().find(wanted), None);
    }
}
