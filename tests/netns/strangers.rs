//! A sidecar is nobody's next hop: strangers on a pod's network send it what is for somebody else.
//!
//! With the rules of today such connections do not come to the sidecar; with those of an older `selvedge-init`, or of
//! others, it refuses them itself, in plaintext and over mutual TLS, whatever they carry.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    time::Duration,
};

use selvedge_demo::call;
use selvedge_tests::{SOON, poll};

use crate::{
    SELVEDGE_INIT,
    interception::{Stranger, said_in},
    mesh::{APP_PORT, Mesh, client, server},
    namespace::Namespace,
    network::{Kind, NetworkPlace},
    rights::netns,
};

/// How long a stranger waits for a connection that nobody takes.
const PATIENCE: Duration = Duration::from_millis(500);

/// A port of the victim's that the mesh knows as opaque.
const OPAQUE_PORT: u16 = 5432;

#[test]
fn a_pod_is_no_strangers_next_hop() {
    netns(async || everywhere(Kind::Bridge).await);
}

#[test]
fn a_pod_is_no_strangers_next_hop_in_ipv6() {
    netns(async || everywhere(Kind::Ipv6).await);
}

async fn everywhere(kind: Kind) {
    let scene = Scene::on(kind).await;
    scene.a_member_reaches_the_pod().await;
    for tool in ["nft", "iptables"] {
        scene.set_rules(tool, Rules::OfToday);
        scene.nothing_passes_where_nothing_is_forwarded(tool);
        scene.what_is_forwarded_is_left_alone(tool);
        scene.a_member_reaches_the_pod().await;
        scene.strangers_reach_the_pod_itself(tool).await;

        scene.set_rules(tool, Rules::OfOld);
        scene.the_sidecar_refuses_strangers(tool).await;
        scene.the_sidecar_refuses_members(tool).await;
        scene.a_member_reaches_the_pod().await;
        scene.strangers_reach_the_pod_itself(tool).await;
    }
    scene.a_secondary_address_is_the_pods_own().await;
    scene.an_outbound_listener_serves_its_own_host().await;
    scene.refusals_are_counted_and_logged().await;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    OfToday,
    /// They redirect what is not addressed to the pod, too.
    OfOld,
}

/// A pod, a stranger and two members of the mesh who use it as next hop to a victim.
struct Scene {
    mesh: Mesh,
    stranger: NetworkPlace,
    _victim: NetworkPlace,
    http: Stranger,
    opaque: Stranger,
}

