//! `DestinationRule` `loadBalancer`: how the next endpoint is chosen.
//!
//! What is refused is what Istio's validation refuses. Two annotations of a `DestinationRule` ask for what Istio has no
//! field for.

use std::time::Duration;

use selvedge_model::{
    ConsistentHash, HashCookie, HashKey, HashTable, LoadBalancer, Warmup, balancing::is_prime,
    filter::Fraction,
};
use serde::Deserialize;

use super::{
    document::{Reading, wrong},
    locality_setting::{LocalitySetting, LocalityYaml},
    typed::FieldError,
    values::{GoDuration, header_name},
};

/// `PEAK_EWMA`: what is used instead of `LEAST_REQUEST`.
pub(super) const BALANCER_ANNOTATION: &str = "config.selvedge.io/load-balancer";

/// Percent of the average load that an endpoint may have with `consistentHash`, more than 100.
pub(super) const BOUND_ANNOTATION: &str = "config.selvedge.io/hash-load-bound";

/// What the block says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BalancerBlock {
    /// How the next endpoint is chosen.
    pub balancer: LoadBalancer,
    /// `warmup`.
    pub warmup: Option<Warmup>,
    /// `localityLbSetting`.
    pub locality: Option<LocalitySetting>,
}

/// What the annotations of a document ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Annotated {
    /// Whether `LEAST_REQUEST` means Peak EWMA.
    peak_ewma: bool,
    load_bound: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct BalancerYaml {
    simple: Option<SimpleWord>,
    consistent_hash: Option<HashYaml>,
    warmup: Option<WarmupYaml>,
    /// Its old form.
    warmup_duration_secs: Option<GoDuration>,
    locality_lb_setting: Option<LocalityYaml>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum SimpleWord {
    Unspecified,
    LeastRequest,
    LeastConn,
    RoundRobin,
    Random,
    Passthrough,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HashYaml {
    http_header_name: Option<String>,
    http_cookie: Option<CookieYaml>,
    use_source_ip: bool,
    http_query_parameter_name: Option<String>,
    ring_hash: Option<RingYaml>,
    maglev: Option<MaglevYaml>,
    /// The old place of `ringHash.minimumRingSize`.
    minimum_ring_size: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CookieYaml {
    name: String,
    path: Option<String>,
    ttl: Option<GoDuration>,
    attributes: Vec<AttributeYaml>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AttributeYaml {
    name: String,
    value: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RingYaml {
    minimum_ring_size: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MaglevYaml {
    table_size: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WarmupYaml {
    duration: Option<GoDuration>,
    minimum_percent: Option<f64>,
    aggression: Option<f64>,
}

impl Annotated {
    /// What the annotations of the document that is read say.
    pub(super) fn read(reading: &Reading<'_>) -> Result<Self, FieldError> {
        let annotations = &reading.metadata.annotations;
        let peak_ewma = match annotations.get(BALANCER_ANNOTATION).map(|word| word.trim()) {
            None => false,
            Some("PEAK_EWMA") => true,
            Some(other) => {
                let message = format!(
                    "{other:?} is not a balancer that this annotation names; write PEAK_EWMA, or remove it and set \
                     loadBalancer.simple"
                );
                return Err(wrong(format!("metadata.annotations[{BALANCER_ANNOTATION}]"), message));
            }
        };
        let bound = annotations.get(BOUND_ANNOTATION).map(|text| {
            let bound = text.trim().parse().ok().filter(|bound| (101..=10_000).contains(bound));
            bound.ok_or_else(|| {
                let message = format!(
                    "{text:?} is not a percentage of the average load above 100; write for example \"125\""
                );
                wrong(format!("metadata.annotations[{BOUND_ANNOTATION}]"), message)
            })
        });
        Ok(Self { peak_ewma, load_bound: bound.transpose()? })
    }

    /// Reports annotations that none of the `used` balancers of the document that is read follows.
    pub(super) fn report_unused<'b>(
        self,
        mut used: impl Iterator<Item = &'b LoadBalancer> + Clone,
        reading: &mut Reading<'_>,
    ) {
        let is_bounded = |one: &LoadBalancer| matches!(one, LoadBalancer::ConsistentHash(hash) if hash.load_bound.is_some());
        if self.load_bound.is_some() && !used.clone().any(is_bounded) {
            let message =
                "has no effect without consistentHash; add loadBalancer.consistentHash, or remove it";
            reading.not_acted_on(format!("metadata.annotations[{BOUND_ANNOTATION}]"), message);
        }
        if self.peak_ewma && !used.any(|one| *one == LoadBalancer::PeakEwma) {
            let message = "has no effect: it stands for LEAST_REQUEST, and loadBalancer says otherwise; remove one of them";
            reading.not_acted_on(format!("metadata.annotations[{BALANCER_ANNOTATION}]"), message);
        }
    }

    /// What stands for a block that is not there.
    pub(super) fn without_block(self) -> Option<BalancerBlock> {
        self.peak_ewma.then(|| BalancerBlock { balancer: LoadBalancer::PeakEwma, ..BalancerBlock::default() })
    }

    fn simple(self, word: Option<SimpleWord>) -> LoadBalancer {
        match word {
            Some(SimpleWord::RoundRobin) => LoadBalancer::RoundRobin,
            Some(SimpleWord::Random) => LoadBalancer::Random,
            Some(SimpleWord::Passthrough) => LoadBalancer::Passthrough,
            None | Some(SimpleWord::Unspecified | SimpleWord::LeastRequest | SimpleWord::LeastConn) => {
                if self.peak_ewma { LoadBalancer::PeakEwma } else { LoadBalancer::LeastRequest }
            }
        }
    }
}

impl BalancerYaml {
    /// The block at `field`, in a document whose annotations say this.
    pub(super) fn read(
        self,
        field: &str,
        annotated: Annotated,
        reading: &mut Reading<'_>,
    ) -> Result<BalancerBlock, FieldError> {
        let balancer = match (self.simple, self.consistent_hash) {
            (Some(_), Some(_)) => {
                let message =
                    "has both simple and consistentHash, which exclude each other; remove one of them";
                return Err(wrong(field, message));
            }
            (simple, None) => annotated.simple(simple),
            (None, Some(hash)) => {
                let hash = hash.read(&format!("{field}.consistentHash"), annotated.load_bound, reading)?;
                LoadBalancer::ConsistentHash(hash)
            }
        };
        let old = self.warmup_duration_secs.map(|GoDuration(duration)| (duration, "warmupDurationSecs"));
        let warmup = match (self.warmup, old) {
            (Some(_), Some((_, old))) => {
                let message = "is an old form of warmup, which is also given; remove it";
                return Err(wrong(format!("{field}.{old}"), message));
            }
            (Some(warmup), None) => Some((warmup.read(&format!("{field}.warmup"))?, "warmup")),
            (None, Some((duration, old))) => {
                let field = format!("{field}.{old}");
                reading
                    .warning(&*field, "is an old form of warmup and is used as that; write warmup.duration");
                Some((warmup(duration, &field)?, old))
            }
            (None, None) => None,
        };
        let grows = matches!(
            balancer,
            LoadBalancer::LeastRequest | LoadBalancer::RoundRobin | LoadBalancer::PeakEwma
        );
        if let (Some((_, name)), false) = (warmup, grows) {
            let message = "is not acted on with this balancer; it is for LEAST_REQUEST and ROUND_ROBIN";
            reading.not_acted_on(format!("{field}.{name}"), message);
        }
        let locality = match self.locality_lb_setting {
            None => None,
            Some(yaml) => Some(yaml.read(&format!("{field}.localityLbSetting"), reading)?),
        };
        Ok(BalancerBlock { balancer, warmup: warmup.map(|(warmup, _)| warmup).filter(|_| grows), locality })
    }
}

/// The usual warm-up of this `duration`, which is at `field`. As in Istio, 1 ms is the least.
fn warmup(duration: Duration, field: &str) -> Result<Warmup, FieldError> {
    if duration < Duration::from_millis(1) {
        return Err(wrong(field, "is shorter than 1ms; write for example 60s"));
    }
    let minimum = Fraction::of_percent(10.0).expect("it is a percentage");
    Ok(Warmup { duration, minimum, aggression_thousandths: 1_000 })
}

impl WarmupYaml {
    fn read(self, field: &str) -> Result<Warmup, FieldError> {
        let Some(GoDuration(duration)) = self.duration else {
            return Err(wrong(field, "has no duration; write for example duration: 60s"));
        };
        let mut warmup = warmup(duration, &format!("{field}.duration"))?;
        if let Some(percent) = self.minimum_percent {
            warmup.minimum = Fraction::of_percent(percent).ok_or_else(|| {
                let message = format!("{percent} is not a percentage; use 0 to 100");
                wrong(format!("{field}.minimumPercent"), message)
            })?;
        }
        if let Some(aggression) = self.aggression {
            let in_range = (1.0..=1_000.0).contains(&aggression);
            if !in_range {
                let message = format!("{aggression} is out of range; use 1 (a share grows evenly) to 1000");
                return Err(wrong(format!("{field}.aggression"), message));
            }
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is 1 to 1,000")]
            let thousandths = (aggression * 1_000.0).round() as u32;
            warmup.aggression_thousandths = thousandths;
        }
        Ok(warmup)
    }
}

impl HashYaml {
    fn read(
        self,
        field: &str,
        load_bound: Option<u32>,
        reading: &mut Reading<'_>,
    ) -> Result<ConsistentHash, FieldError> {
        let table = self.table(field, reading)?;
        let mut keys = Vec::new();
        if let Some(name) = self.http_header_name {
            keys.push(HashKey::Header(read_header(&name, &format!("{field}.httpHeaderName"))?));
        }
        if let Some(cookie) = self.http_cookie {
            keys.push(HashKey::Cookie(cookie.read(&format!("{field}.httpCookie"))?));
        }
        if self.use_source_ip {
            keys.push(HashKey::SourceAddress);
        }
        if let Some(name) = self.http_query_parameter_name {
            if name.is_empty() {
                return Err(wrong(format!("{field}.httpQueryParameterName"), "is empty; name the parameter"));
            }
            keys.push(HashKey::Query(name));
        }
        let is_one = keys.len() == 1;
        let Some(key) = keys.pop().filter(|_| is_one) else {
            let message = "needs exactly one key; give one of httpHeaderName, httpCookie, useSourceIp and \
                           httpQueryParameterName";
            return Err(wrong(field, message));
        };
        Ok(ConsistentHash { key, table, load_bound })
    }

    fn table(&self, field: &str, reading: &mut Reading<'_>) -> Result<HashTable, FieldError> {
        let old = self.minimum_ring_size.filter(|size| *size > 0);
        if old.is_some() {
            if self.ring_hash.is_some() || self.maglev.is_some() {
                let message = "is an old form of ringHash, and the table is given as ringHash or maglev, too; remove it";
                return Err(wrong(format!("{field}.minimumRingSize"), message));
            }
            let message =
                "is an old name of ringHash.minimumRingSize and is used as that; write the new name";
            reading.warning(format!("{field}.minimumRingSize"), message);
        }
        match (&self.ring_hash, &self.maglev) {
            (Some(_), Some(_)) => Err(wrong(
                field,
                "has both ringHash and maglev, which exclude each other; remove one of them",
            )),
            (None, Some(maglev)) => maglev.read(&format!("{field}.maglev")),
            (ring, None) => {
                let said = ring.as_ref().and_then(|ring| ring.minimum_ring_size);
                let name = if said.is_some() { "ringHash.minimumRingSize" } else { "minimumRingSize" };
                let Some(size) = said.or(old) else { return Ok(HashTable::RING) };
                let minimum = u32::try_from(size).ok().filter(|size| *size <= HashTable::LARGEST_RING);
                let minimum = minimum.ok_or_else(|| {
                    let message = format!("{size} is too large; use at most {}", HashTable::LARGEST_RING);
                    wrong(format!("{field}.{name}"), message)
                })?;
                if minimum > HashTable::LARGEST_MADE {
                    let message =
                        format!("is not acted on above {}: so many points are made", HashTable::LARGEST_MADE);
                    reading.not_acted_on(format!("{field}.{name}"), message);
                }
                Ok(HashTable::Ring { minimum })
            }
        }
    }
}

impl MaglevYaml {
    fn read(&self, field: &str) -> Result<HashTable, FieldError> {
        // As in Istio, whose validation asks for it, although its guide names a default.
        let Some(size) = self.table_size.filter(|size| *size > 0) else {
            return Err(wrong(field, "has no tableSize; write tableSize: 65537, which is the usual one"));
        };
        // Istio: less than 5,000,011, although Envoy takes that, too.
        let in_range = u32::try_from(size).ok().filter(|size| (1..HashTable::LARGEST_MAGLEV).contains(size));
        let prime = in_range.filter(|size| is_prime(*size));
        let size = prime.ok_or_else(|| {
            let message =
                format!("{size} is not a prime below {}; use for example 65537", HashTable::LARGEST_MAGLEV);
            wrong(format!("{field}.tableSize"), message)
        })?;
        Ok(HashTable::Maglev { size })
    }
}

/// A header's name in lower case, or one of HTTP/2's two that name what is asked for.
fn read_header(name: &str, field: &str) -> Result<String, FieldError> {
    let lower = name.to_ascii_lowercase();
    if ![":authority", ":path"].contains(&lower.as_str()) {
        header_name(name, field)?;
    }
    Ok(lower)
}

impl CookieYaml {
    fn read(self, field: &str) -> Result<HashCookie, FieldError> {
        cookie_name(&self.name, &format!("{field}.name"))?;
        if let Some(path) = &self.path {
            cookie_text(path, &format!("{field}.path"))?;
        }
        let mut attributes = Vec::new();
        for (index, AttributeYaml { name, value }) in self.attributes.into_iter().enumerate() {
            let field = format!("{field}.attributes[{index}]");
            cookie_name(&name, &format!("{field}.name"))?;
            let value = value.filter(|value| !value.is_empty());
            if let Some(value) = &value {
                cookie_text(value, &format!("{field}.value"))?;
            }
            attributes.push(value.map_or_else(|| name.clone(), |value| format!("{name}={value}")));
        }
        let ttl = self.ttl.map(|GoDuration(ttl)| ttl);
        let (name, path) = (self.name, self.path);
        Ok(HashCookie { name, ttl, path, attributes, renewed_on_failure: false, key: None })
    }
}

/// Refuses what is not the name of a cookie, or of an attribute (RFC 6265, section 4.1.1).
pub(super) fn cookie_name(name: &str, field: &str) -> Result<(), FieldError> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() {
        return Err(wrong(field, "is empty; name the cookie"));
    }
    match name.bytes().all(is_token) {
        true => Ok(()),
        false => Err(wrong(field, format!("{name:?} is not a cookie's name; use letters, digits, - and _"))),
    }
}

/// Refuses what cannot stand in an attribute of a cookie (RFC 6265, section 4.1.1).
pub(super) fn cookie_text(text: &str, field: &str) -> Result<(), FieldError> {
    let fits = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b';';
    match text.bytes().all(fits) {
        true => Ok(()),
        false => {
            Err(wrong(field, format!("{text:?} cannot stand in a cookie; use printable ASCII without ;")))
        }
    }
}

/// What the annotation of a Service asks for, where no `DestinationRule` says anything.
pub(super) fn of_service(reading: &Reading<'_>) -> Result<Option<BalancerBlock>, FieldError> {
    Ok(Annotated::read(reading)?.without_block())
}

/// `sessionAffinity: ClientIP` of a Service: every client's connections and requests go to one endpoint.
pub(super) fn by_client_address() -> BalancerBlock {
    let hash = ConsistentHash { key: HashKey::SourceAddress, table: HashTable::MAGLEV, load_bound: None };
    BalancerBlock { balancer: LoadBalancer::ConsistentHash(hash), ..BalancerBlock::default() }
}

/// What Kubernetes writes into a Service whose affinity has no timeout: seconds.
const USUAL_TIMEOUT: u64 = 10_800;

/// A service's `sessionAffinityConfig`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AffinityConfigYaml {
    #[serde(rename = "clientIP")]
    client_ip: ClientIpYaml,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClientIpYaml {
    timeout_seconds: Option<u64>,
}

impl AffinityConfigYaml {
    /// After which time a client may go elsewhere, if that is not what Kubernetes itself writes there.
    pub(super) fn unusual_timeout(&self) -> Option<u64> {
        self.client_ip.timeout_seconds.filter(|seconds| *seconds != USUAL_TIMEOUT)
    }
}
