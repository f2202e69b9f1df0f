//! TLS to servers outside the mesh, as a `DestinationRule` says.
//!
//! The files that it names are read on the control thread, when configuration is bound and again when they change.
//! Workers use the result. Open connections keep what they were made with.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use selvedge_api::wire;
use selvedge_certs::{
    files,
    tls::{self, Outside},
};
use selvedge_model::TlsOrigination;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream, client};

use crate::{
    error::{Failure, Reason},
    io::ReadAhead,
};

/// How often the files are looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What connections of one kind are made with, or why none can be.
type Ready = Result<Outside, String>;

/// One way to do TLS to the outside.
#[derive(Debug)]
pub struct Origination {
    settings: TlsOrigination,
    host: Arc<str>,
    ready: ArcSwap<Ready>,
    /// What the files held that `ready` was made from.
    files: Mutex<Vec<Option<Vec<u8>>>>,
}

impl Origination {
    fn new(settings: TlsOrigination, host: Arc<str>) -> Self {
        let files = contents(&settings);
        let ready = load(&settings, &host);
        Self { settings, host, ready: ArcSwap::from_pointee(ready), files: Mutex::new(files) }
    }

    /// What is sent as SNI, for display.
    pub fn name(&self) -> &str {
        self.settings.sni.as_deref().unwrap_or(&self.host)
    }

    /// Who asks for it, for display.
    fn asked_by(&self) -> &str {
        self.settings.policy.as_deref().unwrap_or("its DestinationRule")
    }

    /// Reads the files again if they have changed.
    fn refresh(&self) {
        let now = contents(&self.settings);
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if *files != now {
            tracing::info!(server = self.name(), "the files for TLS to this server have changed");
            self.ready.store(Arc::new(load(&self.settings, &self.host)));
            *files = now;
        }
    }

    /// Does the handshake on `tcp`, for what `carrier` is to carry.
    ///
    /// # Errors
    /// [`Reason::Tls`] or [`Reason::Protocol`]; nothing of the request was sent.
    pub async fn connect(
        &self,
        tcp: TcpStream,
        carrier: wire::Carrier,
    ) -> Result<TlsStream<ReadAhead<TcpStream>>, Failure> {
        let failed = |why: String| {
            Failure::new(
                Reason::Tls,
                format!("no TLS with {}, which {} asks for: {why}", self.name(), self.asked_by()),
            )
        };
        let ready = self.ready.load_full();
        let outside = ready.as_ref().as_ref().map_err(|why| failed(why.clone()))?;
        let config = match carrier {
            wire::Carrier::Http1 => &outside.http1,
            wire::Carrier::Http2 => &outside.http2,
            wire::Carrier::Tcp | wire::Carrier::Unspecified => &outside.opaque,
        };
        let stream = TlsConnector::from(Arc::clone(config))
            .connect(outside.server_name.clone(), ReadAhead::new(tcp))
            .await
            .map_err(|error| failed(tls::explain_outside(&error, &self.settings, outside)))?;
        self.agreed(&stream, carrier)?;
        Ok(TlsStream::Client(stream))
    }

    /// Refuses a server that does not say that it speaks HTTP/2: it could not read what it would be sent.
    fn agreed(
        &self,
        stream: &client::TlsStream<ReadAhead<TcpStream>>,
        carrier: wire::Carrier,
    ) -> Result<(), Failure> {
        let alpn = stream.get_ref().1.alpn_protocol();
        if carrier == wire::Carrier::Http2 && alpn != Some(tls::ALPN_HTTP2) {
            let what = format!("{} does not offer HTTP/2 over TLS, which the client speaks", self.name());
            return Err(Failure::new(Reason::Protocol, what).never_delivered());
        }
        Ok(())
    }
}

fn load(settings: &TlsOrigination, host: &str) -> Ready {
    if settings.insecure_skip_verify {
        tracing::warn!(
            server = settings.sni.as_deref().unwrap_or(host),
            "insecureSkipVerify: the server's certificate is not verified, so anybody on the way can read and change what is sent"
        );
    }
    Outside::load(settings, host).map_err(|error| {
        let why = error.to_string();
        tracing::warn!(server = host, "no TLS to a server outside the mesh: {why}");
        why
    })
}

fn contents(settings: &TlsOrigination) -> Vec<Option<Vec<u8>>> {
    tls::outside_files(settings).map(|path| files::read_bundle(path).ok()).collect()
}

/// The settings, and what the server is called where they do not say.
type Key = (TlsOrigination, Arc<str>);

/// Every way to do TLS to the outside that is in use.
#[derive(Debug, Clone, Default)]
pub struct Originations {
    known: Arc<Mutex<HashMap<Key, Weak<Origination>>>>,
}

impl Originations {
    /// The one way as `settings` say, to a server called `host` where they name none.
    pub fn find_or_make(&self, settings: &TlsOrigination, host: &Arc<str>) -> Arc<Origination> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (settings.clone(), Arc::clone(host));
        if let Some(found) = known.get(&key).and_then(Weak::upgrade) {
            return found;
        }
        let made = Arc::new(Origination::new(settings.clone(), Arc::clone(host)));
        known.insert(key, Arc::downgrade(&made));
        made
    }

    /// Reads files again when they change, for as long as it is polled.
    pub async fn keep_fresh(self) {
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            self.refresh();
        }
    }

    fn refresh(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, origination| origination.strong_count() > 0);
        known.values().filter_map(Weak::upgrade).for_each(|origination| origination.refresh());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use selvedge_model::Trusted;

    use super::*;

    #[test]
    fn equal_settings_are_one_way_and_files_are_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let ca = directory.path().join("ca.pem");
        let settings =
            TlsOrigination { trusted: Trusted::File(ca.display().to_string()), ..TlsOrigination::default() };
        let (originations, host) = (Originations::default(), Arc::from("api.example"));

        let way = originations.find_or_make(&settings, &host);
        assert!(Arc::ptr_eq(&way, &originations.find_or_make(&settings, &host)));
        let why = way.ready.load().as_ref().as_ref().unwrap_err().clone();
        assert!(why.contains("cannot read"), "{why}");

        fs::write(&ca, "nothing").unwrap();
        originations.refresh();
        let why = way.ready.load().as_ref().as_ref().unwrap_err().clone();
        assert!(why.contains("has no certificate"), "{why}");
        drop(way);
        originations.refresh();
        assert!(originations.known.lock().unwrap().is_empty());
    }
}
