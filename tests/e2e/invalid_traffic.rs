//! Every `DestinationRule`, `ServiceEntry`, `VirtualService`, `WorkloadEntry` and `Gateway` that Istio's validation refuses is refused by `selvedge check`, with its path,
//! the line and what to do, and by the validating webhook, which runs the same code.

use crate::invalid::all_are_refused;

/// What stands below `spec`, and words of the message: what is wrong, and what to do.
type Row = (&'static str, [&'static str; 2]);

/// Beside `host: a`.
const RULES: &[Row] = &[
    ("trafficPolicy: {} # <-", ["says nothing", "give for example loadBalancer"]),
    ("subsets:\n- name: v1\n  trafficPolicy: {} # <-", ["says nothing", "or remove it"]),
    (
        "trafficPolicy:\n  portLevelSettings:\n  - port: {number: 80} # <-",
        ["says nothing", "give for example loadBalancer"],
    ),
    (
        "trafficPolicy:\n  portLevelSettings:\n  - port: {number: 0} # <-\n    loadBalancer: {simple: RANDOM}",
        ["is not a port", "use 1 to 65535"],
    ),
    (
        "trafficPolicy:\n  portLevelSettings:\n  - port: {number: 80}\n    loadBalancer: {simple: RANDOM}\n  \
         - port: {number: 80} # <-\n    loadBalancer: {simple: RANDOM}",
        ["is given twice", "keep one"],
    ),
    // Subsets.
    ("subsets:\n- name: '' # <-", ["is empty", "name the subset"]),
    ("subsets:\n- name: v_1 # <-", ["is not the name of a subset", "use at most 63"]),
    ("subsets:\n- name: v1- # <-", ["is not the name of a subset", "use at most 63"]),
    ("subsets:\n- name: v1\n  labels:\n    a b: c # <-", ["is not the name of a label", "write NAME"]),
    ("subsets:\n- name: v1\n  labels:\n    a: c d # <-", ["is not a label's value", "use at most 63"]),
    // Who is it for?
    ("exportTo: ['a b'] # <-", ["is not a namespace", "write one"]),
    ("exportTo: ['.', '.'] # <-", ["is given twice", "keep one of them"]),
    ("exportTo: ['*', b] # <-", ["exports to all", "remove them"]),
    (
        "workloadSelector:\n  matchLabels: # <-\n    a: b*",
        ["selects nobody, because labels are compared letter by letter", "leave the label out"],
    ),
    ("workloadSelector:\n  matchLabels:\n    a b: c # <-", ["is not the name of a label", "write NAME"]),
    ("workloadSelector:\n  matchLabels:\n    a: c d # <-", ["is not a label's value", "use at most 63"]),
    (
        "workloadSelector:\n  matchLabels:\n    a: \
         a123456789b123456789c123456789d123456789e123456789f123456789g123 # <-",
        ["is not a label's value", "use at most 63"],
    ),
    (
        "workloadSelector:\n  matchLabels: # <-\n    '': c",
        ["a label without a name", "name it, or remove it"],
    ),
    ("workloadSelector:\n  labels: {a: b} # <-", ["is not understood", "select workloads by matchLabels"]),
    (
        "exportTo: ['*'] # <-\nworkloadSelector: {matchLabels: {a: b}}",
        ["is for clients in its own namespace alone", "write [\".\"], or remove"],
    ),
    (
        "exportTo: ['.', other] # <-\nworkloadSelector: {matchLabels: {a: b}}",
        ["is for clients in its own namespace alone", "remove one of the two"],
    ),
    ("exportTo: ['.', default] # <-", ["is given twice", "keep one of them"]),
    ("exportTo: ['~'] # <-", ["is for nobody", "remove the document"]),
    // Balancers.
    ("trafficPolicy:\n  loadBalancer:\n    simple: FASTEST # <-", ["is not known here", "use one of"]),
    (
        "trafficPolicy:\n  loadBalancer: # <-\n    simple: RANDOM\n    consistentHash: {useSourceIp: true}",
        ["exclude each other", "remove one of them"],
    ),
    (
        "trafficPolicy:\n  loadBalancer:\n    consistentHash:\n      httpCookie: {ttl: 0s} # <-",
        ["is empty", "name the cookie"],
    ),
    (
        "trafficPolicy:\n  loadBalancer:\n    consistentHash: # <-\n      useSourceIp: true\n      httpHeaderName: x",
        ["exactly one key", "give one of"],
    ),
    (
        "trafficPolicy:\n  loadBalancer:\n    consistentHash:\n      useSourceIp: true\n      \
         maglev: {tableSize: 65536} # <-",
        ["is not a prime", "use for example 65537"],
    ),
    (
        "trafficPolicy:\n  loadBalancer:\n    consistentHash:\n      useSourceIp: true\n      \
         maglev: {tableSize: 5000011} # <-",
        ["is not a prime below", "use for example 65537"],
    ),
    (
        "trafficPolicy:\n  loadBalancer:\n    consistentHash:\n      useSourceIp: true\n      minimumRingSize: 10 # <-\n      \
         maglev: {tableSize: 65537}",
        ["is an old form of ringHash", "remove it"],
    ),
    (
        "trafficPolicy:\n  loadBalancer:\n    consistentHash:\n      useSourceIp: true\n      minimumRingSize: 10 # <-\n      \
         ringHash: {minimumRingSize: 20}",
        ["is an old form of ringHash", "remove it"],
    ),
    (
        "trafficPolicy:\n  loadBalancer:\n    consistentHash: # <-\n      useSourceIp: true\n      maglev: {tableSize: 65537}\n      \
         ringHash: {minimumRingSize: 20}",
        ["exclude each other", "remove one of them"],
    ),
    (
        "trafficPolicy:\n  loadBalancer:\n    warmup: {duration: 300s, minimumPercent: 150} # <-",
        ["is not a percentage", "use 0 to 100"],
    ),
    ("trafficPolicy:\n  loadBalancer:\n    warmup: {minimumPercent: 5} # <-", ["has no duration", "write"]),
    (
        "trafficPolicy:\n  loadBalancer:\n    warmup: {duration: 300s, aggression: -0.1} # <-",
        ["is out of range", "use 1"],
    ),
    (
        "trafficPolicy:\n  loadBalancer:\n    warmupDurationSecs: 0s # <-",
        ["is shorter than", "write for example"],
    ),
    // Places.
    (
        "trafficPolicy:\n  loadBalancer:\n    localityLbSetting: # <-\n      distribute: [{from: a, to: {a: 100}}]\n      \
         failover: [{from: a, to: b}]",
        ["exclude each other", "remove one of them"],
    ),
    (
        "trafficPolicy:\n  loadBalancer:\n    localityLbSetting:\n      \
         distribute: [{from: a, to: {a: 50, b: 49}}] # <-",
        ["sum to 99", "let them sum to 100"],
    ),
    (
        "trafficPolicy:\n  loadBalancer:\n    localityLbSetting:\n      \
         distribute: [{from: a, to: {a: 100, b: 0}}] # <-",
        ["0 is not a share", "use 1 to 100"],
    ),
    (
        "trafficPolicy:\n  loadBalancer:\n    localityLbSetting:\n      \
         distribute: [{from: 'a/*/b', to: {a: 100}}] # <-",
        ["is not a place", "write REGION"],
    ),
    (
        "trafficPolicy:\n  loadBalancer:\n    localityLbSetting:\n      failover: [{from: a, to: a}] # <-",
        ["to itself", "name two regions"],
    ),
    (
        "trafficPolicy:\n  loadBalancer:\n    localityLbSetting:\n      failover: [{from: a, to: b/c}] # <-",
        ["is not a region", "write its name"],
    ),
    // Ejection.
    (
        "trafficPolicy:\n  outlierDetection:\n    consecutiveLocalOriginFailures: 3 # <-",
        ["splitExternalLocalOriginErrors: true", "or remove it"],
    ),
    (
        "trafficPolicy:\n  outlierDetection:\n    maxEjectionPercent: 101 # <-",
        ["is not a percentage", "use 1 to 100"],
    ),
    (
        "trafficPolicy:\n  outlierDetection:\n    minHealthPercent: 200 # <-",
        ["is not a percentage", "use 0 to 100"],
    ),
    (
        "trafficPolicy:\n  outlierDetection:\n    baseEjectionTime: 0s # <-",
        ["is shorter than 1ms", "write for example"],
    ),
    (
        "trafficPolicy:\n  outlierDetection:\n    interval: 1.0005s # <-",
        ["is finer than a millisecond", "write it as"],
    ),
    ("trafficPolicy:\n  outlierDetection:\n    interval: 10 # <-", ["has no unit", "write 10s"]),
    (
        "trafficPolicy:\n  outlierDetection:\n    consecutive5xxErrors: -1 # <-",
        ["cannot be used here", "write a whole number"],
    ),
    // Connections.
    ("trafficPolicy:\n  connectionPool: {} # <-", ["says nothing", "give tcp or http"]),
    (
        "trafficPolicy:\n  connectionPool:\n    http:\n      h2UpgradePolicy: UPGRADE # <-\n      useClientProtocol: true",
        ["useClientProtocol: true", "remove one of them"],
    ),
    (
        "trafficPolicy:\n  connectionPool:\n    tcp:\n      maxConnections: -1 # <-",
        ["cannot be used here", "write a whole number"],
    ),
    (
        "trafficPolicy:\n  connectionPool:\n    tcp:\n      connectTimeout: 0s # <-",
        ["is shorter than 1ms", "; "],
    ),
    (
        "trafficPolicy: # <-\n  proxyProtocol: {version: V2}\n  tunnel: {targetHost: a.b, targetPort: 80}",
        ["exclude each other", "remove one of them"],
    ),
    ("trafficPolicy:\n  proxyProtocol: {version: V3} # <-", ["is not known here", "use one of"]),
    (
        "trafficPolicy:\n  tunnel: {protocol: GET, targetHost: a.b, targetPort: 80} # <-",
        ["is not a way to ask", "use CONNECT or POST"],
    ),
    ("trafficPolicy:\n  tunnel: {targetHost: a.b, targetPort: 0} # <-", ["is not a port", "use 1 to 65535"]),
    (
        "trafficPolicy:\n  loadBalancer:\n    consistentHash:\n      useSourceIp: true\n      maglev: {} # <-",
        ["has no tableSize", "write tableSize: 65537"],
    ),
    // TLS.
    ("trafficPolicy:\n  tls: {mode: STRICT} # <-", ["is not known here", "use one of"]),
    (
        "trafficPolicy:\n  tls: {mode: MUTUAL, clientCertificate: /a} # <-",
        ["needs clientCertificate and privateKey", "add what is missing"],
    ),
    (
        "trafficPolicy:\n  tls: {mode: SIMPLE, insecureSkipVerify: true, caCertificates: /a} # <-",
        ["insecureSkipVerify says that it is not", "remove one of them"],
    ),
    (
        "trafficPolicy:\n  tls: {mode: SIMPLE, insecureSkipVerify: true, subjectAltNames: [a]} # <-",
        ["insecureSkipVerify says that it is not", "remove one of them"],
    ),
    (
        "trafficPolicy:\n  tls: {mode: SIMPLE, insecureSkipVerify: true, credentialName: a} # <-",
        ["insecureSkipVerify says that it is not", "remove one of them"],
    ),
    (
        "trafficPolicy:\n  tls: {mode: SIMPLE, credentialName: x, caCertificates: /a} # <-",
        ["credentialName a Secret", "remove one of them"],
    ),
    (
        "trafficPolicy:\n  tls: {mode: MUTUAL, credentialName: x, clientCertificate: /a, privateKey: /b} # <-",
        ["credentialName a Secret", "remove one of them"],
    ),
];

