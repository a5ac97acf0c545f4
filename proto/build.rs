//! Generates the wire types from `farlane/v1/*.proto`, without protoc.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let files = ["types", "network", "fleet", "consensus"]
        .map(|name| root.join(format!("farlane/v1/{name}.proto")));
    println!("cargo:rerun-if-changed=farlane");
    let descriptors = protox::compile(&files, [&root])?;
    // Payloads stay shared buffers from the socket to the log: no copy per hop.
    let descriptors = prost_types_descriptor(descriptors)?;
    let mut config = tonic_prost_build::Config::new();
    config.bytes(["."]);
    tonic_prost_build::configure()
        .build_transport(false)
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}

/// Passes the descriptors through their encoding, so that the two crates' prost-types may differ.
fn prost_types_descriptor<A, B>(from: A) -> Result<B, Box<dyn std::error::Error>>
where
    A: prost::Message,
    B: prost::Message + Default,
{
    Ok(B::decode(from.encode_to_vec().as_slice())?)
}
