//! What a client says on one stream.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use h2::{Reason, RecvStream};
use prost::Message as _;
use selvedge_api::{MAX_CLIENT_MESSAGE, wire::ClientMessage};
use tonic::Status;

/// Before each message of gRPC: whether it is compressed, and how long it is.
const HEADER: usize = 5;

/// The messages of one stream. While none is under way, nothing is kept ready for the next.
pub(in crate::serve) struct Messages {
    body: RecvStream,
    /// Of messages of which not all is here.
    begun: BytesMut,
}

impl Messages {
    pub(super) fn new(body: RecvStream) -> Self {
        Self { body, begun: BytesMut::new() }
    }

    /// The next message; `None`: the client has ended the stream. Cancel-safe.
    ///
    /// # Errors
    /// What the client has said is no message, or its connection has failed.
    pub(in crate::serve) async fn message(&mut self) -> Result<Option<ClientMessage>, Status> {
        poll_fn(|context| self.poll_message(context)).await
    }

    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<ClientMessage>, Status>> {
        loop {
            if let Some(message) = take_message(&mut self.begun)? {
                return Poll::Ready(Ok(Some(message)));
            }
            match ready!(self.body.poll_data(context)) {
                Some(Ok(data)) => {
                    self.begun.extend_from_slice(&data);
                    let released = self.body.flow_control().release_capacity(data.len());
                    released.map_err(|error| Status::from_error(Box::new(error)))?;
                }
                // It does not want the answer any more.
                Some(Err(error)) if matches!(error.reason(), Some(Reason::CANCEL | Reason::NO_ERROR)) => {
                    return Poll::Ready(Ok(None));
                }
                Some(Err(error)) => return Poll::Ready(Err(Status::from_error(Box::new(error)))),
                None if self.begun.is_empty() => return Poll::Ready(Ok(None)),
                None => return Poll::Ready(Err(Status::internal("the stream ends within a message"))),
            }
        }
    }
}

/// The first message of `begun`, if all of it is there.
fn take_message(begun: &mut BytesMut) -> Result<Option<ClientMessage>, Status> {
    let Some((head, rest)) = begun.split_first_chunk::<HEADER>() else { return Ok(None) };
    let [compressed, length @ ..] = *head;
    if compressed != 0 {
        return Err(Status::internal("a message is compressed, which nobody has offered"));
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_CLIENT_MESSAGE {
        return Err(Status::out_of_range(format!(
            "a message of {length} bytes is too long; {MAX_CLIENT_MESSAGE} are allowed"
        )));
    }
    let Some(message) = rest.get(..length) else {
        begun.reserve(HEADER + length - begun.len());
        return Ok(None);
    };
    let message = ClientMessage::decode(message)
        .map_err(|error| Status::internal(format!("a message cannot be read: {error}")))?;
    begun.advance(HEADER + length);
    if begun.is_empty() {
        // What the longest message took is given back.
        *begun = BytesMut::new();
    }
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use selvedge_api::wire::{Unsubscribe, client_message::Message};
    use tonic::Code;

    use super::*;

    fn message(authority: &str) -> ClientMessage {
        ClientMessage { message: Some(Message::Unsubscribe(Unsubscribe { authority: authority.into() })) }
    }

    fn framed(message: &ClientMessage) -> Vec<u8> {
        let encoded = message.encode_to_vec();
        let length = u32::try_from(encoded.len()).unwrap().to_be_bytes();
        [&[0][..], &length, &encoded].concat()
    }

    #[test]
    fn messages_are_read_in_whatever_pieces_they_come_and_leave_nothing_behind() {
        let messages = ["a", "", &"b".repeat(300)].map(message);
        let sent: Vec<u8> = messages.iter().flat_map(framed).collect();
        for piece in [1, 4, 7, 100, sent.len()] {
            let (mut begun, mut read) = (BytesMut::new(), Vec::new());
            for piece in sent.chunks(piece) {
                begun.extend_from_slice(piece);
                while let Some(message) = take_message(&mut begun).unwrap() {
                    read.push(message);
                }
            }
            assert_eq!(read, messages, "{piece}");
            assert_eq!(begun.capacity(), 0, "{piece}");
        }
    }

    #[test]
    fn what_is_no_message_is_refused_by_its_head() {
        let too_long = u32::try_from(MAX_CLIENT_MESSAGE + 1).unwrap().to_be_bytes();
        let refused = |sent: &[u8]| take_message(&mut BytesMut::from(sent)).map_err(|status| status.code());

        assert_eq!(refused(&[&[0][..], &too_long].concat()), Err(Code::OutOfRange));
        assert_eq!(refused(&[1, 0, 0, 0, 0]), Err(Code::Internal));
        assert_eq!(refused(&[0, 0, 0, 0, 1, 0xff]), Err(Code::Internal));
        assert_eq!(refused(&[0, 0, 0, 0]), Ok(None));
    }
}