/// The whole `spec`.
const HOSTS: &[Row] = &[
    ("host: 'a b' # <-", ["is not a host", "write a DNS name"]),
    ("host: '*.*' # <-", ["is not a host", "write a DNS name"]),
    ("host: 'a*.b' # <-", ["is not a host", "write a DNS name"]),
    ("host: -a # <-", ["is not a host", "write a DNS name"]),
    ("host: '' # <-", ["is empty", "name a host"]),
    ("host: 10.0.0.1 # <-", ["is an address", "write the name"]),
];

/// The whole `spec`.
const ENTRIES: &[Row] = &[
    ("hosts: [] # <-\nresolution: DNS", ["is empty", "name at least one host"]),
    ("hosts: ['*'] # <-", ["is not a host", "write a DNS name"]),
    ("hosts: ['a b'] # <-", ["is not a host", "write a DNS name"]),
    (
        "hosts: ['*.a.test'] # <-\nresolution: DNS",
        ["is not a name that DNS can be asked for", "list endpoints"],
    ),
    ("hosts: [a.test]\naddresses: [1.2.3.0/40] # <-", ["is neither an IP address nor a range", "such as"]),
    (
        "hosts: [a.test]\nports:\n- {number: 80, name: http}\n- {number: 81, name: http} # <-",
        ["of another port", "must be unique"],
    ),
    (
        "hosts: [a.test]\nresolution: DNS\naddresses: [10.0.0.0/8] # <-",
        ["has a range", "write resolution: NONE"],
    ),
    (
        "hosts: [a.test, b.test]\nresolution: DNS\nports: [{number: 5432, name: db, protocol: TCP}] # <-",
        ["there are several hosts", "write a document for each"],
    ),
    (
        "hosts: [a.test]\nresolution: STATIC\nports: [{number: 80, name: http}]\n\
         endpoints: [{address: 1.2.3.4, ports: {https: 443}}] # <-",
        ["has no port of this name", "correct the name"],
    ),
    (
        "hosts: [a.test]\nresolution: DNS\nendpoints: [{address: a b}] # <-",
        ["neither an IP address", "correct it"],
    ),
    ("hosts: [a.test]\nresolution: STATIC\nendpoints: [{}] # <-", ["address is missing", "add it"]),
    ("hosts: [a.test]\nports: [{number: 80, name: http, protocol: SPDY}] # <-", ["is not known", "use HTTP"]),
    ("hosts: [a.test]\nports: [{number: 0, name: http}] # <-", ["is not a port", "use 1 to 65535"]),
    (
        "hosts: [a.test]\nports: [{number: 80, name: http, targetPort: 70000}] # <-",
        ["is not a port", "use 1 to 65535"],
    ),
    (
        "hosts: [a.test]\nresolution: NONE\nendpoints: [{address: 1.2.3.4}] # <-",
        ["have no effect", "write resolution: STATIC"],
    ),
    (
        "hosts: [a.test]\nresolution: STATIC\nendpoints: [{address: b.test}] # <-",
        ["is not an IP address", "write resolution: DNS"],
    ),
    (
        "hosts: [a.test]\nresolution: DNS_ROUND_ROBIN\nendpoints: [{address: 1.2.3.4}, {address: 1.2.3.5}] # <-",
        ["one endpoint at most", "write DNS"],
    ),
    ("hosts: [a.test]\nresolution: BOTH # <-", ["is not known here", "use one of"]),
    (
        "hosts: [a.test]\nports: [{number: 80, name: my_port}] # <-",
        ["is not the name of a port", "use at most 63"],
    ),
    (
        "hosts: [a.test]\nresolution: DNS\naddresses: [10.0.0.1/32] # <-",
        ["has a range", "write resolution: NONE"],
    ),
    (
        "hosts: [a.test]\nresolution: DYNAMIC_DNS\naddresses: [10.0.0.0/8] # <-",
        ["has a range", "write resolution: NONE"],
    ),
    (
        "hosts: [a.test, b.test]\nresolution: STATIC\nports: [{number: 80, name: http}] # <-",
        ["there are several hosts", "write a document for each"],
    ),
    (
        "hosts: ['*.a.test'] # <-\nresolution: DNS\nworkloadSelector: {labels: {a: b}}",
        ["is not a name that DNS can be asked for", "list endpoints"],
    ),
    (
        "hosts: [a.test]\nresolution: STATIC\nworkloadSelector: {labels: {a: '*'}} # <-",
        ["is not a label with a value", "write both out"],
    ),
    (
        "hosts: [a.test]\nresolution: STATIC\nports: [{number: 80, name: http}]\n\
         endpoints: [{address: 1.2.3.4, labels: {a: b c}}] # <-",
        ["is not a label's value", "use at most 63"],
    ),
    (
        "hosts: [a.test]\nresolution: DNS\nendpoints: [{address: 'unix:///a'}] # <-",
        ["is a Unix socket", "write resolution: STATIC"],
    ),
    (
        "hosts: [a.test]\nresolution: STATIC\nports: [{number: 80, name: a}, {number: 81, name: b}]\n\
         endpoints: [{address: 'unix:///a'}] # <-",
        ["can serve one port alone", "give the entry one port"],
    ),
    ("hosts: [a.test]\nexportTo: ['~', b] # <-", ["exports to nobody", "remove one of them"]),
    (
        "hosts: [a.test]\nresolution: STATIC\nworkloadSelector: {labels: {a: b}} # <-\nendpoints: [{address: 1.2.3.4}]",
        ["is given together with endpoints", "keep one of them"],
    ),
];

