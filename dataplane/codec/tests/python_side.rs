//! The Python side of the value codec, held to the same vectors.

use std::process::Command;

#[test]
fn workers_encode_the_shared_vectors() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/test_value_codec.py");
    let out = Command::new("python3").arg("-B").arg(script).output();
    let out = out.expect("python3 is needed to test what workers run");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}
