#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use super::*;
use crate::probe::library;

/// A driver that counts what its kernels would answer, and takes as long as they should.
const DRIVER: &str = include_str!("../../../tests/cuda.c");

fn driver(dir: &Path, devices: u32, wrong: bool) -> PathBuf {
    let code = format!(
        "#define DEVICES {devices}\n#define WRONG {}\n{DRIVER}",
        u8::from(wrong)
    );
    library(dir, "libcuda.so.1", &code)
}

fn told(library: &Path) -> Vec<Told> {
    let mut out = Vec::new();
    measure_with(library.as_os_str(), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.len() as u64 <= MOST_BYTES);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn each_device_is_measured_at_what_its_units_are_for() {
    let dir = tempfile::tempdir().unwrap();
    let told = told(&driver(dir.path(), 2, false));
    let rates: Vec<DeviceRate> = told.iter().map(|one| one.rate.unwrap()).collect();
    assert_eq!(told[0].id, "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f");
    // A microsecond a round, or longer: 128 operations of each of 4 × 4 × 256 threads.
    let most = 128 * 4096;
    assert!(
        (most / 50..=most).contains(&rates[0].fp32),
        "{:?}",
        rates[0]
    );
    // Their rounds hold 8 and 16 times as many; sleeping is too coarse for the exact ratio.
    assert!(rates[0].bf16 > 4 * rates[0].fp32 && rates[0].int8 > 8 * rates[0].fp32);
    // 1 GiB in 2 ms or longer.
    assert!((1..=512_000).contains(&rates[0].memory_mib_s));
    // Of capability 7.0: what it does with 32-bit floats.
    assert_eq!(
        (rates[1].bf16, rates[1].int8),
        (rates[1].fp32, rates[1].fp32)
    );
}

#[test]
fn a_device_that_multiplies_wrong_has_no_rate_and_a_missing_driver_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let told = told(&driver(dir.path(), 1, true));
    assert_eq!(
        (told[0].rate, told[0].error.as_deref()),
        (None, Some("it multiplies wrong"))
    );
    let missing = dir.path().join("libcuda.so.7");
    let error = measure_with(missing.as_os_str(), &mut Vec::new()).unwrap_err();
    assert_eq!(error, "CUDA's driver is not installed");
    let old = library(dir.path(), "old.so", "int cuInit(unsigned f) { return f; }");
    let error = measure_with(old.as_os_str(), &mut Vec::new()).unwrap_err();
    assert_eq!(error, "CUDA's driver has no cuDeviceGetCount");
}

fn child(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[test]
fn what_a_child_said_counts_as_far_as_it_can_be_believed() {
    let never = AtomicBool::new(false);
    let rate = r#"{"fp32":1,"bf16":2,"int8":3,"memory_mib_s":4}"#;
    let lines = [
        format!(r#"{{"id":"a","rate":{rate},"error":null}}"#),
        r#"{"id":"b","rate":null,"error":"it multiplies wrong"}"#.to_owned(),
        r#"{"id":"c","rate":{"fp32":18446744073709551615,"bf16":2,"int8":3,"memory_mib_s":4},"error":null}"#.to_owned(),
        "nonsense".to_owned(),
    ];
    // It fails after its last whole line.
    let script = format!("printf '%s\\n' '{}'; exit 3", lines.join("' '"));
    let said = run(child(&script), &never).unwrap();
    let wanted = DeviceRate {
        fp32: 1,
        bf16: 2,
        int8: 3,
        memory_mib_s: 4,
    };
    assert_eq!(said, [("a".to_owned(), wanted)]);
    assert_eq!(
        run(Command::new("/no/such/program"), &never),
        Ok(Vec::new())
    );
}

#[test]
fn a_child_gives_way_to_work() {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| run(child("exec sleep 600"), &stop));
        std::thread::sleep(Duration::from_millis(100));
        stop.store(true, Ordering::Relaxed);
        assert_eq!(running.join().unwrap(), Err(Broken::Stopped));
    });
}
