//! The keys of issuers that documents only name (`jwksUri`, or an issuer that says itself where its keys are).
//!
//! The control plane fetches them, never a proxy: a request does not wait for an issuer, and an issuer does not hear of
//! requests. They are fetched when a document names them, and then every so often. If that fails, the last ones stay in
//! use, also after a restart.
//!
//! Whoever may write a document makes the control plane ask what it names. So [`refused`] says which addresses are not
//! asked, no answer is repeated to anybody unless it is a set of keys, and one namespace cannot keep the others waiting.
//!
//! A proxy that sees a token of a key that it does not know says so, and the keys are fetched earlier. Strangers can make
//! such tokens, so the fewer of these fetches bring something new, the fewer there are.

mod error;
mod fetch;
mod keeper;
mod refused;
mod saved;
mod wanted;

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

pub use self::{
    keeper::{Keeper, KeeperSettings, KeyWishes, Keys, open},
    wanted::left_to_fetch,
};
use crate::resources::KeyAddress;

/// What is known of keys that are fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum FetchedKeys {
    /// Who asks fetches none, such as `selvedge check`.
    #[default]
    Elsewhere,
    /// What became of each address that was tried so far.
    Here(Arc<BTreeMap<KeyAddress, KeyState>>),
}

/// What became of one address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyState {
    /// The last keys that were fetched, as a JSON Web Key Set.
    pub keys: Option<Arc<str>>,
    /// Why there are no newer ones; `None`: the last fetch went well.
    pub trouble: Option<Trouble>,
}

/// Why keys cannot be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What went wrong, with the URL.
    pub why: Arc<str>,
    /// Since when it goes wrong, whatever it was at first.
    pub since: SystemTime,
    /// What to do.
    pub remedy: &'static str,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (since {})", self.why, humantime::format_rfc3339_seconds(self.since))
    }
}

/// How often keys are fetched.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Between two fetches, if the first went well.
    refresh: Duration,
}

impl Pace {
    /// The first wait after a failure; each further one is twice as long.
    const FIRST_RETRY: Duration = Duration::from_secs(1);
    /// The longest wait after a failure.
    const LAST_RETRY: Duration = Duration::from_secs(60);

    /// The shortest time between two fetches, where somebody wishes for newer keys.
    const FIRST_EARLY: Duration = Duration::from_secs(5);
    /// The shortest time where such fetches have brought nothing new for long.
    const LAST_EARLY: Duration = Duration::from_secs(300);

    /// How long after a fetch the next may be, if somebody wishes for newer keys, and the last so many wishes were in
    /// vain. So whoever invents the names of keys causes one fetch every [`Self::LAST_EARLY`], however many do.
    fn early(in_vain: u32) -> Duration {
        Self::FIRST_EARLY.saturating_mul(1 << in_vain.min(16)).min(Self::LAST_EARLY)
    }

    /// How long until the next fetch after this many failures in a row; `spread`, in 0..1, keeps fetches apart.
    fn pause(self, failures: u32, spread: f64) -> Duration {
        let longest = match failures {
            0 => self.refresh,
            more => {
                let doubled = Self::FIRST_RETRY.saturating_mul(1 << (more - 1).min(16));
                doubled.min(Self::LAST_RETRY).min(self.refresh)
            }
        };
        longest.mul_f64(1.0 - spread / 10.0)
    }
}

#[cfg(test)]
mod tests;
