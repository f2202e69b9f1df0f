//! Compiles the protobuf files with a pure-Rust compiler, so that nobody needs `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files =
        ["discovery", "certificates", "preamble"].map(|name| format!("proto/selvedge/v1/{name}.proto"));
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".selvedge.v1")
        .btree_map(".selvedge.v1")
        .compile_fds(descriptors)?;
    Ok(())
}
