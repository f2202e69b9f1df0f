//! What goes on beside a change, so that it is seen what that costs everybody else.

use std::{fs, os::unix::fs::symlink, sync::Arc, sync::atomic::Ordering};

use super::{
    Case, Fleet,
    proxies::{self, Manners, Proxy},
    until,
};
use crate::measure::resident_kib;

/// The cases, each with its trouble.
pub(super) const CASES: [(&str, Trouble); 4] = [
    ("endpoint-beside-broken", Trouble::Broken),
    ("endpoint-beside-full-disk", Trouble::FullDisk),
    ("endpoint-beside-half", Trouble::Half),
    // The last: these stay.
    ("endpoint-beside-bad", Trouble::Proxies),
];

/// The kinds of proxies that misbehave, and how many there are of each.
const BAD: [Manners; 4] = [Manners::Silent, Manners::Deaf, Manners::Slow, Manners::Restless];
const OF_BAD: usize = 20;
/// How many ask for the large service.
const OF_LARGE: usize = 20;
/// Proxies beside the fleet.
pub(super) const EXTRA: usize = BAD.len() * OF_BAD + OF_LARGE;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// With each change comes a document that is broken in another way.
    Broken,
    /// What the control plane keeps of documents cannot be written.
    FullDisk,
    /// With each change half of the endpoints of a large service go, or come.
    Half,
    /// There are proxies that acknowledge nothing, read nothing, read a byte a second, or come and go.
    Proxies,
}

/// Whether the proxy of this number among those beside the fleet asks for the large service.
pub(super) fn asks_for_large(extra: usize) -> bool {
    extra >= BAD.len() * OF_BAD
}

impl Fleet {
    /// An endpoint's changes beside `trouble`; the memory is what there was more in the end.
    pub(super) async fn beside(
        &mut self,
        (name, trouble): (&'static str, Trouble),
        service: usize,
        times: u32,
    ) -> anyhow::Result<Case> {
        let pid = self.pid()?;
        let full = self.directory.join("data/last-good/.writing");
        let crowd = match trouble {
            Trouble::Proxies => self.misbehave()?,
            Trouble::Half => {
                self.documents.write_large(1)?;
                self.ask_for_large().await?
            }
            // Whatever is written to it has no room.
            Trouble::FullDisk => {
                symlink("/dev/full", &full)?;
                Vec::new()
            }
            Trouble::Broken => Vec::new(),
        };
        self.rest().await?;
        let memory = resident_kib(&[pid])?[0];
        let mut number = 0;
        let told = told(&crowd);
        let case = self
            .endpoint_after(name, service, times, |fleet| {
                number += 1;
                match trouble {
                    Trouble::Broken => fleet.documents.write_broken(number),
                    Trouble::Half => fleet.documents.write_large(1 + number % 2),
                    Trouble::FullDisk | Trouble::Proxies => Ok(()),
                }
            })
            .await?;
        let more = resident_kib(&[pid])?[0].saturating_sub(memory);
        match trouble {
            Trouble::Broken => self.documents.remove("broken.yaml")?,
            Trouble::FullDisk => fs::remove_file(&full)?,
            Trouble::Half => {
                until("those who ask for the large service are told of it", async || {
                    Ok(self::told(&crowd).iter().zip(&told).all(|(now, before)| now > before))
                })
                .await?;
                self.documents.remove("large.yaml")?;
            }
            Trouble::Proxies => {}
        }
        Ok(Case { memory_kib: Some(more), ..case })
    }

    /// Some proxies more, of workloads of their own, that misbehave.
    fn misbehave(&mut self) -> anyhow::Result<Vec<Arc<Proxy>>> {
        self.is_restless = true;
        let grpc = self.control_plane()?.grpc;
        let bad = &self.identities[self.proxies.len()..][..BAD.len() * OF_BAD];
        for (identity, manners) in bad.iter().zip(BAD.iter().cycle()) {
            let (identity, record) = (Arc::clone(identity), Arc::default());
            self.tasks.push(proxies::spawn(identity, *manners, grpc, Arc::default(), record));
        }
        Ok(Vec::new())
    }

    /// Some more that ask for the large service, which have it in the end.
    async fn ask_for_large(&mut self) -> anyhow::Result<Vec<Arc<Proxy>>> {
        let grpc = self.control_plane()?.grpc;
        let first = self.proxies.len() + BAD.len() * OF_BAD;
        let mut crowd: Vec<Arc<Proxy>> = Vec::new();
        for identity in &self.identities[first..] {
            let (identity, proxy) = (Arc::clone(identity), Arc::<Proxy>::default());
            crowd.push(Arc::clone(&proxy));
            self.tasks.push(proxies::spawn(identity, Manners::Good, grpc, proxy, Arc::default()));
        }
        until("those who ask for the large service have it", async || {
            let has = |proxy: &Arc<Proxy>| proxy.is_current.load(Ordering::Acquire);
            Ok(crowd.iter().all(has))
        })
        .await?;
        Ok(crowd)
    }
}

fn told(crowd: &[Arc<Proxy>]) -> Vec<u64> {
    crowd.iter().map(|proxy| proxy.transactions.load(Ordering::Acquire)).collect()
}
