//! The text of `/metrics`: which families there are, in their order.

use std::{fmt, sync::atomic::Ordering};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

use selvedge_ops::build;

use super::{
    super::{
        compat, connections, durations,
        events::{self, Decision, Of},
        page::Page,
        registered::lock,
        series,
        tcp::{self, Kind},
    },
    Metrics, MetricsCompat, since_1970,
};
use crate::arrival::Direction;

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let series = self.requests.all();
        for direction in Direction::ALL {
            let word = direction.word();
            let overflow = &self.overflow[direction as usize];
            let series = series.iter().filter(|series| series.is_of(direction)).chain([overflow]);
            series::encode(&mut encoder, word, "Finished requests, by how they ended.", series)?;
            let help = "Requests in progress.";
            encoder
                .encode_descriptor(
                    &format!("selvedge_{word}_requests_in_progress"),
                    help,
                    None,
                    MetricType::Gauge,
                )?
                .encode_gauge(&self.in_progress[direction as usize].count())?;
            connections::encode(&mut encoder, word, &self.connections[direction as usize])?;
            tcp::encode(&mut encoder, Kind::Tcp, direction, &self.tcp.of(direction))?;
            tcp::encode(&mut encoder, Kind::WebSocket, direction, &self.websockets.of(direction))?;
        }
        self.mirrored.encode(&mut encoder)?;
        self.encode_rare(&mut encoder)?;
        self.encode_budget(&mut encoder)?;
        self.encode_concurrency(&mut encoder)?;
        self.encode_room(&mut encoder)?;
        self.encode_watched(&mut encoder)?;
        self.encode_state(&mut encoder)
    }
}

impl Metrics {
    /// Adds what prometheus-client's encoder does not write.
    pub(super) fn write(&self, page: &mut Page) {
        let durations = self.requests.durations();
        let help = "Time from the first byte of a request to the last byte of its answer";
        for direction in Direction::ALL {
            let overflow = self.overflow[direction as usize].durations();
            let durations = durations.iter().filter(|durations| durations.is_of(direction));
            durations::write(page, direction.word(), help, durations.chain([overflow]));
        }
        self.mirrored.write(page);
        match self.compat {
            MetricsCompat::Istio => {
                let series = self.requests.all();
                compat::write(page, &self.ends.own(), &self.told.get(), &series, &self.tcp.told_apart());
            }
            MetricsCompat::None => {}
        }
    }

    /// What of labels there is, of each family that has a cap.
    fn encode_room(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let families = [
            ("requests", self.requests.room()),
            ("mirrored_requests", self.mirrored.room()),
            ("tcp", self.tcp.room()),
            ("websocket", self.websockets.room()),
            ("retries", self.retries.room()),
            ("hedges", self.hedges.room()),
            ("retry_budget_exhausted", self.budget_exhausted.room()),
            ("endpoint_ejections", self.ejections.room()),
            ("overflows", self.overflows.room()),
            ("inbound_policy_decisions", self.policy_decisions.room()),
            ("outbound_policy_decisions", self.egress_denied.room()),
        ];
        let help = "Sets of labels that are told apart, by family; 10000 at most.";
        let mut metric = encoder.encode_descriptor("selvedge_series", help, None, MetricType::Gauge)?;
        for (family, (count, _)) in families {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            metric.encode_family(&[("family", family)])?.encode_gauge(&count)?;
        }
        let help = "Times that there was no room for a set of labels, so that what it counts is counted together (overflow).";
        let mut metric =
            encoder.encode_descriptor("selvedge_series_folded", help, None, MetricType::Counter)?;
        for (family, (_, folded)) in families {
            metric
                .encode_family(&[("family", family)])?
                .encode_counter::<NoLabelSet, _, f64>(&folded, None)?;
        }
        Ok(())
    }

    fn encode_rare(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let name = "selvedge_inbound_policy_decisions";
        let help = "What policies decided: requests and connections that they deny, what an audit or a dry run notes, and what a server was asked and did not answer.";
        let of = |(rule, decision)| Of::Policy(rule, decision);
        events::encode(encoder, name, help, self.policy_decisions.totals(), of)?;
        let name = "selvedge_outbound_policy_decisions";
        let help = "What network policies decided of calls of the workload: requests and connections that they deny.";
        let denied = |rule| Of::Policy(rule, Decision::Deny);
        events::encode(encoder, name, help, self.egress_denied.totals(), denied)?;
        let name = "selvedge_outbound_retries";
        events::encode(
            encoder,
            name,
            "Retries: attempts after the first of a request.",
            self.retries.totals(),
            Of::Service,
        )?;
        let name = "selvedge_outbound_hedges";
        let help = "Requests sent to a second endpoint because the first had not answered yet.";
        events::encode(encoder, name, help, self.hedges.totals(), Of::Service)?;
        let name = "selvedge_retry_budget_exhausted";
        let help = "Retries that were not made because the retry budget of the service was exhausted.";
        events::encode(encoder, name, help, self.budget_exhausted.totals(), Of::Service)?;
        let name = "selvedge_outbound_endpoint_ejections";
        let help = "Endpoints ejected because they kept failing.";
        events::encode(encoder, name, help, self.ejections.totals(), Of::Backend)?;
        let name = "selvedge_outbound_overflows";
        let help = "Requests, retries and opaque connections refused because a limit of the backend's connectionPool was reached.";
        let of = |(backend, limit)| Of::Limit(backend, limit);
        events::encode(encoder, name, help, self.overflows.totals(), of)
    }

