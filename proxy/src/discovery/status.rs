//! Where the conversation with the control plane stands, for people who ask the admin port.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use selvedge_api::ResourceName;

/// Where the conversation stands.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Whether the stream is open.
    pub stream: Stream,
    /// The last transaction that was taken in.
    pub applied: Option<Applied>,
    /// The last transaction that was refused, if it came after the last that was taken in.
    pub refused: Option<Refused>,
    /// What is held, and in which version.
    pub versions: Arc<BTreeMap<ResourceName, String>>,
}

/// Whether the stream is open.
#[derive(Debug, Clone, Default)]
pub enum Stream {
    /// It has not been yet.
    #[default]
    NotYet,
    /// It is.
    Connected {
        /// Since when.
        since: SystemTime,
    },
    /// It was, and what was last good stays in force.
    Away {
        /// Since when.
        since: SystemTime,
    },
}

/// A transaction that was taken in.
#[derive(Debug, Clone)]
pub struct Applied {
    /// Its number on the stream.
    pub nonce: u64,
    /// When.
    pub at: SystemTime,
    /// How many resources it brought.
    pub upserts: usize,
    /// How many it took away.
    pub removals: usize,
}

/// A transaction that was refused.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Its number on the stream.
    pub nonce: u64,
    /// When.
    pub at: SystemTime,
    /// What the control plane was told.
    pub why: String,
}

impl Status {
    /// The stream is open.
    pub(super) fn connected(&mut self, now: SystemTime) {
        self.stream = Stream::Connected { since: now };
    }

    /// The stream is not open, or no more.
    pub(super) fn away(&mut self, now: SystemTime) {
        if let Stream::Connected { .. } = self.stream {
            self.stream = Stream::Away { since: now };
        }
    }
}