/// The whole `spec`.
const WORKLOADS: &[Row] = &[
    ("{ports: {http: 80}} # <-", ["address is missing", "add it"]),
    ("address: a b # <-", ["neither an IP address", "correct it"]),
    ("address: unix:///a/ # <-", ["is not the place of a Unix socket", "write unix:///PATH"]),
    ("address: unix://a # <-", ["is not the place of a Unix socket", "write unix:///PATH"]),
    ("address: unix://@a\nports: {http: 80} # <-", ["which has none", "remove it"]),
    ("address: 1.2.3.4\nports: {http: 70000} # <-", ["is not a port", "use 1 to 65535"]),
    ("address: 1.2.3.4\nports: {'a@b': 80} # <-", ["is not the name of a port", "use at most 63"]),
    ("address: 1.2.3.4\nlabels: {a: b c} # <-", ["is not a label's value", "use at most 63"]),
];

/// One server of a gateway.
const SERVERS: &[Row] = &[
    ("port: {number: 80, name: a, protocol: HTTP}\nhosts: [] # <-", ["is empty", "name at least one host"]),
    (
        "port: {number: 80, name: a, protocol: HTTP}\nhosts: [web] # <-",
        ["is a short name", "write the whole name"],
    ),
    (
        "port: {number: 80, name: a, protocol: HTTP}\nhosts: ['*a.test'] # <-",
        ["is no host", "write a DNS name"],
    ),
    ("port: {number: 80, protocol: HTTP} # <-\nhosts: ['*']", ["is missing", "name the port"]),
    ("port: {number: 80, name: a, protocol: SPDY} # <-\nhosts: ['*']", ["is not a protocol", "use HTTP"]),
    (
        "port: {number: 80, name: a, protocol: HTTP, targetPort: 81} # <-\nhosts: ['*']",
        ["has no meaning here", "remove it"],
    ),
    (
        "port: {number: 80, name: a, protocol: HTTP}\nhosts: ['*']\nbind: here # <-",
        ["is not an IP address", "remove it"],
    ),
    (
        "port: {number: 80, name: a, protocol: HTTP}\nhosts: ['*']\nbind: unix:///a # <-",
        ["is a Unix socket", "remove it"],
    ),
    ("port: {number: 80, name: a, protocol: HTTPS} # <-\nhosts: ['*']", ["is missing", "needs it"]),
    (
        "port: {number: 80, name: a, protocol: HTTP}\nhosts: ['*']\ntls: {mode: SIMPLE, credentialName: a} # <-",
        ["belongs to servers of HTTPS", "change port.protocol"],
    ),
    (
        "port: {number: 443, name: a, protocol: HTTPS}\nhosts: ['*']\ntls: {mode: SIMPLE} # <-",
        ["is missing", "name a Secret"],
    ),
];

