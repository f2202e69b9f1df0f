//! A DNS server whose answers a test changes as it goes.

use std::{
    collections::HashMap,
    fs, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{RData, Record, RecordType},
    serialize::binary::{BinDecodable, BinEncodable},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
    task::JoinHandle,
};

/// What it says about a name.
#[derive(Debug, Clone)]
enum DnsAnswer {
    /// These addresses, for so many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// Nothing: the question is not answered.
    Nothing,
}

type Names = Arc<Mutex<HashMap<String, DnsAnswer>>>;

/// The longest answer over UDP, in bytes (RFC 1035, section 4.2.1). The rest is asked for over TCP.
const LONGEST: usize = 512;

/// A DNS server over UDP, and a `resolv.conf` that names it. It says NXDOMAIN about names that it does not know.
#[derive(Debug)]
pub struct DnsServer {
    names: Names,
    directory: TempDir,
    serving: Vec<JoinHandle<()>>,
}

impl DnsServer {
    /// A server on loopback that knows no name.
    ///
    /// # Panics
    /// If it cannot be had.
    pub async fn start() -> Self {
        Self::on(UdpSocket::bind("127.0.0.1:0").await.expect("a port"))
    }

    /// The same on a socket that is there already, such as one of another network namespace.
    ///
    /// # Panics
    /// If it cannot be had.
    pub fn on(socket: UdpSocket) -> Self {
        let names = Names::default();
        let address = socket.local_addr().expect("a bound socket has an address");
        let directory = tempfile::tempdir().expect("a directory");
        let conf = format!("nameserver {address}\noptions timeout:1 attempts:1\n");
        fs::write(directory.path().join("resolv.conf"), conf).expect("a writable directory");
        let serving = vec![tokio::spawn(serve(socket, Arc::clone(&names)))];
        Self { names, directory, serving }
    }

    /// A server on loopback that knows no name, and gives long answers over TCP.
    ///
    /// # Panics
    /// If it cannot be had.
    pub async fn start_with_tcp() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a bound socket has an address");
        // Another test may have the port for UDP.
        let Ok(socket) = UdpSocket::bind(address).await else {
            return Box::pin(Self::start_with_tcp()).await;
        };
        let mut server = Self::on(socket);
        server.serving.push(tokio::spawn(serve_tcp(listener, Arc::clone(&server.names))));
        server
    }

    /// The `resolv.conf` that names this server, for `--resolv-conf`.
    pub fn resolv_conf(&self) -> PathBuf {
        self.directory.path().join("resolv.conf")
    }

    /// `name` has these addresses from now on, with a TTL of 0.
    pub fn set(&self, name: &str, addresses: &[IpAddr]) {
        self.set_with_ttl(name, addresses, 0);
    }

    /// `name` has these addresses from now on, with a TTL in seconds.
    pub fn set_with_ttl(&self, name: &str, addresses: &[IpAddr], ttl: u32) {
        self.say(name, DnsAnswer::Addresses(addresses.to_vec(), ttl));
    }

    /// Questions about `name` are not answered from now on.
    pub fn silence(&self, name: &str) {
        self.say(name, DnsAnswer::Nothing);
    }

    /// `name` does not exist from now on.
    pub fn remove(&self, name: &str) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    fn say(&self, name: &str, saying: DnsAnswer) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), saying);
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.serving.iter().for_each(JoinHandle::abort);
    }
}

async fn serve(socket: UdpSocket, names: Names) {
    let mut buffer = [0; 1500];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from)) => {
                if let Some(answer) = answer(&buffer[..length], &names, LONGEST) {
                    // Who does not take an answer asks again.
                    let _ = socket.send_to(&answer, from).await;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => panic!("the DNS server's socket: {error}"),
        }
    }
}

/// Each message has its length before it (RFC 1035, section 4.2.2).
async fn serve_tcp(listener: TcpListener, names: Names) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let names = Arc::clone(&names);
        tokio::spawn(async move {
            while let Ok(length) = stream.read_u16().await {
                let mut question = vec![0; length.into()];
                stream.read_exact(&mut question).await.ok()?;
                let answer = answer(&question, &names, usize::from(u16::MAX))?;
                stream.write_u16(u16::try_from(answer.len()).ok()?).await.ok()?;
                stream.write_all(&answer).await.ok()?;
            }
            Some(())
        });
    }
}

/// What is answered, in so many bytes at most.
fn answer(question: &[u8], names: &Names, longest: usize) -> Option<Vec<u8>> {
    let request = Message::from_bytes(question).ok()?;
    let query = request.queries.first()?.clone();
    let name = query.name().to_ascii().trim_end_matches('.').to_owned();
    let mut answer = Message::new(request.id, MessageType::Response, OpCode::Query);
    answer.add_query(query.clone());
    match names.lock().unwrap_or_else(PoisonError::into_inner).get(&name) {
        None => answer.metadata.response_code = ResponseCode::NXDomain,
        Some(DnsAnswer::Nothing) => return None,
        Some(DnsAnswer::Addresses(addresses, ttl)) => {
            let fits = |ip: &&IpAddr| ip.is_ipv4() == (query.query_type() == RecordType::A);
            for ip in addresses.iter().filter(fits) {
                answer.add_answer(Record::from_rdata(query.name().clone(), *ttl, RData::from(*ip)));
            }
        }
    }
    let whole = answer.to_bytes().ok()?;
    if whole.len() <= longest {
        return Some(whole);
    }
    answer.metadata.truncation = true;
    answer.answers.clear();
    answer.to_bytes().ok()
}

/// The addresses' hosts.
pub fn ips<const N: usize>(addresses: [SocketAddr; N]) -> [IpAddr; N] {
    addresses.map(|address| address.ip())
}
