#![allow(clippy::unwrap_used)]
//! On what drivers said of their devices, and on small libraries that say as much through the real calls.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

struct Recorded {
    nvml: Result<Vec<Reading>, Unread>,
    cuda: Result<Vec<Reading>, Unread>,
}

impl Drivers for Recorded {
    fn nvml(&self) -> Result<Vec<Reading>, Unread> {
        self.nvml.clone()
    }
    fn cuda(&self) -> Result<Vec<Reading>, Unread> {
        self.cuda.clone()
    }
}

/// An A100 as release 470 tells of it, which does not know the cores.
fn a100() -> Reading {
    Reading {
        id: "GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77".into(),
        model: "NVIDIA A100-SXM4-40GB".into(),
        memory: 42_505_273_344,
        capability: Some((8, 0)),
        power_milliwatts: Some(400_000),
        temperature: Some(31),
        ..Reading::default()
    }
}

/// An H100 as release 550 tells of it.
fn h100() -> Reading {
    Reading {
        id: "GPU-2f9c8e1a-0b7d-4c43-9d0e-6a5b1c2d3e4f".into(),
        model: "NVIDIA H100 80GB HBM3".into(),
        memory: 85_520_809_984,
        cores: Some(16_896),
        capability: Some((9, 0)),
        power_milliwatts: Some(700_000),
        temperature: Some(29),
        ..Reading::default()
    }
}

fn nvml(readings: Vec<Reading>) -> Recorded {
    Recorded {
        nvml: Ok(readings),
        cuda: Err(Unread::Missing),
    }
}

#[test]
fn a_device_whose_driver_knows_its_cores_needs_no_other_library() {
    let found = find(&nvml(vec![h100()]));
    assert!(found.refused.is_empty(), "{found:?}");
    let device = &found.found[0].device;
    assert_eq!(device.kind, DeviceKind::Gpu { cuda_cores: 16_896 });
    assert_eq!(
        (device.tdp_watts, device.model.as_str()),
        (700, "NVIDIA H100 80GB HBM3")
    );
    assert_eq!(found.found[0].temperature, Some(29));
    // 16896 × 0.8 + 85.520809984 × 0.2
    assert_eq!(device.nominal().to_string(), "13533.904 UCU (nominal)");
}

#[test]
fn an_older_driver_is_completed_by_cuda() {
    let drivers = Recorded {
        nvml: Ok(vec![a100(), h100()]),
        // CUDA's order is its own.
        cuda: Ok(vec![
            Reading {
                id: h100().id,
                multiprocessors: Some(132),
                capability: Some((9, 0)),
                ..Reading::default()
            },
            Reading {
                id: a100().id,
                multiprocessors: Some(108),
                capability: Some((8, 0)),
                ..Reading::default()
            },
        ]),
    };
    let found = find(&drivers);
    let kinds: Vec<_> = found.found.iter().map(|one| one.device.kind).collect();
    let cores = [6912, 16_896].map(|cuda_cores| DeviceKind::Gpu { cuda_cores });
    assert_eq!(kinds, cores);
}

#[test]
fn without_nvml_cuda_alone_will_do() {
    let jetson = Reading {
        id: "GPU-00000000-0000-0000-0000-000000000000".into(),
        model: "Orin".into(),
        memory: 32 << 30,
        multiprocessors: Some(16),
        capability: Some((8, 7)),
        ..Reading::default()
    };
    let found = find(&Recorded {
        nvml: Err(Unread::Missing),
        cuda: Ok(vec![jetson]),
    });
    let device = &found.found[0].device;
    assert_eq!(device.kind, DeviceKind::Gpu { cuda_cores: 2048 });
    assert_eq!(device.tdp_watts, 0);
}

#[test]
fn a_machine_without_any_says_nothing() {
    let none = find(&Recorded {
        nvml: Err(Unread::Missing),
        cuda: Err(Unread::Missing),
    });
    assert_eq!(none, Devices::default());
}

#[test]
fn what_cannot_be_believed_is_refused_and_named() {
    type Change = fn(&mut Reading);
    let absurd: [(Change, &str); 7] = [
        (|r| r.cores = Some(0), "0 cores are not believed"),
        (
            |r| r.cores = Some(u32::MAX),
            "4294967295 cores are not believed",
        ),
        (|r| r.memory = 0, "0 bytes of memory"),
        (
            |r| r.memory = u64::MAX,
            "18446744073709551615 bytes of memory",
        ),
        (|r| r.cores = None, "do not say how many cores"),
        (
            |r| (r.cores, r.multiprocessors, r.capability) = (None, Some(9), Some((99, 9))),
            "compute capability 99.9 are not known",
        ),
        (
            |r| (r.cores, r.multiprocessors) = (None, Some(u32::MAX)),
            "4294967295 cores are not believed",
        ),
    ];
    for (change, why) in absurd {
        let mut reading = h100();
        change(&mut reading);
        let found = find(&nvml(vec![reading]));
        assert!(found.found.is_empty());
        assert!(found.refused[0].contains(why), "{:?}", found.refused);
    }
    let mut hot = h100();
    hot.model = format!("\u{1b}]0;pwned\u{7}{}", "x".repeat(500));
    (hot.power_milliwatts, hot.temperature) = (Some(u32::MAX), Some(u32::MAX));
    let found = find(&nvml(vec![hot])).found.remove(0);
    assert_eq!((found.device.tdp_watts, found.temperature), (0, None));
    assert!(found.device.model.starts_with("]0;pwnedx") && found.device.model.len() == 64);
}

