//! `selvedge tap`: live requests, as sidecars show them while it runs.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use selvedge_certs::facts::Utc;
use selvedge_control_plane::status::{TapAnswer, TapSeen};
use selvedge_model::{
    SpiffeId, WorkloadName,
    tap::{Sample, Wanted},
    traffic::Way,
};
use selvedge_ops::plain;
use selvedge_proxy::error::Reason;
use tokio::time::Instant;

use super::{again::Answering, ask::LIVE_TIME, encoded, known::near};
use crate::{
    cluster,
    output::OutputArgs,
    patience::patiently_after,
    replicas::{Answers, PlaceArgs, TooLate},
};

/// A control plane that has nothing to show answers after a little more than a second.
const REST: Duration = Duration::from_secs(2);

/// Show live requests: path, status, time, identities, the chosen endpoint and attempts, as they come to their end
///
/// Sidecars show requests only while this runs, each 100 in a second at most; how many more were meant is said. It never slows
/// requests: what cannot be shown in time is lost, and counted. Values of header fields and the query are left out unless you
/// ask for them.
///
/// With -o json each line is one JSON object.
///
/// If the control plane goes away, as when it restarts, that is said on standard error, and requests are shown again when it is back.
/// With --max and without --for it is waited for 45 seconds at most.
///
/// Exit status: 0 after --max requests or the time of --for; 2 if the control plane does not answer when it is asked first, for 45
/// seconds with --max alone, or when the time of --for is over; 130 by Ctrl-C.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only what this workload sends and gets, or all workloads of a namespace; default: of all
    #[arg(value_name = "NAMESPACE/NAME|NAMESPACE/*", value_parser = workload)]
    workload: Option<String>,

    #[command(flatten)]
    place: PlaceArgs,

    #[command(flatten)]
    filter: FilterArgs,

    /// End after so many requests; --for says how long to wait for them at most
    #[arg(long, value_name = "NUMBER")]
    max: Option<u64>,

    /// End after this time
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,

    #[command(flatten)]
    output: OutputArgs,
}

/// Which requests, and what of them.
#[derive(Debug, Clone, clap::Args)]
struct FilterArgs {
    /// Only what the workload's app sends, or only what comes to it
    #[arg(long, value_enum, value_name = "WAY")]
    way: Option<WayArg>,

    /// Only this method
    #[arg(short = 'X', long, value_name = "METHOD")]
    method: Option<String>,

    /// Only authorities that begin with this
    #[arg(long, value_name = "TEXT")]
    authority: Option<String>,

    /// Only paths that begin with this
    #[arg(long, value_name = "TEXT")]
    path: Option<String>,

    /// Only this status, such as 503, or these, such as 500-599 or 5xx
    #[arg(long, value_name = "STATUS", value_parser = statuses)]
    status: Option<(u16, u16)>,

    /// Only those for which a proxy has given this reason, such as no-endpoint: a word of proxy/errors.md
    #[arg(long, value_name = "WORD", value_parser = reason)]
    reason: Option<String>,

    /// Only those that took this long, at least
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    slower: Option<Duration>,

    /// Only those of clients that have proven to be this
    #[arg(long, value_name = "SPIFFE ID")]
    client: Option<SpiffeId>,

    /// Show header fields, with their values redacted
    #[arg(long)]
    headers: bool,

    /// Show the value of this header field; may be given several times
    #[arg(long, value_name = "NAME")]
    reveal: Vec<String>,

