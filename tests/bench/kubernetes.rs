//! How the control plane does with a large cluster: a real API server with thousands of pods, and one sidecar.
//!
//! The pods are objects alone; nobody runs them. Of the control plane's time, what the API server takes is part.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use selvedge_demo::{
    call,
    processes::{Process, Processes},
};
use selvedge_tests::{
    kubernetes::{AUDIENCE, Api, ApiServer, Assets, kinds},
    needs::Need,
};
use serde_json::{Value, json};

/// How many requests to the API server are under way at once while the cluster is filled.
const AT_ONCE: usize = 16;

/// How long the control plane, or a change, may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Between two questions to the sidecar: how exact the time of a change is.
const GLANCE: Duration = Duration::from_millis(2);

/// A large cluster: time to the first snapshot, memory, and time from a change to a sidecar.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// The binary `selvedge`; by default the one beside this.
    #[arg(long)]
    selvedge: Option<PathBuf>,
    /// Pods, spread evenly over the services.
    #[arg(long, default_value_t = 5000)]
    pods: usize,
    /// Services, each with one EndpointSlice.
    #[arg(long, default_value_t = 500)]
    services: usize,
    /// Changes of one endpoint whose way to the sidecar is timed.
    #[arg(long, default_value_t = 50)]
    changes: usize,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(args.services > 0 && args.pods >= args.services, "every service needs a pod");
    ensure!(args.changes > 0, "at least one change is needed");
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(args))
}

async fn measure(args: &Args) -> anyhow::Result<()> {
    let assets =
        Assets::found().with_context(|| format!("no API server to measure: {}", Need::ApiServer.remedy()))?;
    let server = ApiServer::start(assets).await;
    for kinds in [kinds::CORE, kinds::GATEWAY, kinds::ISTIO] {
        server.serve(kinds).await;
    }
    server.namespace("selvedge", json!({})).await;
    server.namespace("bench", json!({})).await;
    let logs = server.directory().join("selvedge-logs");
    fs::create_dir(&logs)?;
    let beside = std::env::current_exe()?.with_file_name("selvedge");
    let (processes, _exits) = Processes::new(args.selvedge.as_deref().unwrap_or(&beside), &logs);

    let empty = Running::start(&processes, &server, "empty").await?;
    let (empty_time, empty_memory) = (empty.ready_after, resident(empty.process.pid())?);
    drop(empty);
    eprintln!("filling the cluster: {} pods, {} services", args.pods, args.services);
    fill(server.api(), args).await?;
    let full = Running::start(&processes, &server, "full").await?;
    let memory = resident(full.process.pid())?;
    let sidecar = Sidecar::start(&processes, &server, &full).await?;
    let mut times = Vec::new();
    for change in 0..args.changes {
        times.push(one_change(server.api(), &sidecar, change).await?);
    }
    times.sort_unstable();

    let per_pod = memory.saturating_sub(empty_memory) as f64 / args.pods as f64;
    println!("pods, services                   {}, {}", args.pods, args.services);
    println!("start to ready, empty cluster    {} ms", empty_time.as_millis());
    println!("start to ready, full cluster     {} ms", full.ready_after.as_millis());
    println!("memory, empty cluster            {:.1} MiB", empty_memory as f64 / 1024.0);
    println!("memory, full cluster             {:.1} MiB", memory as f64 / 1024.0);
    println!("memory with one sidecar, peak    {:.1} MiB", peak(full.process.pid())? as f64 / 1024.0);
    println!("memory for each pod              {per_pod:.2} KiB, its share of services included");
    println!(
        "endpoint change to sidecar       median {} ms, slowest of {} {} ms",
        times[times.len() / 2].as_millis(),
        times.len(),
        times[times.len() - 1].as_millis()
    );
    Ok(())
}

/// A control plane, and how long it took until it was ready: everything read, compiled and published.
struct Running {
    process: Process,
    grpc: std::net::SocketAddr,
    ready_after: Duration,
}

impl Running {
    async fn start(processes: &Processes, server: &ApiServer, name: &str) -> anyhow::Result<Self> {
        let start = Instant::now();
        let process = processes.start(
            name,
            [
                "control-plane",
                "--exit-on-stdin-close",
                "--source=kubernetes",
                &format!("--kubeconfig={}", server.admin_kubeconfig().display()),
                &format!("--data-dir={}", server.directory().join(name).display()),
                &format!("--pod-name={name}"),
                "--listen=127.0.0.1:0",
                "--admin=127.0.0.1:0",
                "--webhook-listen=127.0.0.1:0",
            ],
        )?;
        let grpc = process.listener("grpc", LIMIT).await?;
        let admin = process.listener("admin", LIMIT).await?;
        let ready = async || {
            let answer = call::send(admin, call::to(&admin.to_string(), "/ready")).await;
            answer.is_ok_and(|answer| answer.status == 200).then_some(())
        };
        glance_until("the control plane is ready", ready).await?;
        Ok(Self { process, grpc, ready_after: start.elapsed() })
    }
}

/// A sidecar that knows one service.
struct Sidecar {
    _process: Process,
    admin: std::net::SocketAddr,
}