/// A library made of C, in place of the driver's.
pub(crate) fn library(dir: &Path, name: &str, code: &str) -> PathBuf {
    let (source, made) = (dir.join(format!("{name}.c")), dir.join(name));
    std::fs::write(&source, code).unwrap();
    let mut compiler = Command::new("cc");
    compiler
        .args(["-shared", "-fPIC", "-o"])
        .arg(&made)
        .arg(&source);
    assert!(compiler.status().unwrap().success());
    made
}

const NVML: &str = r#"
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory;
static int on = 0;
int nvmlInit_v2(void) { on = 1; return 0; }
int nvmlShutdown(void) { on = 0; return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return on ? 0 : 1; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { *d = (void *)(i + 1L); return on ? 0 : 1; }
int nvmlDeviceGetName(void *d, char *t, unsigned n) { strncpy(t, "NVIDIA A100-SXM4-40GB", n); return 0; }
int nvmlDeviceGetUUID(void *d, char *t, unsigned n) {
  strncpy(t, d == (void *)1 ? "GPU-000102030405" : "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f", n); return 0; }
int nvmlDeviceGetMemoryInfo(void *d, memory *m) { m->total = 42505273344ULL; return 0; }
int nvmlDeviceGetEnforcedPowerLimit(void *d, unsigned *w) { *w = 400000; return 0; }
int nvmlDeviceGetTemperature(void *d, unsigned s, unsigned *t) { *t = 31 + s; return 0; }
int nvmlDeviceGetCudaComputeCapability(void *d, int *a, int *b) { *a = 8; *b = 0; return 0; }
"#;

const CUDA: &str = r#"
#include <string.h>
int cuInit(unsigned f) { return f; }
int cuDeviceGetCount(int *n) { *n = 1; return 0; }
int cuDeviceGet(int *d, int i) { *d = 40 + i; return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 16 ? 108 : a == 75 ? 8 : 0; return d == 40 ? 0 : 1; }
int cuDeviceGetName(char *t, int n, int d) { memset(t, 'A', n); return 0; }
int cuDeviceTotalMem_v2(unsigned long *b, int d) { *b = 42505273344UL; return 0; }
int cuDeviceGetUuid(unsigned char *u, int d) { for (int i = 0; i < 16; i++) u[i] = i; return 0; }
"#;

#[test]
fn libraries_are_loaded_and_asked_as_their_references_say() {
    let dir = tempfile::tempdir().unwrap();
    let (nvml, cuda) = (
        library(dir.path(), "libnvidia-ml.so.1", NVML),
        library(dir.path(), "libcuda.so.1", CUDA),
    );
    let read = nvml::read(nvml.as_os_str()).unwrap();
    assert_eq!(read.len(), 2);
    let wanted = Reading {
        id: "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f".into(),
        ..a100()
    };
    assert_eq!(read[1], wanted);
    let listed = cuda::read(cuda.as_os_str()).unwrap();
    // A name that fills its room has no end.
    assert_eq!(listed[0].model, "A".repeat(96));
    let found = find(&Recorded {
        nvml: Ok(read),
        cuda: Ok(listed),
    });
    // The second is the one that CUDA lists too; of the first nobody knows the cores.
    assert_eq!(found.found.len(), 1);
    let kind = found.found[0].device.kind;
    assert_eq!(kind, DeviceKind::Gpu { cuda_cores: 6912 });
    assert!(found.refused[0].contains("how many cores"), "{found:?}");
}

#[test]
fn a_library_that_is_none_or_lacks_a_function_or_fails_is_broken_and_one_that_is_not_there_is_missing()
 {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("libnvidia-ml.so.7");
    assert_eq!(nvml::read(missing.as_os_str()), Err(Unread::Missing));
    assert_eq!(cuda::read(missing.as_os_str()), Err(Unread::Missing));
    let text = dir.path().join("text.so");
    std::fs::write(&text, "not a library").unwrap();
    let empty = library(dir.path(), "empty.so", "int nothing;");
    let failing = library(
        dir.path(),
        "failing.so",
        "int nvmlInit_v2(void) { return 9; } int cuInit(unsigned f) { return 999; }\
         int cuDeviceGetCount(int *n) { return 1; } int cuDeviceGet(int *d, int i) { return 1; }",
    );
    let cases = [
        (&text, "", ""),
        (&empty, "it has no nvmlInit_v2", "it has no cuInit"),
        (&failing, "driver is not loaded", "cuInit answers 999"),
    ];
    for (path, of_nvml, of_cuda) in cases {
        let name = path.as_os_str();
        for (said, why) in [(nvml::read(name), of_nvml), (cuda::read(name), of_cuda)] {
            assert!(
                matches!(&said, Err(Unread::Broken(text)) if text.contains(why)),
                "{said:?}"
            );
        }
    }
    let found = find(&Recorded {
        nvml: nvml::read(text.as_os_str()),
        cuda: Err(Unread::Missing),
    });
    assert!(
        found.refused[0].starts_with("NVML cannot be used: "),
        "{found:?}"
    );
}