    /// Show queries
    #[arg(long)]
    query: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum WayArg {
    Outbound,
    Inbound,
}

/// The control plane checks it too; this says it with the word that is wrong.
fn workload(text: &str) -> Result<String, String> {
    let (namespace, name) =
        text.split_once('/').ok_or_else(|| "it is NAMESPACE/NAME or NAMESPACE/*".to_owned())?;
    let name = if name == "*" { "any" } else { name };
    WorkloadName::new(namespace, name).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// What no proxy says would be waited for in vain.
fn reason(text: &str) -> Result<String, String> {
    if Reason::from_word(text).is_some() {
        return Ok(text.to_owned());
    }
    let words = || Reason::ALL.into_iter().map(Reason::word);
    let near = near(text, words());
    Err(match near.is_empty() {
        false => format!("no proxy gives this reason; near: {}", near.join(", ")),
        true => format!("no proxy gives this reason; there are: {}", words().collect::<Vec<_>>().join(", ")),
    })
}

fn statuses(text: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("{text:?} is not a status, such as 503, 500-599 or 5xx");
    let status = |text: &str| text.parse::<u16>().ok().filter(|status| *status < 1000).ok_or_else(wrong);
    match (text.strip_suffix("xx"), text.split_once('-')) {
        (Some(hundred), _) => {
            let hundred = status(hundred)?.checked_mul(100).filter(|from| *from < 1000).ok_or_else(wrong)?;
            Ok((hundred, hundred + 99))
        }
        (None, Some((from, to))) => Ok((status(from)?, status(to)?)),
        (None, None) => status(text).map(|status| (status, status)),
    }
}

impl FilterArgs {
    fn wanted(&self) -> Wanted {
        let reveal = self.reveal.iter().map(|name| name.to_ascii_lowercase()).collect::<Vec<_>>().join(",");
        Wanted {
            way: self.way.map(|way| match way {
                WayArg::Outbound => Way::Outbound,
                WayArg::Inbound => Way::Inbound,
            }),
            method: self.method.clone(),
            authority: self.authority.clone(),
            path: self.path.clone(),
            status_from: self.status.map(|(from, _)| from),
            status_to: self.status.map(|(_, to)| to),
            reason: self.reason.clone(),
            slower_ms: self.slower.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            client: self.client.clone(),
            headers: self.headers || !reveal.is_empty(),
            reveal: (!reveal.is_empty()).then_some(reveal),
            query: self.query,
        }
    }
}

/// Prints requests as they come.
///
/// # Errors
/// If they cannot be written.
#[allow(clippy::needless_pass_by_value)] // the shape of every subcommand
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match cluster::runtime()?.block_on(watch(&args)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if crate::is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("selvedge: {error:#}");
            Ok(ExitCode::from(2))
        }
    }
}

async fn watch(args: &Args) -> anyhow::Result<()> {
    let wanted = serde_json::to_string(&args.filter.wanted())?;
    let of = args.workload.as_deref().map(|of| format!("&of={}", encoded(of))).unwrap_or_default();
    let session = format!("{:016x}", fastrand::u64(..));
    let path = format!("/tap?session={session}&wanted={}{of}", encoded(&wanted));
    let deadline = args.duration.map(|duration| Instant::now() + duration);
    let shown = show(args, &path, deadline).await;
    if shown.as_ref().is_err_and(|error| error.is::<TooLate>()) {
        return shown;
    }
    // The place is free at once for others. If this fails, it is in a few seconds.
    let _ = args.place.ask::<TapAnswer>(&format!("{path}&over=true"), LIVE_TIME).await;
    shown
}

/// How long a replica may take: no longer than is left, but for what each takes that has nothing to show.
fn limit(deadline: Option<Instant>) -> Duration {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    left.map_or(LIVE_TIME, |left| LIVE_TIME.min(left.max(REST)))
}

/// Until there were enough, or the time is over.
async fn show(args: &Args, path: &str, deadline: Option<Instant>) -> anyhow::Result<()> {
    let (mut shown, mut is_first, mut unknown) = (0, true, BTreeMap::new());
    let mut missing = NotShown { limited: 0, lost: 0, told_at: Instant::now() };
    let mut answering = Answering::new(args.max.is_some() && deadline.is_none());
    loop {
        let asked = args.place.ask::<TapAnswer>(path, limit(deadline));
        let answer = patiently_after(REST, asked).await;
        let Some(Answers { told, unknown: silent }) = answering.heard(answer, deadline).await? else {
            continue;
        };
        let answers: Vec<TapAnswer> = told.into_values().collect();
        if is_first {
            let proxies: usize = answers.iter().map(|answer| answer.proxies).sum();
            eprintln!("{}; Ctrl-C ends it", asked_of(proxies, args.workload.as_deref()));
        } else if answers.iter().any(|answer| answer.is_first) {
            eprintln!("some requests may be lost: this end, or the control plane, was away for too long");
        }
        is_first = false;
        for (replica, why) in silent.iter().filter(|(replica, _)| !unknown.contains_key(*replica)) {
            eprintln!("replica {replica} does not answer: {why}");
        }
        unknown = silent;
        missing.add(&answers);
        missing.tell_if_due();
        for answer in &answers {
            for seen in &answer.samples {
                let line = if args.output.is_json() { serde_json::to_string(seen)? } else { line(seen) };
                writeln!(io::stdout().lock(), "{line}")?;
                shown += 1;
                if args.max.is_some_and(|max| shown >= max) {
                    missing.tell();
                    return Ok(());
                }
            }
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            missing.tell();
            return Ok(());
        }
    }
}

