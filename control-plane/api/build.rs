//! Compiles the protobuf files with a pure-Rust compiler, so that nobody needs `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files =
        ["discovery", "certificates", "preamble"].map(|name| format!("proto/selvedge/v1/{name}.proto"));
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".selvedge.v1")
        .btree_map(".selvedge.v1")
        // The largest of what proxies say, for which each of their streams would keep room.
        .boxed(".selvedge.v1.ClientMessage.message.report")
        // They hold private keys, and hashes of passwords.
        .skip_debug(["selvedge.v1.ServerCertificate", "selvedge.v1.UserList", "selvedge.v1.User"])
        .compile_fds(descriptors)?;

    // What others have defined: a server of theirs is asked.
    tonic_prost_build::configure()
        .compile_fds(protox::compile(["proto/envoy/service/ratelimit/v3/rls.proto"], ["proto"])?)?;
    let collector = ["trace/v1/trace_service", "logs/v1/logs_service"]
        .map(|name| format!("proto/opentelemetry/proto/collector/{name}.proto"));
    tonic_prost_build::configure().compile_fds(protox::compile(collector, ["proto"])?)?;
    Ok(())
}
