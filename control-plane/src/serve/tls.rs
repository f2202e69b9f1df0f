//! TLS without buffers of its own: what a connection that is quiet keeps is the state of its session alone.
//!
//! What rustls' usual connection reads into is 4 KiB that stay for as long as the connection is open, which for a proxy is a day of
//! mostly nothing. Here records are read where the thread is, and only what is left of them is kept: of a record that has not
//! come in full, of a text that nobody has taken yet, and of what the peer does not take in.

use std::{
    fmt,
    future::poll_fn,
    io::{self, ErrorKind, IoSlice},
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use selvedge_certs::{CertificateDer, tls::GRPC_RECORD};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::rustls::{
    self, ServerConfig,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{
        ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus,
        WriteTraffic,
    },
};

/// What is read at once.
const READ: usize = 4096;
/// The most of records that may wait to be complete: TLS allows 16 KiB for one, and rustls 64 KiB for a message of a handshake.
const MOST_INCOMPLETE: usize = 72 << 10;
/// What a record has besides the text: its head, its kind, and its tag.
const AROUND: usize = 5 + 1 + 16;

/// A server's connection whose handshake is done.
pub(crate) struct TlsStream<S> {
    stream: S,
    session: UnbufferedServerConnection,
    /// Of records of which not all is here.
    incomplete: Vec<u8>,
    /// Text that was not taken yet.
    text: BytesMut,
    /// Records that the peer has not taken yet.
    outgoing: BytesMut,
    /// Whether the peer has said that it says no more.
    has_ended: bool,
    /// Whether we have.
    is_shut: bool,
    /// Whether what the peer has said was wrong. The session is not asked again then.
    has_failed: bool,
}

impl<S: fmt::Debug> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// What is to be said as soon as that can be.
#[derive(Debug, Clone, Copy)]
enum Say<'t> {
    Nothing,
    Text(&'t [u8]),
    Bye,
}

impl<S> TlsStream<S> {
    /// What is below.
    pub(crate) fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// What the peer has shown in this handshake, or in the one of the session that this resumes; its own certificate comes first.
    pub(crate) fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.session.peer_certificates()
    }

    /// Takes in `records`, as far as they are complete, and says what is to be said. Gives how many bytes of them are done with,
    /// and whether it was said.
    ///
    /// The session remembers where in `records` parts of messages are, so whatever it was given comes again until it is done with.
    fn process(&mut self, records: &mut [u8], say: Say<'_>) -> io::Result<(usize, bool)> {
        let Self { session, text, outgoing, has_ended, .. } = self;
        let mut done = 0;
        loop {
            let UnbufferedStatus { discard, state } = session.process_tls_records(&mut records[done..]);
            done += discard;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(invalid)?;
                        text.extend_from_slice(record.payload);
                        done += record.discard;
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, outgoing),
                // It is in `outgoing`, which keeps the order.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => *has_ended = true,
                Ok(ConnectionState::WriteTraffic(traffic)) => {
                    write(traffic, say, outgoing)?;
                    return Ok((done, true));
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => return Ok((done, false)),
                Ok(_) => return Err(io::Error::new(ErrorKind::InvalidData, "early data was not offered")),
                Err(error) => {
                    // The alert comes first. Nothing is asked after it: the session would read on, and have a second one to send.
                    if let UnbufferedStatus { state: Ok(ConnectionState::EncodeTlsData(data)), .. } =
                        session.process_tls_records(&mut records[done..])
                    {
                        encode(data, outgoing);
                    }
                    return Err(invalid(error));
                }
            }
        }
    }

    /// The same of `records` after what was incomplete of those before; whether it was said. Once it has failed, it always does.
    fn process_more(&mut self, records: &mut [u8], say: Say<'_>) -> io::Result<bool> {
        if self.has_failed {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let processed = self.process_all(records, say);
        self.has_failed = processed.is_err();
        processed
    }

    fn process_all(&mut self, records: &mut [u8], say: Say<'_>) -> io::Result<bool> {
        if self.incomplete.is_empty() {
            let (done, is_said) = self.process(records, say)?;
            self.incomplete.extend_from_slice(&records[done..]);
            return Ok(is_said);
        }
        let mut all = mem::take(&mut self.incomplete);
        all.extend_from_slice(records);
        let (done, is_said) = self.process(&mut all, say)?;
        all.drain(..done);
        if all.len() > MOST_INCOMPLETE {
            return Err(io::Error::new(ErrorKind::InvalidData, "a message is too long"));
        }
        if !all.is_empty() {
            self.incomplete = all;
        }
        Ok(is_said)
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

/// Puts `data` behind what is `outgoing`.
fn encode(mut data: EncodeTlsData<'_, ServerConnectionData>, outgoing: &mut BytesMut) {
    let begin = outgoing.len();
    loop {
        match data.encode(&mut outgoing[begin..]) {
            Ok(length) => return outgoing.truncate(begin + length),
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                outgoing.resize(begin + required_size, 0);
            }
            Err(EncodeError::AlreadyEncoded) => return outgoing.truncate(begin),
        }
    }
}

/// Puts what is to be said behind what is `outgoing`.
fn write(
    mut traffic: WriteTraffic<'_, ServerConnectionData>,
    say: Say<'_>,
    outgoing: &mut BytesMut,
) -> io::Result<()> {
    let begin = outgoing.len();
    let guess = match say {
        Say::Nothing => return Ok(()),
        Say::Text(text) => text.len() + AROUND,
        Say::Bye => 2 + AROUND,
    };
    outgoing.resize(begin + guess, 0);
    loop {
        let room = &mut outgoing[begin..];
        let written = match say {
            Say::Nothing => Ok(0),
            Say::Text(text) => traffic.encrypt(text, room),
            Say::Bye => traffic.queue_close_notify(room),
        };
        match written {
            Ok(length) => {
                outgoing.truncate(begin + length);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                outgoing.resize(begin + required_size, 0);
            }
            Err(EncryptError::EncryptExhausted) => {
                outgoing.truncate(begin);
                return Err(io::Error::other("the session's keys are used up"));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Shakes hands with whoever has connected by `stream`.
    ///
    /// # Errors
    /// Why there is no session.
    pub(crate) async fn accept(config: Arc<ServerConfig>, stream: S) -> io::Result<Self> {
        let mut this = Self {
            stream,
            session: UnbufferedServerConnection::new(config).map_err(invalid)?,
            incomplete: Vec::new(),
            text: BytesMut::new(),
            outgoing: BytesMut::new(),
            has_ended: false,
            is_shut: false,
            has_failed: false,
        };
        while this.session.is_handshaking() {
            match poll_fn(|context| this.poll_records(context)).await {
                Ok(true) => poll_fn(|context| this.poll_flush_all(context)).await?,
                Ok(false) => {
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, "the peer has left the handshake"));
                }
                Err(error) => {
                    // The alert, if it is taken at once.
                    poll_fn(|context| {
                        let _ = this.poll_outgoing(context);
                        Poll::Ready(())
                    })
                    .await;
                    return Err(error);
                }
            }
        }
        Ok(this)
    }

    /// Reads once; `false`: there is no more.
    fn poll_records(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut place = [0; READ];
        let mut buffer = ReadBuf::new(&mut place);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        let records = buffer.filled_mut();
        if records.is_empty() {
            return Poll::Ready(Ok(false));
        }
        self.process_more(records, Say::Nothing)?;
        Poll::Ready(Ok(true))
    }

    /// Writes what is outgoing.
    fn poll_outgoing(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.outgoing))?;
            if written == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(written);
            if self.outgoing.is_empty() {
                self.outgoing = BytesMut::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush_all(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_outgoing(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Says `text` or that it is the end, behind what was said before; how much of it is said.
    fn poll_say(&mut self, context: &mut Context<'_>, say: Say<'_>) -> Poll<io::Result<()>> {
        if self.is_shut {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        ready!(self.poll_outgoing(context))?;
        if !self.process_more(&mut [], say)? {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        // What is not taken now is written when it is flushed, or before the next.
        match self.poll_outgoing(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.text.is_empty() && !self.has_ended {
            let read = ready!(self.poll_records(context));
            // Answers to records, or the alert. What is not taken now is written later.
            let written = self.poll_outgoing(context);
            if !read? && !self.has_ended {
                let message = "the peer has closed its connection without saying so";
                return Poll::Ready(Err(io::Error::new(ErrorKind::UnexpectedEof, message)));
            }
            if let Poll::Ready(Err(error)) = written {
                return Poll::Ready(Err(error));
            }
        }
        let length = self.text.len().min(buffer.remaining());
        buffer.put_slice(&self.text[..length]);
        self.text.advance(length);
        if self.text.is_empty() {
            self.text = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let bytes = &bytes[..bytes.len().min(GRPC_RECORD)];
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll_say(context, Say::Text(bytes)).map_ok(|()| bytes.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut slices = slices.iter().filter(|slice| !slice.is_empty());
        let Some(first) = slices.next() else { return Poll::Ready(Ok(0)) };
        let mut rest = slices.peekable();
        if first.len() >= GRPC_RECORD || rest.peek().is_none() {
            return self.poll_write(context, first);
        }
        // One record for all.
        let mut together = Vec::with_capacity(
            GRPC_RECORD.min(first.len() + rest.clone().map(|one| one.len()).sum::<usize>()),
        );
        together.extend_from_slice(first);
        for slice in rest {
            let room = GRPC_RECORD - together.len();
            together.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        self.poll_write(context, &together)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush_all(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut {
            // Whoever has gone is told nothing.
            let said = ready!(self.poll_say(context, Say::Bye));
            self.is_shut = true;
            said?;
        }
        ready!(self.poll_outgoing(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
