//! How what a machine can do reads: its accelerators, its nominal UCU by device, its measured vector.
//!
//! Owns the words and the JSON, the same for `farlane nodes` and `farlane agent probe`. Figures of two profiles,
//! or of two kinds of device, never meet in a sum.

use farlane_model::{Device, DeviceKind, MatrixRate, Measured, NodeSpec, WorkKind, nominal_cpu};
use serde_json::{Value, json};

use crate::show::{self, Table};

/// In one cell: what it was measured to do at fp32, or its cores by their data sheet.
pub fn cell(spec: &NodeSpec) -> String {
    match &spec.measured {
        Some(measured) => format!("{}, fp32", measured.ucu(WorkKind::Fp32)),
        None => nominal_cpu(spec.cpus, spec.clock_mhz).to_string(),
    }
}

/// Accelerators in one cell: `2 NVIDIA A100-SXM4-40GB`.
pub fn devices(spec: &NodeSpec) -> String {
    let mut alike: Vec<(&str, usize)> = Vec::new();
    for device in &spec.devices {
        match alike.iter_mut().find(|(model, _)| *model == device.model) {
            Some((_, count)) => *count += 1,
            None => alike.push((&device.model, 1)),
        }
    }
    let words = alike
        .iter()
        .map(|(model, count)| format!("{count} {}", show::name(model)));
    words.collect::<Vec<_>>().join(", ")
}

/// Cores and accelerators, each with its nominal figure.
pub fn nominal_table(spec: &NodeSpec, temperatures: &[Option<u32>]) -> Table {
    let mut table = Table::new(&["DEVICE", "MODEL", "MEMORY", "LIMIT", "NOW", "CAPACITY"]);
    table.row([
        format!("{} cores", f64::from(spec.cpus.0) / 1000.0),
        show::name(&spec.cpu_model),
        spec.memory.to_string(),
        String::new(),
        String::new(),
        nominal_cpu(spec.cpus, spec.clock_mhz).to_string(),
    ]);
    for (index, device) in spec.devices.iter().enumerate() {
        let degrees = temperatures.get(index).copied().flatten();
        table.row([
            show::name(&device.id),
            show::name(&device.model),
            device.memory.to_string(),
            match device.tdp_watts {
                0 => String::new(),
                watts => format!("{watts} W"),
            },
            degrees.map_or_else(String::new, |degrees| format!("{degrees} °C")),
            device.nominal().to_string(),
        ]);
    }
    table
}

/// What each accelerator was measured to sustain; `None` where none was.
pub fn devices_table(spec: &NodeSpec) -> Option<Table> {
    let mut table = Table::new(&[
        "DEVICE", "MODEL", "FP32", "BF16", "INT8", "MEMORY", "CAPACITY",
    ]);
    let known = |device: &Device| {
        device
            .measured
            .map(|rate| (device.id.clone(), device.model.clone(), rate))
    };
    let measured: Vec<_> = spec.devices.iter().filter_map(known).collect();
    for (id, model, rate) in &measured {
        table.row([
            show::name(id),
            show::name(model),
            operations(rate.fp32),
            operations(rate.bf16),
            operations(rate.int8),
            format!("{} MiB/s", rate.memory_mib_s),
            format!("{}, fp32", rate.ucu(WorkKind::Fp32)),
        ]);
    }
    (!measured.is_empty()).then_some(table)
}

/// The measured vector, by kind of work.
pub fn measured_table(measured: &Measured) -> Table {
    let cores = match measured.cores {
        1 => "1 CORE".to_owned(),
        cores => format!("{cores} CORES"),
    };
    let mut table = Table::new(&["WORK", "BY", "ONE CORE", &cores, "CAPACITY"]);
    for kind in WorkKind::ALL {
        let rate = matrix(measured, kind);
        let (by, one) = rate.map_or_else(Default::default, |rate| {
            (rate.unit.name().to_owned(), operations(rate.one_core))
        });
        let all = match rate {
            Some(rate) => operations(rate.all_cores),
            None => format!("{} MiB/s", measured.memory_mib_s),
        };
        table.row([
            kind.name().to_owned(),
            by,
            one,
            all,
            measured.ucu(kind).to_string(),
        ]);
    }
    let rest = [
        ("disk, written", measured.disk_write_mib_s),
        ("disk, read", measured.disk_read_mib_s),
        ("network", measured.network_mib_s),
    ];
    for (what, rate) in rest {
        let rate = rate.map_or_else(|| "not measured".to_owned(), |rate| format!("{rate} MiB/s"));
        table.row([
            what.to_owned(),
            String::new(),
            String::new(),
            rate,
            String::new(),
        ]);
    }
    table
}

