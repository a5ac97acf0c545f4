//! `farlane cancel`.

use farlane::v1;
use farlane_model::TaskId;
use serde_json::json;

use crate::command::tasks;
use crate::connect::{Target, block_on};
use crate::problem::{Exit, Problem};
use crate::show::{self, Form};

/// Cancel tasks: queued ones at once, running ones with their whole process group.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:  farlane cancel 01JDC4V8Q2X3S4ZK9T5B6N7M8P --reason \"wrong data\""
)]
pub struct Args {
    /// The tasks' ids.
    #[arg(required = true, num_args = 1..=1000)]
    tasks: Vec<TaskId>,
    /// Why; the exception that the waiting side gets says it.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    target: Target,
}

pub fn run(args: Args) -> Result<(), Problem> {
    let wanted = args.tasks.len();
    let cancelled = block_on(async {
        let network = args.target.connect().await?;
        let tasks = args
            .tasks
            .iter()
            .map(|t| t.to_bytes().to_vec().into())
            .collect();
        let request = v1::CancelTasksRequest {
            tasks,
            reason: args.reason,
        };
        Ok(network.cancel_tasks(request).await?.cancelled)
    })?;
    let ids: Vec<String> = cancelled.iter().map(|t| tasks::id(t)).collect();
    match args.form.json {
        true => show::json(&json!({"cancelled": ids, "asked": wanted}))?,
        false => ids
            .iter()
            .try_for_each(|id| show::line(&format!("cancelled {id}")))?,
    }
    match ids.len() {
        0 => Err(Problem::new(Exit::NotFound, "none of these tasks is live")
            .next("`farlane tasks` shows how they ended")),
        _ => Ok(()),
    }
}
