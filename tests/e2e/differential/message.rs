//! Messages of HTTP/1, read byte by byte: no library that would tidy them up.

use std::{collections::BTreeMap, fmt};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Where a body was said to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// Nothing was said, and there is none.
    None,
    /// After so many bytes.
    Sized(u64),
    /// With its last chunk.
    Chunked,
    /// With the connection.
    Closed,
}

/// Values by name, those of one name in their order.
pub(super) type Fields = BTreeMap<String, Vec<String>>;

/// One whole message, or what came of it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// Method, target and version, or version, status and reason.
    pub(super) first: [String; 3],
    pub(super) fields: Fields,
    pub(super) framing: Framing,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Fields,
    /// Whether it came to its end.
    pub(super) is_whole: bool,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, fields, framing, body, trailers, is_whole } = self;
        let start = body[..body.len().min(60)].escape_ascii();
        write!(f, "{first:?} {framing:?} whole: {is_whole}\n  {fields:?}\n  {} bytes: {start}", body.len())?;
        write!(f, "\n  trailers: {trailers:?}")
    }
}

impl Message {
    pub(super) fn status(&self) -> &str {
        &self.first[1]
    }

    /// The values of one field; none if it is not there.
    pub(super) fn field(&self, name: &str) -> &[String] {
        self.fields.get(name).map_or(&[], Vec::as_slice)
    }
}

/// A connection that messages are read from.
pub(super) struct Reader<R> {
    stream: R,
    read: BytesMut,
    ended: bool,
    broken: bool,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, read: BytesMut::new(), ended: false, broken: false }
    }

    /// Reads on; `false`: there is no more.
    async fn more(&mut self) -> bool {
        let read = self.stream.read_buf(&mut self.read).await;
        self.broken |= read.is_err();
        self.ended |= !matches!(read, Ok(1..));
        !self.ended
    }

    /// A line, without its end.
    async fn line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.read.iter().position(|&byte| byte == b'\n') {
                let mut line = self.read.split_to(at + 1).to_vec();
                line.pop();
                line.pop_if(|&mut last| last == b'\r');
                return Some(line);
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn fields(&mut self) -> Option<Fields> {
        let mut fields = Fields::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Some(fields);
            }
            let at = line.iter().position(|&byte| byte == b':')?;
            let name = latin(line[..at].trim_ascii()).to_ascii_lowercase();
            fields.entry(name).or_default().push(latin(line[at + 1..].trim_ascii()));
        }
    }

    /// Up to `length` bytes of a body, and whether there were as many.
    async fn exactly(&mut self, body: &mut Vec<u8>, length: u64) -> bool {
        let length = usize::try_from(length).expect("a test's body");
        let mut left = length;
        loop {
            let some = self.read.len().min(left);
            body.extend_from_slice(&self.read.split_to(some));
            left -= some;
            if left == 0 {
                return true;
            }
            if !self.more().await {
                return false;
            }
        }
    }

    /// Chunks, to the last. Their trailers, if they came to their end.
    async fn chunks(&mut self, body: &mut Vec<u8>) -> Option<Fields> {
        loop {
            let line = latin(&self.line().await?);
            let size = u64::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
            if size == 0 {
                return self.fields().await;
            }
            if !self.exactly(body, size).await || !self.line().await?.is_empty() {
                return None;
            }
        }
    }

    /// The next request; `None`: there is none.
    pub(super) async fn request(&mut self) -> Option<Message> {
        let (first, fields) = self.head().await?;
        let framing = match length(&fields) {
            _ if is_chunked(&fields) => Framing::Chunked,
            Some(length) => Framing::Sized(length),
            None => Framing::None,
        };
        Some(self.rest(first, fields, framing).await)
    }

    /// The next answer to a request with `method`, and the statuses of the interim ones before it; `None`: there
    /// is none.
    pub(super) async fn answer(&mut self, method: &str) -> Option<(Vec<String>, Message)> {
        let mut interim = Vec::new();
        loop {
            let (first, fields) = self.head().await?;
            let status = first[1].clone();
            if status.starts_with('1') && status != "101" {
                interim.push(status);
                continue;
            }
            let framing = match length(&fields) {
                _ if method == "HEAD" || matches!(status.as_str(), "204" | "304") => Framing::None,
                _ if is_chunked(&fields) => Framing::Chunked,
                Some(length) => Framing::Sized(length),
                None => Framing::Closed,
            };
            return Some((interim, self.rest(first, fields, framing).await));
        }
    }

    async fn head(&mut self) -> Option<([String; 3], Fields)> {
        let line = loop {
            let line = self.line().await?;
            if !line.is_empty() {
                break latin(&line);
            }
        };
        let mut words = line.splitn(3, ' ').map(str::to_owned);
        let first = std::array::from_fn(|_| words.next().unwrap_or_default());
        Some((first, self.fields().await?))
    }

    async fn rest(&mut self, first: [String; 3], fields: Fields, framing: Framing) -> Message {
        let (mut body, mut trailers) = (Vec::new(), Fields::new());
        let is_whole = match framing {
            Framing::None => true,
            Framing::Sized(length) => self.exactly(&mut body, length).await,
            Framing::Chunked => {
                let came = self.chunks(&mut body).await;
                came.map(|came| trailers = came).is_some()
            }
            Framing::Closed => loop {
                body.extend_from_slice(&self.read.split());
                if !self.more().await {
                    break !self.broken;
                }
            },
        };
        Message { first, fields, framing, body, trailers, is_whole }
    }
}

fn is_chunked(fields: &Fields) -> bool {
    fields.get("transfer-encoding").is_some_and(|codings| codings[0].eq_ignore_ascii_case("chunked"))
}

fn length(fields: &Fields) -> Option<u64> {
    let first = fields.get("content-length")?.first()?;
    first.split(',').next()?.trim().parse().ok()
}

/// Text of any bytes, each a character.
fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}
