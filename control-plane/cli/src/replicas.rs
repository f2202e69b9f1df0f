//! Asks control planes what they know, each at its admin port, which answers its own host alone: in a cluster through the API
//! server's `port-forward` into each replica, elsewhere on the control plane's own host, with `--admin`.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    net::SocketAddr,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use futures_util::{StreamExt, stream::FuturesUnordered};
use selvedge_control_plane::status::COMMAND;
use selvedge_kubernetes::Client;
use selvedge_ops::plain;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};

use crate::cluster::{self, ClusterArgs};

/// Where the control plane's pods answer people on the same host.
pub(crate) const ADMIN_PORT: u16 = 9990;
/// The longest answer of an admin port that is read: some 5,000 proxies.
pub(crate) const MAX_ANSWER: u64 = 64 << 20;
/// How long one replica may take, from the connection to the last byte of its answer.
pub(crate) const REPLICA_TIME: Duration = Duration::from_secs(30);
/// How long an admin port may take at most.
const ANSWER_TIME: Duration = Duration::from_secs(20);
/// How long the reason of a failed connection into a pod may take to come behind it.
const FAILURE_TIME: Duration = Duration::from_secs(1);

/// Which control plane is asked.
#[derive(Debug, clap::Args)]
pub(crate) struct PlaceArgs {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,

    /// The admin port of a control plane on this host, as IP:PORT, instead of those in a cluster
    #[arg(long, value_name = "IP:PORT", conflicts_with_all = ["kubeconfig", "context"])]
    pub(crate) admin: Option<SocketAddr>,
}

/// What replicas of a control plane have answered: at least one has.
#[derive(Debug)]
pub(crate) struct Answers<T> {
    /// By its pod, or by the address of its admin port.
    pub(crate) told: BTreeMap<String, T>,
    /// Those that do not answer, and why.
    pub(crate) unknown: BTreeMap<String, String>,
}

impl PlaceArgs {
    /// A way to the API server, not yet used. Who has no cluster is told of the other way.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        self.cluster
            .connect()
            .await
            .context("without --admin IP:PORT the control planes of a cluster are asked")
    }

    /// What each replica answers to `GET path` within `limit`.
    ///
    /// # Errors
    /// If none does.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        limit: Duration,
    ) -> anyhow::Result<Answers<T>> {
        if let Some(admin) = self.admin {
            let told = BTreeMap::from([(admin.to_string(), ask_admin(admin, path, limit).await?)]);
            return Ok(Answers { told, unknown: BTreeMap::new() });
        }
        let client = self.connect().await?;
        let namespace = &self.cluster.namespace;
        Answers::of(ask_replicas(&client, namespace, path, limit).await, namespace)
    }
}

impl<T> Answers<T> {
    /// Those of the replicas in `namespace`.
    ///
    /// # Errors
    /// If there is none, or none answers.
    pub(crate) fn of(answers: BTreeMap<String, Result<T, String>>, namespace: &str) -> anyhow::Result<Self> {
        let (mut told, mut unknown) = (BTreeMap::new(), BTreeMap::new());
        for (replica, answer) in answers {
            match answer {
                Ok(answer) => drop(told.insert(replica, answer)),
                Err(why) => drop(unknown.insert(replica, why)),
            }
        }
        match (told.is_empty(), unknown.values().next()) {
            (false, _) => Ok(Self { told, unknown }),
            (true, Some(why)) => Err(anyhow!("no replica of the control plane answers: {why}")),
            (true, None) => Err(none_runs(namespace)),
        }
    }
}

/// That there is nobody to ask.
pub(crate) fn none_runs(namespace: &str) -> anyhow::Error {
    anyhow!("no control plane runs in the namespace {namespace}: selvedge check says why")
}

/// What each running replica of the control plane answers to `GET path` within `limit`, by its pod. None if there is none that
/// can be named. All are asked at the same time.
pub(crate) async fn ask_replicas<T: DeserializeOwned>(
    client: &Client,
    namespace: &str,
    path: &str,
    limit: Duration,
) -> BTreeMap<String, Result<T, String>> {
    ask_replicas_soon(client, namespace, path, limit, |_| limit).await
}

