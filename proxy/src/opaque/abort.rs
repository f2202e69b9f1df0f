//! Ending a connection so that the other end does not take it for its own end.
//!
//! A TCP connection that is closed ends as if everything had been said. One whose other half broke off must
//! not: it is reset, and where TLS carries it there is no `close_notify` either.

use tokio::net::TcpStream;
use tokio_rustls::server;

use super::{ahead::ReadAhead, answer::Answered, frames::Framed};
use crate::{
    accept::original::reset,
    connect::stream::{Prefixed, Stream},
};

/// A stream that can be ended as one that broke off.
pub trait Abort {
    /// From now on, dropping it resets it.
    fn abort(&self);
}

impl Abort for TcpStream {
    fn abort(&self) {
        reset(self);
    }
}

impl<S: Abort> Abort for Prefixed<S> {
    fn abort(&self) {
        self.get_ref().abort();
    }
}

impl<S: Abort> Abort for ReadAhead<S> {
    fn abort(&self) {
        self.get_ref().abort();
    }
}

impl<S: Abort> Abort for Framed<S> {
    fn abort(&self) {
        self.get_ref().abort();
    }
}

impl<S: Abort> Abort for Answered<S> {
    fn abort(&self) {
        self.get_ref().abort();
    }
}

impl<S: Abort> Abort for server::TlsStream<S> {
    fn abort(&self) {
        self.get_ref().0.abort();
    }
}

impl Abort for Stream {
    fn abort(&self) {
        self.tcp().abort();
    }
}