/// Of whom requests are shown: nobody shall wait for those of a name that is wrong.
fn asked_of(proxies: usize, wanted: Option<&str>) -> String {
    match (proxies, wanted) {
        (0, Some(wanted)) => format!(
            "no connected proxy is that of {wanted}; one that connects is shown: compare the name with selvedge status --all"
        ),
        (0, None) => "no proxy is connected that can show requests; one that connects is shown".to_owned(),
        (1, _) => "showing requests of 1 connected proxy".to_owned(),
        (more, _) => format!("showing requests of {more} connected proxies"),
    }
}

/// Requests that were meant and are not shown. People are told once a second: answers come more often.
struct NotShown {
    limited: u64,
    lost: u64,
    told_at: Instant,
}

impl NotShown {
    fn add(&mut self, answers: &[TapAnswer]) {
        for answer in answers {
            self.limited = self.limited.saturating_add(answer.limited);
            self.lost = self.lost.saturating_add(answer.lost);
        }
    }

    fn tell_if_due(&mut self) {
        if self.told_at.elapsed() >= Duration::from_secs(1) {
            self.tell();
        }
    }

    fn tell(&mut self) {
        let Self { limited, lost, .. } = *self;
        if limited > 0 {
            eprintln!("{limited} more requests were meant: a sidecar shows 100 in a second");
        }
        if lost > 0 {
            eprintln!("{lost} requests are lost, because this end was too slow");
        }
        *self = Self { limited: 0, lost: 0, told_at: Instant::now() };
    }
}

/// When it was, to the millisecond: what follows what is often within one second.
fn moment(at_ms: u64) -> String {
    let at = std::time::UNIX_EPOCH.checked_add(Duration::from_millis(at_ms));
    let at = at.map(|at| Utc(at).to_string()).unwrap_or_default();
    match at.strip_suffix('Z') {
        Some(second) => format!("{second}.{:03}Z", at_ms % 1_000),
        None => at,
    }
}

