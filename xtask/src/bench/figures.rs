//! The figures of the spine: where each is found in a result, and what it must reach.

/// What a figure must reach.
#[derive(Debug, Clone, Copy)]
pub enum Bar {
    AtMost(f64),
    AtLeast(f64),
    /// As often the pool's figure of the same round.
    TimesPool(f64),
    None,
}

/// How a figure is found in a result.
#[derive(Debug, Clone, Copy)]
pub enum Figure {
    At(&'static str),
    /// The sum over the roles of an object.
    Sum(&'static str),
    /// The first divided by the second.
    Each(&'static str, &'static str),
}

/// One line of a table.
pub struct Row {
    pub label: &'static str,
    pub figure: Figure,
    pub unit: &'static str,
    pub bar: Bar,
}

const fn row(label: &'static str, figure: Figure, unit: &'static str, bar: Bar) -> Row {
    Row {
        label,
        figure,
        unit,
        bar,
    }
}

pub const CPU: &str = "throughput.cpu_us_per_task";

/// The figures of the spine, with the bars that SPEC.md promises.
pub const ROWS: [Row; 26] = [
    row(
        "no-ops",
        Figure::At("throughput.per_s"),
        "tasks/s",
        Bar::TimesPool(2.0),
    ),
    row(
        "  submit, in a batch",
        Figure::At("throughput.submit_us"),
        "µs/task",
        Bar::None,
    ),
    row(
        "  submit, one by one",
        Figure::At("submit_loop.submit_us"),
        "µs/task",
        Bar::None,
    ),
    row(
        "round trip p50",
        Figure::At("roundtrip.p50_ms"),
        "ms",
        Bar::AtMost(1.0),
    ),
    row(
        "round trip p99",
        Figure::At("roundtrip.p99_ms"),
        "ms",
        Bar::AtMost(4.0),
    ),
    row(
        "  a sync of the disk, p50",
        Figure::At("fdatasync.p50_ms"),
        "ms",
        Bar::None,
    ),
    row(
        "CPU per no-op, in all",
        Figure::Sum(CPU),
        "µs",
        Bar::AtMost(110.0),
    ),
    row(
        "  client",
        Figure::At("throughput.cpu_us_per_task.client"),
        "µs",
        Bar::AtMost(30.0),
    ),
    row(
        "  server",
        Figure::At("throughput.cpu_us_per_task.head"),
        "µs",
        Bar::AtMost(35.0),
    ),
    row(
        "  agent",
        Figure::At("throughput.cpu_us_per_task.daemon"),
        "µs",
        Bar::AtMost(20.0),
    ),
    row(
        "  templates",
        Figure::At("throughput.cpu_us_per_task.template"),
        "µs",
        Bar::None,
    ),
    row(
        "  workers",
        Figure::At("throughput.cpu_us_per_task.worker"),
        "µs",
        Bar::AtMost(25.0),
    ),
    row(
        "start to first result",
        Figure::At("cold_start.s"),
        "s",
        Bar::AtMost(0.7),
    ),
    row(
        "  import farlane",
        Figure::At("import.s"),
        "s",
        Bar::AtMost(0.1),
    ),
    row(
        "  import and Client",
        Figure::At("import.with_client_s"),
        "s",
        Bar::None,
    ),
    row(
        "idle memory: server",
        Figure::At("memory.head.rss_mib"),
        "MiB",
        Bar::AtMost(40.0),
    ),
    row(
        "  agent",
        Figure::At("memory.daemon.rss_mib"),
        "MiB",
        Bar::AtMost(20.0),
    ),
    row(
        "  templates and bwrap",
        Figure::At("memory.template.rss_mib"),
        "MiB",
        Bar::None,
    ),
    row(
        "  a worker",
        Figure::Each("memory.worker.rss_mib", "memory.worker.n"),
        "MiB",
        Bar::AtMost(20.0),
    ),
    row(
        "  a worker, shares split",
        Figure::Each("memory.worker.pss_mib", "memory.worker.n"),
        "MiB",
        Bar::None,
    ),
    row(
        "kill -9 to retried result",
        Figure::At("failure.recovery_s"),
        "s",
        Bar::AtMost(0.05),
    ),
    row(
        "echo of 1 MiB",
        Figure::At("echo.1MiB.mb_per_s"),
        "MB/s",
        Bar::AtLeast(60.0),
    ),
    row(
        "  16 MiB",
        Figure::At("echo.16MiB.mb_per_s"),
        "MB/s",
        Bar::AtLeast(150.0),
    ),
    row(
        "  64 MiB",
        Figure::At("echo.64MiB.mb_per_s"),
        "MB/s",
        Bar::AtLeast(150.0),
    ),
    row("load before", Figure::At("load_before"), "", Bar::None),
    row(
        "taken by the hypervisor",
        Figure::At("steal"),
        "of 1",
        Bar::None,
    ),
];
