//! `selvedge-init` with plain listeners in the sidecar's place: where connections go, what is left alone, and
//! what is said when the rules cannot be set.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::{
    process::{Gid, Pid, Signal, Uid, kill_process},
    thread::{set_thread_res_gid, set_thread_res_uid},
};
use selvedge_tests::{SOON, poll};
use socket2::{Domain, Socket, Type};

use crate::{
    SELVEDGE_INIT,
    namespace::Namespace,
    network::{Kind, Network, NetworkPlace},
    rights::netns,
};

/// Both tools must do the same.
const TOOLS: [&str; 2] = ["nft", "iptables"];

/// How long a connection may take that stays on this machine.
const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn connections_go_to_the_sidecar() {
    netns(async || {
        for tool in TOOLS {
            redirected(Kind::Bridge, tool);
            redirected(Kind::Ipv6, tool);
        }
    });
}

#[test]
fn a_port_that_is_used_again_leads_neither_past_the_sidecar_nor_back_to_it() {
    netns(async || {
        for tool in TOOLS {
            used_again(Kind::Bridge, tool);
            used_again(Kind::Ipv6, tool);
        }
    });
}

#[test]
fn dockers_resolver_goes_on_working() {
    netns(async || TOOLS.into_iter().for_each(resolver));
}

#[test]
fn a_namespace_is_held_without_any_right() {
    netns(async || held().await);
}

#[test]
fn what_stands_in_the_way_is_said_with_its_remedy() {
    netns(async || refusals());
}

/// A pod, and somebody on the same network.
struct Two {
    _network: Network,
    pod: NetworkPlace,
    peer: NetworkPlace,
}

impl Two {
    fn on(kind: Kind) -> Self {
        let mut network = Network::new(kind);
        let (pod, peer) = (network.join("pod"), network.join("peer"));
        Self { _network: network, pod, peer }
    }
}

fn redirected(kind: Kind, tool: &str) {
    let Two { pod, peer, .. } = &Two::on(kind);
    let loopback = loopback(pod.address);
    answer(&pod.namespace, SocketAddr::new(loopback, 4140), "sidecar, outbound");
    answer(&pod.namespace, any(4143), "sidecar, inbound");
    answer(&pod.namespace, any(4191), "sidecar, admin");
    for port in [22, 8080] {
        answer(&pod.namespace, any(port), "app");
    }
    for port in [25, 80, 4143] {
        answer(&peer.namespace, any(port), "peer");
    }
    let (to_pod, to_peer) =
        (|port| SocketAddr::new(pod.address, port), |port| SocketAddr::new(peer.address, port));
    let pod_asks = |address| ask(&pod.namespace, 1000, address).unwrap();
    let peer_asks = |address| ask(&peer.namespace, 1000, address).unwrap();
    let set = ["--tool", tool, "--skip-outbound-ports", "25", "--skip-inbound-ports", "22"];
    let asks_as = |uid, gid| ask_as(&pod.namespace, uid, gid, to_peer(80)).unwrap();

    let mut listings = Vec::new();
    for _ in 0..2 {
        succeeds(&pod.namespace, &set);
        assert_eq!(pod_asks(to_peer(80)), "sidecar, outbound", "{tool}");
        assert_eq!(pod_asks(to_peer(4143)), "sidecar, outbound");
        assert_eq!(pod_asks(to_peer(25)), "peer");
        assert_eq!(ask(&pod.namespace, 2102, to_peer(80)).unwrap(), "peer");
        assert_eq!(pod_asks(to_pod(8080)), "app");
        assert_eq!(pod_asks(SocketAddr::new(loopback, 8080)), "app");

        assert_eq!(peer_asks(to_pod(8080)), "sidecar, inbound");
        assert_eq!(peer_asks(to_pod(4143)), "sidecar, inbound");
        assert_eq!(peer_asks(to_pod(4191)), "sidecar, admin");
        assert_eq!(peer_asks(to_pod(22)), "app");
        // Nobody listens there, and the rules do not ask.
        assert_eq!(peer_asks(to_pod(9999)), "sidecar, inbound");
        let mut list = Command::new("nft");
        listings.push(pod.namespace.expect(list.args(["--stateless", "list", "ruleset"])));
    }
    assert_eq!(listings[0], listings[1], "setting the rules again must change nothing");

    // The proxy's user alone is not enough where its group is named, nor is the group.
    let said = succeeds(&pod.namespace, &["--tool", tool, "--proxy-gid", "31234"]);
    assert!(said.contains("a connection of user 2102 did not"), "{said}");
    assert_eq!(asks_as(2102, 31234), "peer", "{tool}");
    for (uid, gid) in [(2102, 0), (2102, 2102), (1000, 31234), (0, 31234)] {
        assert_eq!(asks_as(uid, gid), "sidecar, outbound", "{tool}: {uid}:{gid}");
    }

    succeeds(&pod.namespace, &["--skip-outbound-networks", &format!("{}/24", peer.address), "--tool", tool]);
    assert_eq!(pod_asks(to_peer(80)), "peer");
    for _ in 0..2 {
        succeeds(&pod.namespace, &["--cleanup"]);
        assert_eq!(pod_asks(to_peer(80)), "peer");
        assert_eq!(peer_asks(to_pod(8080)), "app");
    }
}

