//! What the client does with what arrives: transactions, requests for authorities, new addresses of names.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::{Duration, SystemTime},
};

use selvedge_api::{
    ResourceName,
    convert::taps,
    wire::{self, client_message::Message as Body},
};
use tokio::time::Instant;

use super::{Client, now};
use crate::discovery::{
    binder::Work,
    held::{Change, Recipient, Refusal},
    status::{Applied, Refused},
    store::Wanted,
    subscriptions::{Noted, SWEEP_EVERY},
};

/// The longest time for which the control plane can have us log something else.
const LONGEST_LEVEL: Duration = Duration::from_secs(24 * 3600);

/// How long the client asks for no newer keys of a URL after it has done so.
const KEYS_WANTED_EVERY: Duration = Duration::from_secs(5);

impl Client {
    /// Takes a part of a transaction, and with the last part the transaction.
    pub(super) fn receive(&mut self, mut part: wire::Transaction, us: &Recipient) {
        if let Some(wanted) = part.taps.take() {
            self.report_often(wanted.often);
            return self.discovery.metrics.tap.set(taps(wanted));
        }
        if let Some(level) = part.log_level.take() {
            return self.log(&level);
        }
        let (nonce, more) = (part.nonce, part.more);
        self.draft.add(part);
        if more {
            return;
        }
        tracing::debug!(nonce, "configuration received");
        let mut draft = std::mem::take(&mut self.draft);
        if std::mem::take(&mut self.anew) {
            draft.replace_all_of(self.held.versions().keys());
        }
        let asked = |authority: &str| self.subscriptions.contains(authority);
        let refused = match self.held.take_in(draft, us, asked) {
            Ok(change) => {
                self.applied(nonce, change);
                None
            }
            Err(refusal) => {
                self.refused(nonce, &refusal);
                Some(refusal.to_string())
            }
        };
        self.send(Body::Ack(wire::Ack { nonce, refused }));
    }

    /// Logs what the control plane asks for, for a while.
    fn log(&self, level: &wire::LogLevel) {
        let time = Duration::from_secs(level.seconds).clamp(Duration::from_secs(1), LONGEST_LEVEL);
        match self.discovery.log_level.lend(&level.filter, time) {
            Ok(()) if level.filter.is_empty() => {
                tracing::info!("the control plane has set the log level back to the proxy's own setting");
            }
            Ok(()) => tracing::info!(
                filter = level.filter,
                ?time,
                "the control plane has set the log level for a while"
            ),
            Err(error) => tracing::warn!(%error, "the control plane asks for a log level that is none"),
        }
    }

    fn applied(&mut self, nonce: u64, change: Change) {
        // This comes first: connections that the new table lets in are checked by the new list.
        self.discovery.live.revoke(self.held.revocations());
        let work = self.put_in_force();
        if change.bundle {
            self.discovery.bundle.send_replace(self.held.bundle().cloned());
        }
        let Change { upserts, removals, .. } = change;
        tracing::debug!(nonce, upserts, removals, ?work, "configuration applied");
        self.discovery.metrics.control.applied.inc();
        let applied = Applied { nonce, at: SystemTime::now(), upserts, removals };
        let versions = Arc::clone(self.held.versions());
        self.discovery.metrics.set_configuration_version(&fingerprint(&versions), SystemTime::now());
        self.discovery.status.send_modify(|status| {
            status.applied = Some(applied);
            status.refused = None;
            status.versions = versions;
        });
    }

    fn refused(&mut self, nonce: u64, refusal: &Refusal) {
        tracing::warn!(nonce, %refusal, "configuration refused; the last good one stays in force");
        self.discovery.metrics.control.refused.inc();
        let refused = Refused { nonce, at: SystemTime::now(), why: refusal.to_string() };
        self.discovery.status.send_modify(|status| status.refused = Some(refused));
    }

    fn put_in_force(&mut self) -> Work {
        // What we let in does not wait until the endpoints of others are bound, which may take long. Whom we may call does: whoever
        // may be called no longer is in no table then to which requests could go.
        if let Some(table) = self.discovery.binder.policies(&self.held) {
            self.discovery.store.publish(table);
        }
        let subscriptions = &self.subscriptions;
        let (table, work) =
            self.discovery.binder.bind(&self.held, |authority| subscriptions.contains(authority), now());
        self.discovery.store.publish(table);
        self.discovery.binder.end_forbidden();
        self.discovery.own_policy.set(self.held.own().is_some());
        let own = self.held.own();
        self.discovery.metrics.set_telemetry(own.and_then(|own| own.telemetry.as_ref()));
        self.note_our_own();
        work
    }

    /// Subscribes to what is in use whether an app asks for it or not.
    fn note_our_own(&mut self) {
        for authority in self.discovery.binder.asked_for_ourselves() {
            self.note(&authority);
        }
    }

    /// Binds everything again, because names of endpoints have other addresses.
    pub(super) fn rebind(&mut self) {
        let work = self.put_in_force();
        tracing::debug!(?work, "DNS names of endpoints have new addresses");
    }

    /// Asks the control plane for what a worker asks for.
    pub(super) fn take(&mut self, wanted: Wanted) {
        match wanted {
            Wanted::Destination(authority) => self.note(&authority),
            Wanted::Keys(url) => self.want_keys(&url),
        }
    }

    /// Asks for newer keys, if that was not done lately. Without a stream nobody can be asked.
    fn want_keys(&mut self, url: &Arc<str>) {
        let now = Instant::now();
        self.keys_wanted.retain(|_, asked| now.duration_since(*asked) < KEYS_WANTED_EVERY);
        if self.outgoing.is_none() || self.keys_wanted.contains_key(url) {
            return;
        }
        self.keys_wanted.insert(Arc::clone(url), now);
        self.send(Body::KeysWanted(wire::KeysWanted { url: url.to_string() }));
    }

    /// Notes that a request asked for `authority`.
    pub(super) fn note(&mut self, authority: &Arc<str>) {
        let Noted::New { dropped } = self.subscriptions.note(Arc::clone(authority), now()) else {
            return;
        };
        if let Some(dropped) = dropped {
            self.unsubscribe(&dropped);
        }
        self.send(Body::Subscribe(wire::Subscribe { authority: authority.to_string() }));
        if self.held.lookups().contains_key(authority) {
            // Asked for again before the control plane took the answer away.
            self.put_in_force();
        }
    }

    pub(super) fn sweep(&mut self) {
        self.sweep_at = Instant::now() + SWEEP_EVERY;
        self.note_our_own();
        self.subscriptions.note_use(&self.discovery.store.table(), now());
        if self.outgoing.is_none() {
            return;
        }
        let unused = self.subscriptions.drop_unused(now());
        for authority in &unused {
            tracing::debug!(%authority, "unsubscribed, because nothing uses it any more");
            self.unsubscribe(authority);
        }
        if !unused.is_empty() {
            self.put_in_force();
        }
        self.discovery.binder.tidy();
    }

    fn unsubscribe(&mut self, authority: &Arc<str>) {
        self.send(Body::Unsubscribe(wire::Unsubscribe { authority: authority.to_string() }));
    }
}

/// One word for everything held: the same word means the same configuration.
fn fingerprint(versions: &BTreeMap<ResourceName, String>) -> String {
    let mut hasher = DefaultHasher::new();
    versions.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
