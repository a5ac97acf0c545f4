//! `farlane tasks`.

use clap::ValueEnum;
use farlane::v1;
use farlane_model::TaskId;
use farlane_units::UsdMicros;
use serde_json::{Value, json};

use crate::connect::{Target, block_on};
use crate::owner::hex;
use crate::problem::Problem;
use crate::show::{self, Form, Table};

/// List the project's tasks, newest first.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:  farlane tasks --phase running\n          farlane tasks --limit 500 --json"
)]
pub struct Args {
    /// Only those in this phase.
    #[arg(long)]
    phase: Option<Phase>,
    /// How many.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only those older than this one: the next page.
    #[arg(long, value_name = "TASK")]
    before: Option<TaskId>,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    target: Target,
}

/// Where a task is in its life.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Phase {
    Queued,
    Placed,
    Running,
    Finished,
    Cancelled,
}

impl Phase {
    const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Placed => "placed",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Cancelled => "cancelled",
        }
    }
}

pub fn run(args: Args) -> Result<(), Problem> {
    let request = v1::ListTasksRequest {
        phase: args.phase.map(Phase::word).unwrap_or_default().to_owned(),
        limit: args.limit,
        before: args
            .before
            .map(|t| t.to_bytes().to_vec().into())
            .unwrap_or_default(),
    };
    let (tasks, now) = block_on(async {
        let network = args.target.connect().await?;
        let tasks = network.list_tasks(request).await?.tasks;
        Ok((tasks, show::now_ms()))
    })?;
    if args.form.json {
        return show::json(&tasks.iter().map(as_json).collect::<Vec<_>>());
    }
    let mut table = Table::new(&[
        "TASK",
        "FUNCTION",
        "PHASE",
        "SUBMITTED",
        "RAN",
        "COST",
        "REGION",
        "NODE",
        "TRIES",
    ]);
    for task in &tasks {
        let ran = match (task.started_ms, task.ended_ms) {
            (0, _) => String::new(),
            (from, 0) => show::span(now.saturating_sub(from)),
            (from, to) => show::span(to.saturating_sub(from)),
        };
        table.row([
            id(&task.task),
            function(task),
            phase(task),
            show::relative(task.submitted_ms, now),
            ran,
            show::money(UsdMicros(task.cost_usd_micros)),
            show::name(&task.region),
            show::name(&task.node_name),
            task.attempt.to_string(),
        ]);
    }
    table.print("no tasks here")
}

/// Its function, and of a gang's task its rank and how many there are.
fn function(task: &v1::TaskView) -> String {
    let name = show::name(&task.function);
    match task.gang_size {
        0 => name,
        size => format!("{name} [{}/{size}]", task.gang_rank),
    }
}

/// A task's identity as people write it; hexadecimal where it is none.
pub fn id(bytes: &[u8]) -> String {
    TaskId::from_slice(bytes).map_or_else(|_| hex(bytes), |t| t.to_string())
}

/// Phase, and how it ended where it has.
pub fn phase(task: &v1::TaskView) -> String {
    match task.phase() {
        v1::TaskPhase::Unspecified => "unknown".to_owned(),
        v1::TaskPhase::Queued => "queued".to_owned(),
        v1::TaskPhase::Placed => "placed".to_owned(),
        v1::TaskPhase::Running => "running".to_owned(),
        v1::TaskPhase::Cancelled => "cancelled".to_owned(),
        v1::TaskPhase::Finished => task
            .exit
            .as_ref()
            .map_or_else(|| "finished".to_owned(), exit),
    }
}

/// How an attempt ended, in a word or two.
pub fn exit(exit: &v1::Exit) -> String {
    let word = match exit.kind() {
        v1::ExitKind::Unspecified => "finished",
        v1::ExitKind::Returned => "returned",
        v1::ExitKind::Raised => "raised",
        v1::ExitKind::Lost => return format!("lost: {}", lost(exit)),
        v1::ExitKind::TimedOut => "timed out",
        v1::ExitKind::Cancelled => "cancelled",
        v1::ExitKind::EnvFailed => "environment failed",
        v1::ExitKind::Refused => "refused by the node",
        v1::ExitKind::Expired => "expired",
        v1::ExitKind::Infeasible => "infeasible",
    };
    word.to_owned()
}

fn lost(exit: &v1::Exit) -> String {
    match exit.lost() {
        v1::LostCause::Unspecified => "unknown cause".to_owned(),
        v1::LostCause::Signal => format!("signal {}", exit.detail),
        v1::LostCause::Exit => format!("exit {}", exit.detail),
        v1::LostCause::OutOfMemory => "out of memory".to_owned(),
        v1::LostCause::ScratchFull => "scratch full".to_owned(),
        v1::LostCause::LeaseExpired => "lease expired".to_owned(),
        v1::LostCause::NodeRestarted => "node restarted".to_owned(),
        v1::LostCause::NodeRemoved => "node removed".to_owned(),
        v1::LostCause::Sandbox => "sandbox".to_owned(),
        v1::LostCause::GangBroken => "gang broken".to_owned(),
        v1::LostCause::Preempted => "preempted".to_owned(),
    }
}

/// One task for programs.
pub fn as_json(task: &v1::TaskView) -> Value {
    json!({
        "task": id(&task.task),
        "function": task.function,
        "phase": phase(task),
        "attempt": task.attempt,
        "retries": task.retries,
        "gang": (task.gang_size > 0).then(|| json!({
            "rank": task.gang_rank, "size": task.gang_size,
        })),
        "node": hex(&task.node),
        "node_name": task.node_name,
        "region": task.region,
        "submitted_ms": task.submitted_ms,
        "started_ms": task.started_ms,
        "ended_ms": task.ended_ms,
        "cost_usd_micros": task.cost_usd_micros,
        "grams": task.emitted_ng.map(|ng| ng as f64 / 1e9),
        "exit": task.exit.as_ref().map(|e| json!({
            "kind": exit(e), "detail": e.detail, "message": e.message,
        })),
    })
}