impl Sidecar {
    async fn start(processes: &Processes, server: &ApiServer, of: &Running) -> anyhow::Result<Self> {
        let pod = server.api().get(&format!("{}/pod-0", collection("pods"))).await?;
        let token = server.api().token("bench", "default", Some(AUDIENCE), Some(&pod)).await?;
        let file = server.directory().join("token");
        fs::write(&file, token)?;
        let roots = "/api/v1/namespaces/selvedge/configmaps/selvedge-trust-roots";
        let roots =
            server.api().get(roots).await?["data"]["root-sha256"].as_str().unwrap_or_default().to_owned();
        let process = processes.start(
            "sidecar",
            [
                "proxy",
                "--exit-on-stdin-close",
                "--workload=bench/pod-0",
                &format!("--control-plane={}", of.grpc),
                &format!("--token-file={}", file.display()),
                &format!("--trust-roots={roots}"),
                "--app=127.0.0.1:1",
                "--outbound=127.0.0.1:0",
                "--inbound=127.0.0.1:0",
                "--admin=127.0.0.1:0",
            ],
        )?;
        let outbound = process.listener("outbound", LIMIT).await?;
        let admin = process.listener("admin", LIMIT).await?;
        let sidecar = Self { _process: process, admin };
        // A request makes it ask for the service; nobody answers it.
        let asked = async || {
            let _ = call::send(outbound, call::to("service-1:80", "/")).await;
            sidecar
                .endpoints()
                .await
                .is_some_and(|endpoints| endpoints.contains(&address(1).to_string()))
                .then_some(())
        };
        glance_until("the sidecar knows the service", asked).await?;
        Ok(sidecar)
    }

    async fn endpoints(&self) -> Option<String> {
        let answer = call::send(self.admin, call::to(&self.admin.to_string(), "/endpoints")).await.ok()?;
        Some(answer.text())
    }
}

/// How long it takes from the change of one endpoint, before it is sent, until the sidecar has it.
async fn one_change(api: &Api, sidecar: &Sidecar, change: usize) -> anyhow::Result<Duration> {
    // No pod has this address.
    let new = Ipv4Addr::new(10, 250, (change / 250) as u8, (change % 250 + 1) as u8);
    let mut slice = slice(1, &[address(1)]);
    let more = slice["endpoints"].as_array_mut().context("a slice has endpoints")?;
    more.push(json!({"addresses": [new], "conditions": {"ready": true}}));
    let start = Instant::now();
    api.merge(&format!("{}/service-1", collection("endpointslices")), &slice).await?;
    let has = async || sidecar.endpoints().await?.contains(&new.to_string()).then_some(());
    glance_until("the sidecar has the change", has).await?;
    Ok(start.elapsed())
}

async fn glance_until(what: &str, mut look: impl AsyncFnMut() -> Option<()>) -> anyhow::Result<()> {
    let deadline = Instant::now() + LIMIT;
    while look().await.is_none() {
        ensure!(Instant::now() < deadline, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(GLANCE).await;
    }
    Ok(())
}

fn collection(plural: &str) -> String {
    match plural {
        "endpointslices" => format!("/apis/discovery.k8s.io/v1/namespaces/bench/{plural}"),
        _ => format!("/api/v1/namespaces/bench/{plural}"),
    }
}

/// The address of a pod.
fn address(pod: usize) -> Ipv4Addr {
    let [a, b] = u16::try_from(pod).unwrap_or(u16::MAX).to_be_bytes();
    Ipv4Addr::new(10, 128, a, b)
}

fn slice(service: usize, addresses: &[Ipv4Addr]) -> Value {
    let endpoint = |address: &Ipv4Addr| json!({"addresses": [address], "conditions": {"ready": true}});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("service-{service}"),
            "labels": {"kubernetes.io/service-name": format!("service-{service}")},
        },
        "addressType": "IPv4",
        "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    })
}

async fn fill(api: &Api, args: &Args) -> anyhow::Result<()> {
    let pods = (0..args.pods).map(|pod| one_pod(api, pod, args.services));
    stream::iter(pods).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    let services = (0..args.services).map(|service| one_service(api, service, args));
    stream::iter(services).buffer_unordered(AT_ONCE).try_collect::<()>().await
}

async fn one_pod(api: &Api, pod: usize, services: usize) -> anyhow::Result<()> {
    let name = format!("pod-{pod}");
    let labels = json!({
        "app": format!("service-{}", pod % services),
        "version": "v1",
        "pod-template-hash": "5d4f8c7b9",
        "selvedge.io/sidecar": "injected",
    });
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "app", "image": "registry.example/app:1.0", "ports": [{"name": "http", "containerPort": 8080}]}, {"name": "selvedge-proxy", "image": "registry.example/selvedge:1.0"}]},
    });
    api.create(&collection("pods"), &object).await?;
    let address = address(pod);
    let status = json!({"status": {
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    api.merge(&format!("{}/{name}/status", collection("pods")), &status).await?;
    Ok(())
}

async fn one_service(api: &Api, service: usize, args: &Args) -> anyhow::Result<()> {
    let name = format!("service-{service}");
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name},
        // Called by its name: the sidecar here is told of connections by requests alone.
        "spec": {"clusterIP": "None", "selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    });
    api.create(&collection("services"), &object).await?;
    let addresses: Vec<Ipv4Addr> = (service..args.pods).step_by(args.services).map(address).collect();
    api.create(&collection("endpointslices"), &slice(service, &addresses)).await?;
    Ok(())
}

/// KiB that are in memory now.
fn resident(pid: u32) -> anyhow::Result<u64> {
    of_status(pid, "VmRSS:")
}

/// KiB that were in memory at most.
fn peak(pid: u32) -> anyhow::Result<u64> {
    of_status(pid, "VmHWM:")
}

fn of_status(pid: u32, field: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context("Linux tells it")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