/// The whole `spec`.
const ROUTES: &[Row] = &[
    ("hosts: ['*'] # <-\nhttp: [{route: [{destination: {host: a}}]}]", ["only gateways serve", "name hosts"]),
    (
        "hosts: ['a b'] # <-\nhttp: [{route: [{destination: {host: a}}]}]",
        ["is not a host", "write a DNS name"],
    ),
    (
        "hosts: [a, A] # <-\nhttp: [{route: [{destination: {host: a}}]}]",
        ["are for the same hosts", "keep one of them"],
    ),
    (
        "hosts: ['*.b.test', c.b.test] # <-\nhttp: [{route: [{destination: {host: a}}]}]",
        ["are for the same hosts", "keep one of them"],
    ),
    ("hosts: [a] # <-", ["has no routes", "give http, tls or tcp"]),
    (
        "hosts: [a]\nexportTo: ['*', b] # <-\nhttp: [{route: [{destination: {host: a}}]}]",
        ["exports to all", "remove them"],
    ),
    (
        "hosts: [a]\nexportTo: [b, b] # <-\nhttp: [{route: [{destination: {host: a}}]}]",
        ["is given twice", "keep one of them"],
    ),
    (
        "hosts: [a]\nhttp:\n- match: [{headers: {x: {regex: ''}}}] # <-\n  route: [{destination: {host: a}}]",
        ["regex: is empty", "write .*"],
    ),
    (
        "hosts: [a]\nhttp:\n- match: [{sourceLabels: {a b: c}}] # <-\n  route: [{destination: {host: a}}]",
        ["is not the name of a label", "write NAME"],
    ),
    (
        "hosts: [a]\ntcp:\n- match: [{sourceLabels: {a: c d}}] # <-\n  route: [{destination: {host: a}}]",
        ["is not a label's value", "use at most 63"],
    ),
    (
        "hosts: [a]\nhttp:\n- timeout: 0.1ms # <-\n  route: [{destination: {host: a}}]",
        ["is finer than a millisecond", "write it as"],
    ),
    (
        "hosts: [a]\nhttp:\n- retries: {attempts: 1, perTryTimeout: 10us} # <-\n  route: [{destination: {host: a}}]",
        ["is finer than a millisecond", "write it as"],
    ),
    ("hosts: [a]\nhttp:\n- route: [{weight: 1}] # <-", ["destination is missing", "add it"]),
    (
        "hosts: [a]\nhttp:\n- timeout: 0s # <-\n  route: [{destination: {host: a}}]",
        ["is shorter than 1ms", "leave it out"],
    ),
    (
        "hosts: [a]\nhttp:\n- retries: {attempts: 1, perTryTimeout: 0s} # <-\n  route: [{destination: {host: a}}]",
        ["is shorter than 1ms", "leave it out"],
    ),
    (
        "hosts: [a]\nhttp:\n- retries: {attempts: 1, retryOn: '5xx, reset'} # <-\n  route: [{destination: {host: a}}]",
        ["is not a retry condition", "no spaces"],
    ),
    (
        "hosts: [a]\nhttp:\n- retries: {attempts: 0, retryRemoteLocalities: true} # <-\n  route: [{destination: {host: a}}]",
        ["no attempts", "add attempts"],
    ),
    (
        "hosts: [a]\nhttp:\n- fault: {delay: {fixedDelay: 0s, percentage: {value: 1}}} # <-\n  route: [{destination: {host: a}}]",
        ["is shorter than 1ms", "remove the delay"],
    ),
    (
        "hosts: [a]\nhttp:\n- fault: {delay: {fixedDelay: 1s, percentage: {value: 0.00001}}} # <-\n  route: [{destination: {host: a}}]",
        ["one in a million", "write 0, or more"],
    ),
    (
        "hosts: [a]\nhttp:\n- fault: {abort: {grpcStatus: '14', percentage: {value: 1}}} # <-\n  route: [{destination: {host: a}}]",
        ["is not the name of a gRPC status", "write for example"],
    ),
    (
        "hosts: [a]\nhttp:\n- corsPolicy: {allowOrigins: [{exact: '*'}], maxAge: 0s} # <-\n  route: [{destination: {host: a}}]",
        ["is shorter than 1ms", "leave it out"],
    ),
    ("hosts: [a]\nhttp:\n- route: [{destination: {host: a b}}] # <-", ["is not a host", "write a DNS name"]),
    (
        "hosts: [a]\nhttp:\n- route: [{destination: {host: 10.0.0.1}}] # <-",
        ["is an address", "write the name"],
    ),
    (
        "hosts: [a]\nhttp:\n- route: [{destination: {host: a, subset: v_1}}] # <-",
        ["is not the name of a subset", "use at most 63"],
    ),
    (
        "hosts: [a]\nhttp:\n- mirror: {host: a b} # <-\n  route: [{destination: {host: a}}]",
        ["is not a host", "write a DNS name"],
    ),
    ("hosts: [a]\ntcp:\n- route: [{destination: {host: a b}}] # <-", ["is not a host", "write a DNS name"]),
    (
        "hosts: [a]\nhttp:\n- match: [{uri: {regex: '/a.*'}}] # <-\n  delegate: {name: b}",
        ["cannot be put together", "use exact or prefix"],
    ),
    (
        "http:\n- match: [{headers: {x: {regex: a.*}}}] # <-\n  route: [{destination: {host: a}}]",
        ["cannot be put together", "use exact or prefix"],
    ),
    (
        "hosts: [a]\nexportTo: ['~'] # <-\nhttp: [{route: [{destination: {host: a}}]}]",
        ["is for nobody", "remove"],
    ),
    // TLS that does not end here.
    (
        "hosts: [a.test]\ntls:\n- match: [{sniHosts: [b.test]}] # <-\n  route: [{destination: {host: a}}]",
        ["b.test is not among spec.hosts", "add it there"],
    ),
    (
        "hosts: [a.test]\ntls:\n- match: [{sniHosts: ['*.test']}] # <-\n  route: [{destination: {host: a}}]",
        ["*.test is not among spec.hosts", "add it there"],
    ),
    (
        "hosts: [a]\ntls:\n- match: [{sniHosts: [a.default.svc.cluster.local]}] # <-\n  route: [{destination: {host: a}}]",
        ["is not among spec.hosts", "add it there"],
    ),
    (
        "hosts: [a]\ntls:\n- match: [{sniHosts: ['a b']}] # <-\n  route: [{destination: {host: a}}]",
        ["is not a host", "write a DNS name"],
    ),
];

