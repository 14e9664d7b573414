//! Makes the client of the proto, without an installed protoc.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../proto";
    let proto = "stiqueue/v1/queue.proto";
    println!("cargo:rerun-if-changed={root}/{proto}");
    let descriptors = protox::compile([proto], [root])?;
    tonic_build::configure().build_server(false).compile_fds(descriptors)?;
    Ok(())
}