/// The app and the proxy call the same peer from the same port, one soon after a connection of the other was reset. The kernel
/// takes the second connection for the first.
fn used_again(kind: Kind, tool: &str) {
    let Two { pod, peer, .. } = &Two::on(kind);
    greet(&pod.namespace, SocketAddr::new(loopback(pod.address), 4140), "sidecar, outbound");
    greet(&peer.namespace, any(80), "peer");
    let peer = SocketAddr::new(peer.address, 80);
    succeeds(&pod.namespace, &["--tool", tool]);

    let (app, proxy) = (1000, 2102);
    for (first, second, greeting, port) in
        [(app, proxy, "sidecar, outbound", 50_001), (proxy, app, "peer", 50_002)]
    {
        assert_eq!(greeted_and_reset(&pod.namespace, first, port, peer).unwrap(), greeting, "{tool}");
        let refused = greeted_and_reset(&pod.namespace, second, port, peer).map_err(|error| error.kind());
        assert_eq!(refused, Err(io::ErrorKind::ConnectionRefused), "{tool}, user {second} after {first}");
        // From the next port, it goes where it should.
        assert_ne!(greeted_and_reset(&pod.namespace, second, port + 10, peer).unwrap(), greeting, "{tool}");
    }
}

/// Docker's rules for 127.0.0.11, as it sets them in every container of a network of the user's.
fn resolver(tool: &str) {
    let Two { pod, .. } = &Two::on(Kind::Bridge);
    for rule in [
        "-N DOCKER_OUTPUT",
        "-A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT",
        "-A DOCKER_OUTPUT -d 127.0.0.11/32 -p tcp --dport 53 -j DNAT --to-destination 127.0.0.11:40053",
        "-A DOCKER_OUTPUT -d 127.0.0.11/32 -p udp --dport 53 -j DNAT --to-destination 127.0.0.11:40053",
    ] {
        pod.namespace.expect(Command::new("iptables").args(["-t", "nat"]).args(rule.split(' ')));
    }
    let resolver = SocketAddr::from(([127, 0, 0, 11], 40053));
    answer(&pod.namespace, resolver, "resolver");
    let udp = pod.namespace.inside(|| UdpSocket::bind(resolver)).unwrap();
    udp.set_read_timeout(Some(LIMIT)).unwrap();
    let question = pod.namespace.inside(|| UdpSocket::bind("127.0.0.1:0")).unwrap();

    for arguments in [vec!["--tool", tool], vec!["--cleanup"]] {
        succeeds(&pod.namespace, &arguments);
        let address = SocketAddr::from(([127, 0, 0, 11], 53));
        assert_eq!(ask(&pod.namespace, 1000, address).unwrap(), "resolver", "{tool}: {arguments:?}");
        question.send_to(b"who?", address).unwrap();
        assert_eq!(udp.recv(&mut [0; 16]).unwrap(), 4);
    }
}

/// As the first process of a container: it reaps, it ends when told to, and the rules stay.
async fn held() {
    let Two { pod, .. } = &Two::on(Kind::Bridge);
    let container = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-all,+net_admin", "--inh-caps=-all"]).args(arguments);
        command
    };
    assert!(fails(&pod.namespace, &mut container(&[SELVEDGE_INIT, "--held"])).contains("holds"));

    // The shell's child is left to whom the shell becomes.
    let script = format!("sleep 0.3 & exec {SELVEDGE_INIT} --hold");
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child"]);
    command.args(["setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all", "sh", "-c", &script]);
    let mut holder = Ends(pod.namespace.inside(|| command.stdout(Stdio::null()).spawn()).unwrap());
    poll(SOON, "the namespace is held", async || {
        let said = pod.namespace.output(&mut container(&[SELVEDGE_INIT, "--held"]));
        if said.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said.stderr).into_owned()) }
    })
    .await;

    let pid: u32 = children(holder.0.id()).trim().parse().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert!(status.contains(&format!("{line}:\t0000000000000000")), "{status}");
    }
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("NSpid:") && status.contains("\t1\n"));
    poll(SOON, "what was left to it is reaped", async || match children(pid).trim() {
        "" => Ok(()),
        children => Err(children.to_owned()),
    })
    .await;
    let second = fails(&pod.namespace, &mut container(&[SELVEDGE_INIT, "--hold"]));
    assert!(second.contains("another selvedge-init holds"), "{second}");

    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert!(holder.0.wait().unwrap().success());
    succeeds(&pod.namespace, &["--verify"]);
}

