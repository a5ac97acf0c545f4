//! `farlane trace`.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use farlane::v1;
use farlane_units::Millis;
use serde_json::json;

use crate::connect::{Target, block_on};
use crate::parse;
use crate::price_file::moment_of;
use crate::problem::{Exit, Problem, doing};
use crate::show::{self, Form};

/// Record what the network did, to replay it with `farlane sim --trace`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Write what was submitted and has ended since, with every name hashed: who asked for what when, where it ran and
    /// for how long.
    ///
    /// Names of projects, functions, nodes, providers and labels are hashed with a salt that is made anew for each trace
    /// and kept nowhere; regions and models of GPUs stay. Needs a key with the scope `network`.
    #[command(
        after_help = "Example:  farlane trace export -o yesterday.jsonl --since 48h --until 24h\n          \
                            farlane trace export -o launch.jsonl --since 2026-11-22 --project lab\n          \
                            farlane sim --trace yesterday.jsonl"
    )]
    Export {
        /// The file; `-` for standard output.
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
        /// Tasks submitted from then on: so long ago (24h), or a day or moment (2026-11-22, 2026-11-22T08:00:00Z).
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = when)]
        since: When,
        /// Tasks submitted before then, likewise; now unless set.
        #[arg(long, value_name = "TIME", value_parser = when)]
        until: Option<When>,
        /// Only this project's; what others did then is missing in a replay.
        #[arg(long, value_name = "NAME")]
        project: Option<String>,
        #[command(flatten)]
        form: Form,
        #[command(flatten)]
        target: Target,
    },
}

/// A moment, as it was written.
#[derive(Debug, Clone, Copy)]
enum When {
    Ago(Duration),
    At(Millis),
}

fn when(text: &str) -> Result<When, String> {
    if let Ok(ago) = parse::duration(text) {
        return Ok(When::Ago(ago));
    }
    let day: Option<Millis> = text.parse().ok().and_then(|read| moment_of(&read));
    day.map(When::At).ok_or_else(|| {
        "write how long ago, like 24h, or a day or a moment, like 2026-11-22 or 2026-11-22T08:00:00Z".to_owned()
    })
}

impl When {
    /// Since the epoch, by this machine's clock.
    fn ms(self) -> u64 {
        let ago = match self {
            Self::At(at) => return at.0,
            Self::Ago(ago) => ago,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let then = now.unwrap_or_default().saturating_sub(ago);
        u64::try_from(then.as_millis()).unwrap_or(u64::MAX)
    }
}

pub fn run(args: Args) -> Result<(), Problem> {
    let Action::Export {
        output,
        since,
        until,
        project,
        form,
        target,
    } = args.action;
    let request = v1::ExportTraceRequest {
        since_ms: since.ms(),
        until_ms: until.map(When::ms),
        project: project.unwrap_or_default(),
    };
    if request
        .until_ms
        .is_some_and(|until| until <= request.since_ms)
    {
        let what = "--until must be later than --since";
        return Err(Problem::new(Exit::Usage, what));
    }
    block_on(export(target, form, &output, request))
}

/// What was written.
#[derive(Default)]
struct Written {
    bytes: u64,
    tasks: u64,
}

async fn export(
    target: Target,
    form: Form,
    output: &Path,
    request: v1::ExportTraceRequest,
) -> Result<(), Problem> {
    let network = target.connect().await?;
    let mut chunks = network.export_trace(request).await?;
    let mut written = Written::default();
    if output.as_os_str() == "-" {
        let mut out = std::io::stdout().lock();
        while let Some(chunk) = chunks.next().await? {
            out.write_all(&chunk.lines)?;
        }
        return Ok(());
    }
    // Under another name until it is whole: half a trace is never there, and an older one stays.
    let folder = match output.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let writing = || doing(format!("writing {}", output.display()));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(writing())?;
    let mut progress = Progress::new();
    while let Some(chunk) = chunks.next().await? {
        file.write_all(&chunk.lines).map_err(writing())?;
        written.bytes += chunk.lines.len() as u64;
        written.tasks = chunk.tasks;
        progress.show(chunk.tasks, chunk.all_tasks);
    }
    drop(progress);
    file.as_file().sync_all().map_err(writing())?;
    file.persist(output)
        .map_err(|error| error.error)
        .map_err(writing())?;
    let Written { bytes, tasks } = written;
    if form.json {
        return show::json(&json!({
            "file": output.display().to_string(),
            "tasks": tasks,
            "bytes": bytes,
        }));
    }
    show::line(&format!(
        "{tasks} tasks in {} bytes; `farlane sim --trace {}` replays them",
        bytes,
        output.display()
    ))
}

/// A bar on standard error, where that is a terminal.
struct Progress {
    terminal: bool,
    shown: Option<u64>,
}

/// Letters of the bar.
const BAR: u64 = 30;

impl Progress {
    fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            shown: None,
        }
    }

    fn show(&mut self, done: u64, all: u64) {
        let percent = done.min(all) * 100 / all.max(1);
        if !self.terminal || self.shown == Some(percent) {
            return;
        }
        self.shown = Some(percent);
        let full = (percent * BAR / 100) as usize;
        let bar = "=".repeat(full) + &" ".repeat(BAR as usize - full);
        eprint!("\rexporting [{bar}] {percent:3} %, {done} of {all} tasks");
        let _ = std::io::stderr().flush();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            eprintln!();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn moments_are_spans_or_dates() {
        assert!(matches!(when("24h"), Ok(When::Ago(d)) if d.as_secs() == 86_400));
        let day = 1_763_769_600_000;
        assert!(matches!(when("2025-11-22"), Ok(When::At(Millis(at))) if at == day));
        assert!(
            matches!(when("2025-11-22T00:00:01Z"), Ok(When::At(Millis(at))) if at == day + 1000)
        );
        for bad in ["", "yesterday", "2025-13-40", "24", "-1h"] {
            assert!(when(bad).is_err(), "{bad}");
        }
    }
}