fn matrix(measured: &Measured, kind: WorkKind) -> Option<&MatrixRate> {
    match kind {
        WorkKind::Fp32 => Some(&measured.fp32),
        WorkKind::Bf16 => Some(&measured.bf16),
        WorkKind::Int8 => Some(&measured.int8),
        WorkKind::Memory => None,
    }
}

/// Millions of operations a second, as people say them.
fn operations(millions: u64) -> String {
    match millions {
        0..1_000 => format!("{millions} Mop/s"),
        1_000..1_000_000 => format!("{:.1} Gop/s", millions as f64 / 1e3),
        _ => format!("{:.2} Top/s", millions as f64 / 1e6),
    }
}

/// Cores and accelerators, with their nominal figures, each named for its profile.
pub fn nominal_json(spec: &NodeSpec) -> Value {
    json!({
        "profile": "nominal",
        "cpu_ucu_thousandths": nominal_cpu(spec.cpus, spec.clock_mhz).thousandths(),
        "devices": spec.devices.iter().map(device_json).collect::<Vec<_>>(),
    })
}

fn device_json(device: &Device) -> Value {
    let mut value = json!({
        "type": device.device_type().name(),
        "model": device.model,
        "memory_bytes": device.memory.0,
        "tdp_watts": (device.tdp_watts > 0).then_some(device.tdp_watts),
        "id": device.id,
        "ucu_thousandths": device.nominal().thousandths(),
    });
    match device.kind {
        DeviceKind::Gpu { cuda_cores } => value["cuda_cores"] = cuda_cores.into(),
        DeviceKind::Tpu { gflops } => value["gflops"] = gflops.into(),
    }
    value
}

/// The measured vector; null where the machine was not measured yet.
pub fn measured_json(spec: &NodeSpec) -> Value {
    let Some(measured) = &spec.measured else {
        return Value::Null;
    };
    let kinds = WorkKind::ALL.into_iter().map(|kind| {
        let mut value = json!({"ucu_thousandths": measured.ucu(kind).thousandths()});
        if let Some(rate) = matrix(measured, kind) {
            value["unit"] = rate.unit.name().into();
            value["one_core_mops"] = rate.one_core.into();
            value["all_cores_mops"] = rate.all_cores.into();
        } else {
            value["mib_s"] = measured.memory_mib_s.into();
        }
        (kind.name().to_owned(), value)
    });
    json!({
        "profile": "measured",
        "at_ms": measured.at.0,
        "cores": measured.cores,
        "work": kinds.collect::<serde_json::Map<_, _>>(),
        "disk_write_mib_s": measured.disk_write_mib_s,
        "disk_read_mib_s": measured.disk_read_mib_s,
        "network_mib_s": measured.network_mib_s,
        "devices": spec.devices.iter().filter_map(rates_json).collect::<Vec<_>>(),
    })
}

fn rates_json(device: &Device) -> Option<Value> {
    let rate = device.measured?;
    let ucu =
        WorkKind::ALL.map(|kind| (kind.name().to_owned(), rate.ucu(kind).thousandths().into()));
    Some(json!({
        "id": device.id,
        "fp32_mops": rate.fp32,
        "bf16_mops": rate.bf16,
        "int8_mops": rate.int8,
        "memory_mib_s": rate.memory_mib_s,
        "ucu_thousandths": Value::Object(ucu.into_iter().collect()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_as_people_say_them() {
        let all = [0, 999, 1_000, 123_456, 2_345_678].map(operations);
        let wanted = [
            "0 Mop/s",
            "999 Mop/s",
            "1.0 Gop/s",
            "123.5 Gop/s",
            "2.35 Top/s",
        ];
        assert_eq!(all, wanted);
    }
}