fn refusals() {
    let Two { pod, .. } = &Two::on(Kind::Bridge);
    let namespace = &pod.namespace;
    let says = |command: &mut Command, words: &[&str]| {
        let said = fails(namespace, command);
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    };

    let mut without = Command::new("setpriv");
    without.args(["--bounding-set=-net_admin", SELVEDGE_INIT]);
    says(&mut without, &["capability NET_ADMIN is missing", "--cap-add NET_ADMIN", "securityContext"]);
    says(
        init(&[]).env("PATH", "/nowhere"),
        &["neither nft nor iptables-restore", "install the package nftables"],
    );
    says(init(&["--tool", "nft"]).env("PATH", "/nowhere"), &["nft is not in PATH", "leave --tool out"]);
    says(&mut init(&["--verify"]), &["was not redirected to port 4140", "without --verify"]);

    succeeds(namespace, &["--tool", "iptables"]);
    says(
        &mut init(&["--tool", "nft"]),
        &["already set rules here with iptables", "--cleanup --tool iptables"],
    );
    succeeds(namespace, &["--cleanup", "--tool", "iptables"]);
    succeeds(namespace, &["--tool", "nft"]);
    says(&mut init(&["--tool", "iptables"]), &["already set rules here with nft", "--cleanup --tool nft"]);
    succeeds(namespace, &["--cleanup"]);

    let istio = "-t nat -A OUTPUT -p tcp -j REDIRECT --to-ports 15001";
    namespace.expect(Command::new("iptables").args(istio.split(' ')));
    for tool in TOOLS {
        says(&mut init(&["--tool", tool]), &["another program's rules", "15001", "--force"]);
    }
    succeeds(namespace, &["--force"]);

    namespace.ip("link set lo down");
    says(&mut init(&["--force"]), &["nothing arrives at 127.0.0.1:4140", "ip link set lo up"]);

    let nowhere = Namespace::new("nowhere");
    succeeds(&nowhere, &[]);
    assert!(fails(&nowhere, &mut init(&["--verify"])).contains("no route to other hosts"));
}

fn init(arguments: &[&str]) -> Command {
    let mut command = Command::new(SELVEDGE_INIT);
    command.args(arguments);
    command
}

fn succeeds(namespace: &Namespace, arguments: &[&str]) -> String {
    namespace.expect(&mut init(arguments))
}

/// What a command that must fail says.
fn fails(namespace: &Namespace, command: &mut Command) -> String {
    let output = namespace.output(command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
    said
}

/// The processes that `pid` started, in the kernel's words.
fn children(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap()
}

/// Killed when the test is done with it, well or not.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}

/// Says `text` to everybody who connects, as long as the test runs.
fn answer(namespace: &Namespace, address: SocketAddr, text: &'static str) {
    let listener = namespace.inside(|| TcpListener::bind(address)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(text.as_bytes())); // he may be gone
        }
    });
}

/// As [`answer`], and closes when the client has said something, without having read it: so the connection is reset.
fn greet(namespace: &Namespace, address: SocketAddr, text: &'static str) {
    let listener = namespace.inside(|| TcpListener::bind(address)).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.peek(&mut [0])); // he may be gone
        }
    });
}

/// Connects as this user, from this port, and says who greets it, once the connection is reset.
fn greeted_and_reset(namespace: &Namespace, uid: u32, port: u16, address: SocketAddr) -> io::Result<String> {
    namespace.inside(|| {
        let client = thread::spawn(move || {
            let uid = Uid::from_raw(uid);
            set_thread_res_uid(uid, uid, uid)?;
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            let from = match address {
                SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
                SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
            };
            socket.bind(&from.into())?;
            socket.connect_timeout(&address.into(), LIMIT)?;
            let mut stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(LIMIT))?;
            let mut text = [0; 64];
            let length = stream.read(&mut text)?;
            stream.write_all(b"?")?;
            assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            Ok(String::from_utf8(text[..length].to_vec()).unwrap())
        });
        client.join().unwrap()
    })
}

/// Connects as this user, and says who answers.
fn ask(namespace: &Namespace, uid: u32, address: SocketAddr) -> io::Result<String> {
    ask_as(namespace, uid, 0, address)
}

/// The same as this group, too.
fn ask_as(namespace: &Namespace, uid: u32, gid: u32, address: SocketAddr) -> io::Result<String> {
    namespace.inside(|| {
        let client = thread::spawn(move || {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            set_thread_res_gid(gid, gid, gid)?;
            set_thread_res_uid(uid, uid, uid)?;
            let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
            stream.set_read_timeout(Some(LIMIT))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        });
        client.join().unwrap()
    })
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)
}

fn loopback(of: IpAddr) -> IpAddr {
    match of {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}