/// The same, for who looks at a page: once one has answered, another has as much more time as `linger` says of its pod.
pub(crate) async fn ask_replicas_soon<T: DeserializeOwned>(
    client: &Client,
    namespace: &str,
    path: &str,
    limit: Duration,
    linger: impl Fn(&str) -> Duration,
) -> BTreeMap<String, Result<T, String>> {
    let pods = match cluster::control_plane_pods(client, namespace).await {
        Ok(pods) => pods,
        Err(error) => return BTreeMap::from([("?".to_owned(), Err(format!("{error:#}")))]),
    };
    let of = |pod: String| async move {
        let answer = match timeout(limit, ask_pod(client, namespace, &pod, path)).await {
            Ok(answer) => answer.map_err(|error| format!("{error:#}")),
            Err(_) => Err(TooLate(limit).to_string()),
        };
        (pod, answer)
    };
    let open = pods.iter().cloned().collect();
    gather(pods.into_iter().map(of).collect(), open, linger).await
}

/// What those `asked` answer, who are still `open`.
async fn gather<T>(
    mut asked: FuturesUnordered<impl Future<Output = (String, Result<T, String>)>>,
    mut open: BTreeSet<String>,
    linger: impl Fn(&str) -> Duration,
) -> BTreeMap<String, Result<T, String>> {
    let (mut answers, mut first) = (BTreeMap::new(), None::<Instant>);
    loop {
        let longest = open.iter().map(|pod| linger(pod)).max();
        let Some(longest) = longest else { return answers };
        let late = async {
            match first {
                Some(first) => sleep_until(first + longest).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = asked.next() => {
                let Some((pod, answer)) = answer else { return answers };
                if answer.is_ok() {
                    first.get_or_insert_with(Instant::now);
                }
                open.remove(&pod);
                answers.insert(pod, answer);
            }
            () = late => break,
        }
    }
    for pod in open {
        let why = format!("no answer within {:?} of another's", linger(&pod));
        answers.insert(pod, Err(why));
    }
    answers
}

async fn ask_pod<T: DeserializeOwned>(
    client: &Client,
    namespace: &str,
    pod: &str,
    path: &str,
) -> anyhow::Result<T> {
    let connection = client.forward(namespace, pod, ADMIN_PORT).await?;
    match ask(connection.stream, path).await {
        Ok(answer) => Ok(answer),
        // The kubelet may know better why nobody has answered.
        Err(error) => match timeout(FAILURE_TIME, connection.failure).await {
            Ok(Some(failure)) => bail!("{}", failure.trim()),
            _ => Err(error),
        },
    }
}

/// What the admin port at `admin` answers to `GET path`, if it does so in `limit`.
pub(crate) async fn ask_admin<T: DeserializeOwned>(
    admin: SocketAddr,
    path: &str,
    limit: Duration,
) -> anyhow::Result<T> {
    let answer = ask_at(admin, path, limit).await;
    answer.with_context(|| format!("the control plane's admin port {admin}"))
}

/// The same for who names the port in its own words.
pub(crate) async fn ask_at<T: DeserializeOwned>(
    admin: SocketAddr,
    path: &str,
    limit: Duration,
) -> anyhow::Result<T> {
    let limit = limit.min(ANSWER_TIME);
    let exchange = async { ask(TcpStream::connect(admin).await?, path).await };
    timeout(limit, exchange).await.unwrap_or_else(|_| Err(TooLate(limit).into()))
}

/// What an admin port at the other end of `stream` answers to `GET path`, with every text fit for a terminal.
async fn ask<T: DeserializeOwned>(stream: impl AsyncRead + AsyncWrite, path: &str) -> anyhow::Result<T> {
    let body = ask_text(stream, path).await?;
    let answer = serde_json::from_str(&body).map(all_plain).and_then(serde_json::from_value);
    answer.with_context(|| format!("{path} does not answer with the expected JSON"))
}

/// Who was asked has not answered in this time.
#[derive(Debug)]
pub(crate) struct TooLate(Duration);

impl std::fmt::Display for TooLate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no answer within {:?}", self.0)
    }
}

impl std::error::Error for TooLate {}