    fn encode_budget(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(budget) = self.budget.get() else { return Ok(()) };
        let help = "Bytes that have arrived and were not read yet, and bytes that are kept for a retry.";
        encoder
            .encode_descriptor("selvedge_buffered", help, Some(&Unit::Bytes), MetricType::Gauge)?
            .encode_gauge(&budget.held())?;
        let help = "What the proxy did because more bytes were buffered than --buffer-budget allows.";
        let mut metric =
            encoder.encode_descriptor("selvedge_buffer_overflows", help, None, MetricType::Counter)?;
        for (action, count) in budget.actions() {
            let labels = [("action", action.word())];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
        let help = "HTTP/2 connections closed because of too many frames without content, by who sent them.";
        let mut metric =
            encoder.encode_descriptor("selvedge_http2_floods", help, None, MetricType::Counter)?;
        for (from, count) in budget.floods() {
            let labels = [("from", from)];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)?;
        }
        Ok(())
    }

    fn encode_concurrency(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(concurrency) = self.concurrency.get() else { return Ok(()) };
        let help = "How many requests the app may have in progress now, by --adaptive-concurrency.";
        encoder
            .encode_descriptor("selvedge_inbound_concurrency_limit", help, None, MetricType::Gauge)?
            .encode_gauge(&i64::from(concurrency.limit()))?;
        let help = "How long the app's answers take when nothing waits, as last measured.";
        encoder
            .encode_descriptor(
                "selvedge_inbound_concurrency_shortest_time",
                help,
                Some(&Unit::Seconds),
                MetricType::Gauge,
            )?
            .encode_gauge(&concurrency.shortest().as_secs_f64())
    }

    /// What became of the access log and of traces, once there was any.
    fn encode_watched(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (lost, [sent, unsent]) = self.watched.counts();
        let mut family = |name: &str, help: &str, count: u64| {
            encoder
                .encode_descriptor(name, help, None, MetricType::Counter)?
                .encode_counter::<NoLabelSet, _, f64>(&count, None)
        };
        family(
            "selvedge_access_log_lines_lost",
            "Lines of the access log that are lost, because standard output or the collector did not take them.",
            lost + unsent[1],
        )?;
        family("selvedge_access_log_lines_sent", "Lines of the access log that a collector took.", sent[1])?;
        family("selvedge_trace_spans_sent", "Spans of traces that a collector took.", sent[0])?;
        family(
            "selvedge_trace_spans_lost",
            "Spans of traces that are lost, because the collector did not take them.",
            unsent[0],
        )
    }

    fn encode_state(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let expiry = self.certificate_expiry.load(Ordering::Relaxed);
        if expiry > 0 {
            let help = "When the workload's certificate expires, in seconds since 1970.";
            let name = "selvedge_certificate_expiry_timestamp";
            encoder
                .encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?
                .encode_gauge(&expiry)?;
        }
        let certificates = lock(&self.gateway_certificates);
        if !certificates.is_empty() {
            let help = "When a certificate expires that the gateway shows, in seconds since 1970.";
            let name = "selvedge_gateway_certificate_expiry_timestamp";
            let mut metric =
                encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
            for (certificate, expiry) in &*certificates {
                metric.encode_family(&[("certificate", certificate.as_str())])?.encode_gauge(expiry)?;
            }
        }
        drop(certificates);
        let configuration = lock(&self.configuration).clone();
        if let Some((version, at)) = configuration {
            let help = "The configuration in force.";
            encoder
                .encode_descriptor("selvedge_configuration_version", help, None, MetricType::Info)?
                .encode_info(&[("version", version)])?;
            let help = "When the configuration in force was applied, in seconds since 1970.";
            let name = "selvedge_configuration_applied_timestamp";
            encoder
                .encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?
                .encode_gauge(&since_1970(at))?;
        }
        let help = "Which build this is.";
        encoder
            .encode_descriptor("selvedge_build", help, None, MetricType::Info)?
            .encode_info(&[("version", build::VERSION)])
    }
}