impl Scene {
    async fn on(kind: Kind) -> Self {
        let mut mesh = Mesh::on(kind).await;
        let (stranger, victim) = (mesh.network.join("stranger"), mesh.network.join("victim"));
        // Who asks for the victim by mutual TLS would be let in by the pod, whose identity this claims. In one file, because
        // files are taken up in no order.
        mesh.write(
            "peerauthentication.yaml",
            &format!(
                "{PERMISSIVE}---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: victim}}\nspec:\n\
                 \x20 address: \"{}\"\n  serviceAccount: reviews\n  ports: {{http: {APP_PORT}, tcp: {OPAQUE_PORT}}}\n\
                 \x20 labels: {{app: victim, security.istio.io/tlsMode: istio}}\n",
                victim.address
            ),
        );
        let pod = server("pod", "reviews", "v1");
        let by_http1 = client("by-http1").flags(&["--carrier", "http1"]);
        mesh.add([pod, client("by-http2"), by_http1]).await;
        let next_hop = mesh.workload("pod").place.address;
        for place in [&stranger, &mesh.workload("by-http2").place, &mesh.workload("by-http1").place] {
            place.namespace.inside(keep_to_the_route);
            place.namespace.ip(&format!("route add {} via {next_hop}", victim.address));
        }
        let (http, opaque) =
            (Stranger::in_place(&victim, APP_PORT), Stranger::in_place(&victim, OPAQUE_PORT));
        let scene = Self { mesh, stranger, _victim: victim, http, opaque };
        poll(SOON, "the documents are in force", async || match scene.asked_by_stranger().await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(answer.summary()),
            Err(error) => Err(error.to_string()),
        })
        .await;
        scene
    }

    fn pod(&self) -> &Namespace {
        self.mesh.workload("pod").namespace()
    }

    fn set_rules(&self, tool: &str, rules: Rules) {
        self.pod().expect(Command::new(SELVEDGE_INIT).arg("--cleanup"));
        let mut command = Command::new(SELVEDGE_INIT);
        command.args(["--tool", tool]);
        if rules == Rules::OfToday {
            self.pod().expect(&mut command);
            self.pod().expect(Command::new(SELVEDGE_INIT).arg("--verify"));
            return;
        }
        let printed = self.pod().expect(command.arg("--print"));
        set_without_match(self.pod(), tool, &printed);
        let verified = self.pod().output(Command::new(SELVEDGE_INIT).arg("--verify"));
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        assert!(!verified.status.success() && said.contains("older selvedge-init"), "{tool}: {said}");
    }

    fn forward(&self, on: bool) {
        let switches = ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"];
        let value = if on { "1" } else { "0" };
        self.pod().inside(|| switches.map(|switch| fs::write(switch, value).unwrap()));
    }

    fn connect(&self, to: &Stranger, patience: Duration) -> std::io::Result<TcpStream> {
        self.stranger.namespace.inside(|| TcpStream::connect_timeout(&to.address, patience))
    }

    /// What the pod answers the stranger.
    async fn asked_by_stranger(&self) -> Result<call::Answer, call::CallError> {
        let pod = self.mesh.workload("pod").address();
        self.stranger.namespace.run(move || call::send(pod, call::to("reviews:9080", "/"))).await
    }

    fn nothing_passes_where_nothing_is_forwarded(&self, tool: &str) {
        self.forward(false);
        for victim in [&self.http, &self.opaque] {
            assert!(self.connect(victim, PATIENCE).is_err(), "{tool}: somebody took the connection");
        }
        self.assert_untouched(tool, 0);
    }

    /// As without rules, and with the stranger's own address.
    fn what_is_forwarded_is_left_alone(&self, tool: &str) {
        self.forward(true);
        let listener = self._victim.namespace.inside(|| TcpListener::bind(self.victims(7000))).unwrap();
        let sent = self.stranger.namespace.inside(|| TcpStream::connect_timeout(&self.victims(7000), SOON));
        sent.unwrap_or_else(|error| panic!("{tool}: {error}"));
        let (_, from) = listener.accept().unwrap();
        assert_eq!(from.ip(), self.stranger.address, "{tool}");
        self.forward(false);
    }

    fn victims(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self._victim.address, port)
    }

    /// Nothing of theirs is answered, and they are told by a reset.
    async fn the_sidecar_refuses_strangers(&self, tool: &str) {
        for victim in [&self.http, &self.opaque] {
            for said in [
                &b"GET / HTTP/1.1\r\nhost: victim\r\n\r\n"[..],
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"\0raw",
            ] {
                let error = self.connect(victim, SOON).and_then(|mut stream| {
                    stream.set_read_timeout(Some(SOON))?;
                    stream.write_all(said)?;
                    stream.read(&mut [0; 1])
                });
                let error = error.expect_err("nothing answers").kind();
                assert!(
                    matches!(error, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
                    "{tool}: {error}"
                );
            }
        }
        self.assert_untouched(tool, 0);
    }

    /// A certificate of the mesh is no ticket: not for HTTP by either carrier, nor for opaque TCP.
    async fn the_sidecar_refuses_members(&self, tool: &str) {
        for member in ["by-http2", "by-http1"] {
            let workload = self.mesh.workload(member);
            for version in [http::Version::HTTP_11, http::Version::HTTP_2] {
                let call = call::to("victim", "/").version(version);
                let answer = workload.call(self.http.address, call).await.unwrap();
                assert_eq!(answer.status, 503, "{tool}, {member}: {}", answer.summary());
            }
            let opaque = said_in(workload.namespace(), self.opaque.address).await;
            opaque.expect_err("an opaque connection is refused as well");
        }
        self.assert_untouched(tool, 0);
    }

    async fn a_member_reaches_the_pod(&self) {
        let pod = self.mesh.workload("pod").address();
        for member in ["by-http2", "by-http1"] {
            let workload = self.mesh.workload(member);
            poll(SOON, "the pod is called by a member", async || {
                let answer = workload.call(pod, call::to("reviews:9080", "/")).await;
                let answer = answer.map_err(|error| error.to_string())?;
                if answer.status == 200 { Ok(()) } else { Err(answer.summary()) }
            })
            .await;
        }
    }

    async fn strangers_reach_the_pod_itself(&self, tool: &str) {
        let answer = self.asked_by_stranger().await.unwrap();
        assert_eq!(answer.status, 200, "{tool}: {}", answer.summary());
    }

    /// The sidecar takes it in at the first address of the interface; it is the pod's all the same, also on `lo`.
    async fn a_secondary_address_is_the_pods_own(&self) {
        let (second, on_lo): (IpAddr, IpAddr) = match self.stranger.address {
            IpAddr::V4(_) => ("10.88.0.200".parse().unwrap(), "10.99.7.7".parse().unwrap()),
            IpAddr::V6(_) => ("fd88::200".parse().unwrap(), "fd99::77".parse().unwrap()),
        };
        let nodad = if second.is_ipv6() { " nodad" } else { "" };
        let length = if second.is_ipv6() { 64 } else { 24 };
        self.pod().ip(&format!("address add {second}/{length} dev eth0{nodad}"));
        self.pod().ip(&format!("address add {on_lo} dev lo{nodad}"));
        let via = self.mesh.workload("pod").place.address;
        self.stranger.namespace.ip(&format!("route add {on_lo} via {via}"));
        for ip in [second, on_lo] {
            let address = SocketAddr::new(ip, APP_PORT);
            let asked =
                self.stranger.namespace.run(move || call::send(address, call::to("reviews", "/"))).await;
            let answer = asked.unwrap();
            assert_eq!(answer.status, 200, "{ip}: {}", answer.summary());
        }
        self.pod().ip(&format!("address del {on_lo} dev lo"));
        let gone = self.stranger.namespace.run(move || async move {
            let mut stream = tokio::net::TcpStream::connect(SocketAddr::new(on_lo, APP_PORT)).await?;
            tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 1]).await
        });
        let error = gone.await.expect_err("an address that has gone is no longer the pod's");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }

    /// Rules that send what passes by to the outbound listener make it no way out for others.
    async fn an_outbound_listener_serves_its_own_host(&self) {
        self.pod().expect(Command::new(SELVEDGE_INIT).arg("--cleanup"));
        let family = if self.stranger.address.is_ipv6() { "ip6" } else { "ip" };
        let loopback = if family == "ip6" { "[::1]" } else { "127.0.0.1" };
        // What arrives for loopback from outside is let in only where that is switched on.
        self.pod().inside(|| {
            let _ = fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1");
        });
        self.pod().nft(&format!(
            "table {family} other {{ chain in {{ type nat hook prerouting priority -100; \
             tcp dport {{ {APP_PORT}, {OPAQUE_PORT} }} dnat to {loopback}:4140; }}; }}"
        ));
        for victim in [&self.http, &self.opaque] {
            let asked = self.connect(victim, PATIENCE).and_then(|mut stream| {
                stream.set_read_timeout(Some(SOON))?;
                stream.write_all(b"GET / HTTP/1.1\r\nhost: victim\r\n\r\n")?;
                stream.read(&mut [0; 1])
            });
            assert!(!matches!(asked, Ok(1..)), "somebody answered");
        }
        self.assert_untouched("the outbound listener", 0);
        self.pod().nft(&format!("delete table {family} other"));
    }

    async fn refusals_are_counted_and_logged(&self) {
        let admin = self.mesh.workload("pod").loopback(4191);
        let answer = self.mesh.workload("pod").call(admin, call::to("localhost", "/metrics")).await.unwrap();
        let counted = answer
            .text()
            .lines()
            .any(|line| line.starts_with("selvedge_inbound_connections") && line.contains("policy"));
        assert!(counted, "{}", answer.text());
        let log = self.mesh.sidecar_log("pod");
        let said = log.lines().find(|line| line.contains("relays nothing")).expect("a line of the log");
        assert!(said.contains(&self.stranger.address.to_string()), "{said}");
        assert!(said.contains(&self._victim.address.to_string()), "{said}");
    }

    fn assert_untouched(&self, tool: &str, times: usize) {
        assert_eq!(self.http.accepted() + self.opaque.accepted(), times, "{tool}: the victim was reached");
    }
}

