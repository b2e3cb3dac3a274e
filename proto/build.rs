//! Compiles the wire. The protobuf compiler is a library (protox), so no `protoc` is asked for here.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files =
        ["session", "exchange", "admin", "versions"].map(|name| format!("shardwright/v1/{name}.proto"));
    for file in &files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(&files, ["."])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(out, prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure().bytes(".shardwright.v1.Part").compile_fds(descriptors)?;
    Ok(())
}
