//! A gRPC server with every kind of call, for the end-to-end tests.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, Streaming, metadata::MetadataValue};

use super::{Common, identity};
use wire::{EchoReply, EchoRequest, echo_server};

/// The generated messages, client and server of the protobuf package `selvedge.demo.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)] // generated
pub mod wire {
    tonic::include_proto!("selvedge.demo.v1");
}

/// The trailer that a failure to order carries, so that a test sees trailers pass.
pub const DETAIL: &str = "x-demo-detail";

/// The settings of one instance.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
}

/// Serves until it is told to end.
///
/// # Errors
/// If its address cannot be listened on.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let listener = super::listen(&args.common).await?;
    let echo = echo_server::EchoServer::new(Echo { pod: args.common.name });
    let incoming = TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(echo);
    server.serve_with_incoming_shutdown(incoming, super::terminated()).await?;
    Ok(())
}

#[derive(Debug)]
struct Echo {
    pod: String,
}

type Replies = Pin<Box<dyn Stream<Item = Result<EchoReply, Status>> + Send>>;

impl Echo {
    fn reply<T>(&self, request: &Request<T>) -> EchoReply {
        let client_identity = identity::caller(request.metadata().as_ref()).unwrap_or_default();
        EchoReply { text: String::new(), pod: self.pod.clone(), number: 0, client_identity }
    }
}

/// The failure that a request orders, with a trailer of its own.
fn ordered(status: u32) -> Result<(), Status> {
    let code = Code::from_i32(i32::try_from(status).unwrap_or(i32::MAX));
    if code == Code::Ok {
        return Ok(());
    }
    let mut failure = Status::new(code, "as ordered");
    failure.metadata_mut().insert(DETAIL, MetadataValue::from_static("ordered"));
    Err(failure)
}

#[tonic::async_trait]
impl echo_server::Echo for Echo {
    type ServerStreamStream = Replies;
    type BidirectionalStream = Replies;

    async fn unary(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
        let reply = self.reply(&request);
        let EchoRequest { text, status, .. } = request.into_inner();
        ordered(status)?;
        Ok(Response::new(EchoReply { text, ..reply }))
    }

    async fn server_stream(&self, request: Request<EchoRequest>) -> Result<Response<Replies>, Status> {
        let reply = self.reply(&request);
        let EchoRequest { text, count, status } = request.into_inner();
        let replies =
            (0..count).map(move |number| Ok(EchoReply { text: text.clone(), number, ..reply.clone() }));
        let end = ordered(status).err().map(Err);
        Ok(Response::new(Box::pin(tokio_stream::iter(replies.chain(end)))))
    }

    async fn client_stream(
        &self,
        request: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<EchoReply>, Status> {
        let reply = self.reply(&request);
        let mut requests = request.into_inner();
        let mut texts = Vec::new();
        while let Some(EchoRequest { text, status, .. }) = requests.message().await? {
            ordered(status)?;
            texts.push(text);
        }
        let number = u32::try_from(texts.len()).unwrap_or(u32::MAX);
        Ok(Response::new(EchoReply { text: texts.join(","), number, ..reply }))
    }

    async fn bidirectional(
        &self,
        request: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<Replies>, Status> {
        let reply = self.reply(&request);
        let replies = request.into_inner().enumerate().map(move |(number, request)| {
            let EchoRequest { text, status, .. } = request?;
            ordered(status)?;
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            Ok(EchoReply { text, number, ..reply.clone() })
        });
        Ok(Response::new(Box::pin(replies)))
    }
}