/// Has a host go on sending by the way that its routes say: who forwards for it on one link tells it of a shorter one (ICMP
/// redirects), sooner or later.
fn keep_to_the_route() {
    for device in ["all", "eth0"] {
        for family in ["ipv4", "ipv6"] {
            // There may be no IPv6.
            let _ = fs::write(format!("/proc/sys/net/{family}/conf/{device}/accept_redirects"), "0");
        }
    }
}

const PERMISSIVE: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\n\
                          spec: {mtls: {mode: PERMISSIVE}}\n";

/// Sets `printed` rules without the line that leaves alone what is for others.
fn set_without_match(namespace: &Namespace, tool: &str, printed: &str) {
    let is_old = |line: &&str| !line.contains("fib daddr") && !line.contains("addrtype");
    let old: String = printed.lines().filter(is_old).map(|line| format!("{line}\n")).collect();
    assert!(old.lines().count() < printed.lines().count(), "{printed}");
    if tool == "nft" {
        return namespace.nft(&old);
    }
    for part in old.split("# ").filter(|part| !part.is_empty()) {
        let (program, rules) = part.split_once('\n').unwrap();
        let (program, arguments) = program.split_once(' ').unwrap();
        let mut command = Command::new(program);
        command.args(arguments.split(' ')).stdin(Stdio::piped());
        let mut child = namespace.inside(|| command.spawn().unwrap());
        child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{program}: {rules}");
    }
}