/// One request, for people.
fn line(TapSeen { by, sample }: &TapSeen) -> String {
    let Sample { method, authority, path, .. } = sample;
    let at = moment(sample.at_ms);
    let query = sample.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let arrow = if sample.way == Way::Outbound { "→" } else { "←" };
    let status = sample.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
    let mut line = format!("{at} {by} {arrow} {method} {authority}{path}{query} {status}");
    let mut add =
        |text: std::fmt::Arguments<'_>| line.write_fmt(text).expect("writing to a String cannot fail");
    if let Some(status) = sample.grpc_status {
        add(format_args!(" grpc-status {status}"));
    }
    if let Some(reason) = &sample.reason {
        add(format_args!(" {reason}"));
    }
    add(format_args!(" {:.1} ms", sample.micros as f64 / 1_000.0));
    if sample.way == Way::Inbound {
        match &sample.client_identity {
            Some(client) => add(format_args!(" from {client}")),
            None => add(format_args!(" from {} in plaintext", sample.client_address)),
        }
    }
    if let Some(endpoint) = &sample.endpoint {
        add(format_args!(" at {endpoint}"));
        if let Some(workload) = &sample.endpoint_workload {
            add(format_args!(" {workload}"));
        }
        match &sample.endpoint_identity {
            Some(identity) => add(format_args!(" {identity}")),
            None => add(format_args!(" in plaintext")),
        }
    }
    if sample.attempts > 1 {
        add(format_args!(" {} attempts", sample.attempts));
    }
    if let Some(route) = &sample.route {
        add(format_args!(" by {route}"));
    }
    let mut line = plain(&line).into_owned();
    for (name, value) in &sample.headers {
        write!(line, "\n    {}: {}", plain(name), plain(value)).expect("writing to a String cannot fail");
    }
    line
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tokio::net::TcpListener;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[tokio::test(start_paused = true)]
    async fn a_control_plane_that_does_not_answer_is_not_waited_for_longer_than_was_asked() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = silent.local_addr().unwrap().to_string();
        for (words, seconds) in [(&["--for", "2s"][..], 2), (&["--for", "1h"], 4), (&[], 4)] {
            let line = [&["tap", "--admin", &admin], words].concat();
            let began = Instant::now();
            let error = watch(&Line::parse_from(line).args).await.unwrap_err();
            assert!(format!("{error:#}").contains("no answer within"), "{error:#}");
            assert_eq!(began.elapsed().as_secs(), seconds, "{words:?}");
        }
    }

    #[test]
    fn the_guide_names_all_that_is_said_of_a_request() {
        let sample = Sample {
            at_ms: 1,
            way: Way::Outbound,
            method: "GET".to_owned(),
            authority: "a".to_owned(),
            path: "/".to_owned(),
            query: Some("b".to_owned()),
            status: Some(503),
            grpc_status: Some(14),
            reason: Some("no-endpoint".into()),
            micros: 1,
            client_address: "10.0.0.1:1".to_owned(),
            client_identity: Some("spiffe://td/ns/a/sa/b".parse().unwrap()),
            route: Some("c".to_owned()),
            endpoint: Some("10.0.0.2:80".to_owned()),
            endpoint_workload: Some("a/d".parse().unwrap()),
            endpoint_identity: Some("spiffe://td/ns/a/sa/d".parse().unwrap()),
            attempts: 2,
            headers: vec![("e".to_owned(), "f".to_owned())],
        };
        crate::documented::is_documented("tap", &TapSeen { by: "a/b".parse().unwrap(), sample });
    }

    #[test]
    fn a_request_is_shown_with_its_millisecond() {
        assert_eq!(moment(1_796_046_046_064), "2026-11-30T13:40:46.064Z");
        assert_eq!(moment(1_796_046_046_000), "2026-11-30T13:40:46.000Z");
    }

    #[test]
    fn who_asks_for_a_name_that_is_wrong_is_told_so() {
        assert!(asked_of(0, Some("shop/crat")).starts_with("no connected proxy is that of shop/crat; "));
        assert_eq!(asked_of(1, Some("shop/cart")), "showing requests of 1 connected proxy");
        assert_eq!(asked_of(7, None), "showing requests of 7 connected proxies");
    }

    #[test]
    fn a_reason_that_no_proxy_gives_is_refused_with_those_that_are_like_it() {
        let asked = |word: &str| {
            let line = Line::try_parse_from(["tap", "--admin", "127.0.0.1:1", "--reason", word]);
            line.map(|line| line.args.filter.reason).map_err(|error| (error.exit_code(), error.to_string()))
        };

        assert_eq!(asked("no-endpoint"), Ok(Some("no-endpoint".to_owned())));
        let (status, said) = asked("no-endpoints").unwrap_err();
        assert!(status == 2 && said.contains("no proxy gives this reason; near: no-endpoint"), "{said}");
        let (_, said) = asked("zzz").unwrap_err();
        assert!(said.contains("there are: bad-request, ") && said.contains(", token"), "{said}");
    }

    #[test]
    fn statuses_are_given_as_one_or_several() {
        assert_eq!(
            ["503", "500-599", "4xx"].map(|text| statuses(text).unwrap()),
            [(503, 503), (500, 599), (400, 499)]
        );
        for text in ["", "a", "5000", "xx", "5-", "99xx"] {
            assert!(statuses(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_workload_is_named_with_its_namespace() {
        assert!(["shop/a", "shop/*"].iter().all(|text| workload(text).is_ok()));
        assert!(["a", "", "shop/", "a b/c", "*/a", "a/b/c"].iter().all(|text| workload(text).is_err()));
    }

    #[test]
    fn what_is_asked_for_survives_a_query() {
        assert_eq!(encoded(r#"{"a":"b c&ü"}"#), "%7B%22a%22%3A%22b%20c%26%C3%BC%22%7D");
    }
}
