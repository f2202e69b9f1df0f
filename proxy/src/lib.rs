//! The sidecar and the gateway: the story of a request.
//!
//! Each module is one room, and this is their order. A room imports only rooms that stand below it, so a request enters
//! each room once, from the top to the bottom. [`outbound`], [`inbound`] and [`gateway`] are the paths, each one
//! readable list of steps. A test (`tests/e2e/dependencies.rs`) checks the order, and that the README has the same.

/// Starts everything: listeners, workers, the control thread.
pub mod app;

/// The control thread: configuration, certificates, DNS, the admin port, shutting down.
pub mod control;

/// What the admin port shows, and the commands that it takes.
pub mod admin;

/// The settings as flags and environment variables.
pub mod cli;

/// Answers health probes and scrapes on the app's behalf.
pub mod probes;

/// Sends spans and lines of the access log to a collector.
pub mod export;

/// What the control thread finds out about endpoints.
pub mod checks;

/// Takes connections, and gives each to the worker that carries it.
pub mod accept;

/// The path of requests that leave the app: one readable list of steps.
pub mod outbound;

/// The path of requests that come in to the app, likewise.
pub mod inbound;

/// The path of requests that strangers send to a gateway, likewise.
pub mod gateway;

/// Who a mesh peer is: its TLS handshake and its preamble.
pub mod identify;

/// HTTP on a client's connection.
pub mod serve;

/// Connections that are no longer HTTP: WebSockets, tunnels.
pub mod upgrade;

/// Counts and logs every request once.
pub mod observe;

/// Turns failures into answers.
pub mod respond;

/// Refuses requests that are malformed or too large, and all requests while too many bytes are held.
pub mod refuse;

/// Settles one path and one authority for all later steps.
pub mod normalize;

/// Replaces at a gateway what a stranger says about itself.
pub mod edge;

/// Opens tunnels for requests that ask for one.
pub mod tunnel;

/// Carries connections that are not HTTP.
pub mod opaque;

/// Accepts or refuses the tokens of requests.
pub mod authenticate;

/// Decides which requests and connections policy lets in.
pub mod authorize;

/// Finds the rule, the backend and the time limits of a request.
pub mod route;

/// Retries requests that may be sent again.
pub mod retry;

/// Refuses requests that are beyond a rate limit.
pub mod limit;

/// Which service an address or an authority means.
pub mod lookup;

/// What rules and policies may look at, of a connection and of a request.
pub mod facts;

/// Picks an endpoint, and sends one attempt there.
pub mod dispatch;

/// Hands a request to the app.
pub mod forward;

/// How long a client's connection is served.
pub mod lifetime;

/// One thread that carries connections, and everything that it owns.
pub mod worker;

/// Pools of connections: mesh TLS, HTTP/1.1, HTTP/2, opaque TCP.
pub mod connect;

/// The tokens that a worker has verified, and the keys for them.
pub mod tokens;

/// Names and passwords: verified away from the workers, and remembered.
pub mod credentials;

/// The types of a request's path: what each step receives, and what comes back.
pub mod step;

/// The one body type, and what happens when it ends.
pub mod body;

/// Configuration: asked for, received, checked, put in force.
pub mod discovery;

/// Our own certificate, and the way to the control plane.
pub mod joining;

/// Rules bound to what they act on.
pub mod bind;

/// DNS: names to addresses.
pub mod dns;

/// Whether the mesh still believes a peer; TLS to servers outside the mesh.
pub mod trust;

/// Metrics, the access log, and traces.
pub mod telemetry;

/// Which endpoint gets the next request, and which gets none for a while: algorithms only.
pub mod balance;

/// Who has called our workload lately.
pub mod seen;

/// The places of clients' connections, and which clients keep the proxy waiting.
pub mod clients;

/// Limits on bytes in memory and on retries.
pub mod budget;

/// How often something may happen: token buckets, of everybody together and of each client.
pub mod buckets;

/// Shuts down in the order in which no request is lost.
pub mod leave;

/// What a connection's first bytes are.
pub mod detect;

/// How a connection came: its direction and its original destination.
pub mod arrival;

/// What the command line says, as the request path reads it.
pub mod settings;

/// The streams that bytes pass through.
pub mod io;

/// Header fields: what may pass, and what some of them mean.
pub mod fields;

/// Why the proxy answered itself.
pub mod error;

/// Time limits that cost nothing while nothing has to end.
pub mod time;

/// Memory that is used again.
pub mod spare;

pub use app::run;
