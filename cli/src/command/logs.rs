//! `farlane logs`.

use std::io::Write;

use farlane::{LogPiece, Output};
use farlane_model::TaskId;
use serde_json::json;

use crate::connect::{Target, block_on};
use crate::problem::Problem;
use crate::show::{self, Form};

/// Print what a task wrote; opened here, with this project's keys.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:  farlane logs --follow 01JDC4V8Q2X3S4ZK9T5B6N7M8P\n          \
                        farlane logs 01JDC4V8Q2X3S4ZK9T5B6N7M8P --attempt 1 --json"
)]
pub struct Args {
    /// The task's id, as `farlane tasks` or `future.id` show it.
    task: TaskId,
    /// Wait for more until the task ends.
    #[arg(long, short)]
    follow: bool,
    /// Which attempt; the newest by default.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    attempt: u32,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    target: Target,
}

pub fn run(args: Args) -> Result<(), Problem> {
    block_on(async {
        let network = args.target.connect().await?;
        let mut logs = network.logs(args.task, args.attempt, args.follow).await?;
        while let Some(pieces) = logs.next().await? {
            for piece in &pieces {
                match args.form.json {
                    true => as_json(piece)?,
                    false => as_written(piece)?,
                }
            }
        }
        Ok(())
    })
}

/// Each stream to its own, as the task wrote it.
fn as_written(piece: &LogPiece) -> Result<(), Problem> {
    match piece {
        LogPiece::Text {
            output: Output::Stdout,
            bytes,
        } => {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes)?;
            out.flush()?;
        }
        LogPiece::Text {
            output: Output::Stderr,
            bytes,
        } => std::io::stderr().lock().write_all(bytes)?,
        LogPiece::Progress { fraction, text } => eprintln!("[{:>3.0} %] {text}", fraction * 100.0),
        LogPiece::Dropped { bytes } => {
            eprintln!("farlane: {bytes} more bytes were written than the task's log_limit keeps");
        }
    }
    Ok(())
}

/// One object a line.
fn as_json(piece: &LogPiece) -> Result<(), Problem> {
    let value = match piece {
        LogPiece::Text { output, bytes } => json!({
            "stream": match output { Output::Stdout => "stdout", Output::Stderr => "stderr" },
            "text": String::from_utf8_lossy(bytes),
        }),
        LogPiece::Progress { fraction, text } => json!({"progress": fraction, "text": text}),
        LogPiece::Dropped { bytes } => json!({"dropped_bytes": bytes}),
    };
    show::line(&value.to_string())
}