/// The document of a kind with this spec. In braces, it stands on the line of `spec`, which is that of what is missing in it.
fn document(kind: &str, spec: &str) -> String {
    let between = if spec.starts_with('{') { " " } else { "\n  " };
    let spec = spec.replace('\n', "\n  ");
    format!(
        "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: a, namespace: default}}\nspec:{between}{spec}\n"
    )
}

#[test]
fn every_invalid_rule_for_traffic_is_refused_with_its_line_and_what_to_do_by_check_and_by_the_webhook() {
    let rules =
        RULES.iter().map(|(spec, words)| (document("DestinationRule", &format!("host: a\n{spec}")), *words));
    let hosts = HOSTS.iter().map(|(spec, words)| (document("DestinationRule", spec), *words));
    let entries = ENTRIES.iter().map(|(spec, words)| (document("ServiceEntry", spec), *words));
    let routes = ROUTES.iter().map(|(spec, words)| (document("VirtualService", spec), *words));
    let workloads = WORKLOADS.iter().map(|(spec, words)| (document("WorkloadEntry", spec), *words));
    let servers = SERVERS.iter().map(|(server, words)| {
        let server = server.replace('\n', "\n  ");
        (document("Gateway", &format!("selector: {{a: b}}\nservers:\n- {server}")), *words)
    });
    all_are_refused(rules.chain(hosts).chain(entries).chain(routes).chain(workloads).chain(servers));
}