/// The same of an answer that is any text, as it is.
///
/// HTTP/1.0, so that the answer ends with the connection.
pub(crate) async fn ask_text(stream: impl AsyncRead + AsyncWrite, path: &str) -> anyhow::Result<String> {
    let mut stream = std::pin::pin!(stream);
    let mut answer = Vec::new();
    let exchange = async {
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n{COMMAND}: yes\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.take(MAX_ANSWER).read_to_end(&mut answer).await
    };
    timeout(ANSWER_TIME, exchange).await.map_err(|_| TooLate(ANSWER_TIME))??;
    if answer.len() as u64 >= MAX_ANSWER {
        bail!("{path}: the answer has {} MiB or more, which is not read", MAX_ANSWER >> 20);
    }
    if answer.is_empty() {
        bail!("{path}: the connection was closed before there was an answer");
    }
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    if !status.contains(" 200") {
        bail!("{path}: {}: {}", plain(status), plain(body.trim()));
    }
    Ok(body.to_owned())
}

/// The same with every text fit for a terminal: much of it is what proxies say of themselves.
fn all_plain(value: Value) -> Value {
    match value {
        Value::String(text) => plain(&text).into_owned().into(),
        Value::Array(items) => items.into_iter().map(all_plain).collect(),
        Value::Object(fields) => {
            let fields =
                fields.into_iter().map(|(name, value)| (plain(&name).into_owned(), all_plain(value)));
            fields.collect()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use tokio::{net::TcpListener, time::sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_is_waited_for_as_long_as_was_said_and_no_longer_than_twenty_seconds() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = silent.local_addr().unwrap();
        for (limit, words) in [(2, "no answer within 2s"), (3600, "no answer within 20s")] {
            let limit = Duration::from_secs(limit);
            let error = ask_admin::<Value>(admin, "/status", limit).await.unwrap_err();
            assert!(error.is::<TooLate>(), "{error:#}");
            assert_eq!(format!("{error:#}"), format!("the control plane's admin port {admin}: {words}"));
        }
    }

    #[tokio::test]
    async fn who_ends_before_it_answers_is_told_from_who_speaks_no_http() {
        let dying = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = dying.local_addr().unwrap();
        let end = async {
            let (mut stream, _) = dying.accept().await.unwrap();
            // What has not been read when a connection is closed resets it.
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(stream.read_u8().await.unwrap());
            }
        };

        let (answer, ()) = tokio::join!(ask_admin::<Value>(admin, "/status", REPLICA_TIME), end);

        let error = format!("{:#}", answer.unwrap_err());
        assert!(error.ends_with("/status: the connection was closed before there was an answer"), "{error}");
    }

    #[test]
    fn one_answer_is_enough_and_why_there_is_none_is_said() {
        let of = |answers: &[(&str, Result<u8, String>)]| {
            let answers = answers.iter().map(|(pod, answer)| ((*pod).to_owned(), answer.clone()));
            Answers::of(answers.collect(), "mesh").map_err(|error| error.to_string())
        };
        let gone = || Err("gone".to_owned());

        let some = of(&[("a", Ok(1)), ("b", gone())]).unwrap();
        assert_eq!((some.told["a"], &*some.unknown["b"]), (1, "gone"));
        assert_eq!(of(&[("a", gone())]).unwrap_err(), "no replica of the control plane answers: gone");
        let none = of(&[]).unwrap_err();
        assert_eq!(none, "no control plane runs in the namespace mesh: selvedge check says why");
    }

    #[tokio::test]
    async fn who_has_the_answer_of_one_replica_does_not_wait_for_a_silent_one_as_long_as_for_the_first() {
        async fn of(pod: &str, after: Option<Duration>) -> (String, Result<u32, String>) {
            match after {
                Some(after) => sleep(after).await,
                None => pending().await,
            }
            (pod.to_owned(), Ok(1))
        }
        let pods = ["a", "b", "hung"];
        let asked = [Some(Duration::from_millis(50)), Some(Duration::from_millis(60)), None];
        let asked = pods.into_iter().zip(asked).map(|(pod, after)| of(pod, after)).collect();
        let open = pods.map(str::to_owned).into();
        let linger = |pod: &str| Duration::from_millis(if pod == "hung" { 100 } else { 60_000 });

        let answers = timeout(Duration::from_secs(30), gather(asked, open, linger)).await;

        let answers = answers.expect("nobody waits for the silent one");
        assert_eq!((&answers["a"], &answers["b"]), (&Ok(1), &Ok(1)));
        assert!(answers["hung"].as_ref().is_err_and(|why| why.starts_with("no answer within 100ms")));
    }
}
