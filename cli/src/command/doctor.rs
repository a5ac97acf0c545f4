//! `farlane doctor`.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use farlane::{Network, v1};
use serde::Serialize;

use crate::command::status::leaderless;
use crate::connect::{Target, block_on};
use crate::problem::Problem;
use crate::show::{self, Form};

/// Own clock against cluster time: more breaks certificates, which are backdated by it. Source:
/// farlane-controller, `issue`.
const MAX_SKEW_MS: u64 = 60 * 60 * 1000;
/// Skew worth a word: leases last 10 s, and times on receipts should make sense.
const NOTABLE_SKEW_MS: u64 = 5_000;

/// Check this machine and its network, and say what to do about each fault.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:  farlane doctor")]
pub struct Args {
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    target: Target,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Fine,
    Warning,
    Fault,
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    next: String,
}

impl Check {
    fn fine(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Fine,
            found: found.into(),
            next: String::new(),
        }
    }
    fn bad(
        name: &'static str,
        verdict: Verdict,
        found: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self {
            name,
            verdict,
            found: found.into(),
            next: next.into(),
        }
    }
}

pub fn run(args: Args) -> Result<(), Problem> {
    let mut checks = vec![python(), sandbox(), uv(), data_folder(&args.target)];
    checks.extend(block_on(network(&args.target))?);
    if args.form.json {
        show::json(&checks)?;
    } else {
        for check in &checks {
            let mark = match check.verdict {
                Verdict::Fine => "ok  ",
                Verdict::Warning => "warn",
                Verdict::Fault => "FAIL",
            };
            show::line(&format!("{mark}  {:<9} {}", check.name, check.found))?;
            if !check.next.is_empty() {
                show::line(&format!("                → {}", check.next))?;
            }
        }
    }
    match checks
        .iter()
        .filter(|c| c.verdict == Verdict::Fault)
        .count()
    {
        0 => Ok(()),
        1 => Err(Problem::failed("one check failed")),
        n => Err(Problem::failed(format!("{n} checks failed"))),
    }
}

/// First line of what a program says, where it runs.
fn says(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .ok()
        .filter(|o| o.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().next().unwrap_or_default().trim().to_owned())
}

fn python() -> Check {
    let script =
        "import sys; print('%d.%d.%d' % sys.version_info[:3], int(sys.version_info >= (3, 10)))";
    match says("python3", &["-c", script]) {
        Some(found) if found.ends_with(" 1") => {
            Check::fine("python", found.trim_end_matches(" 1").to_owned())
        }
        Some(found) => Check::bad(
            "python",
            Verdict::Warning,
            format!("{} is too old", found.trim_end_matches(" 0")),
            "install Python 3.10 or newer (Debian: apt-get install -y python3)",
        ),
        None => Check::bad(
            "python",
            Verdict::Warning,
            "no python3 here: this machine can run no tasks",
            "apt-get install -y python3",
        ),
    }
}

fn sandbox() -> Check {
    let probe = [
        "--unshare-all",
        "--unshare-user",
        "--die-with-parent",
        "--ro-bind",
        "/",
        "/",
        "true",
    ];
    if says("bwrap", &["--version"]).is_none() {
        return Check::bad(
            "sandbox",
            Verdict::Warning,
            "bubblewrap is not installed: tasks of others cannot run here",
            farlane_daemon::bubblewrap_line(),
        );
    }
    match says("bwrap", &probe) {
        Some(_) => Check::fine("sandbox", "bubblewrap can make namespaces"),
        None => Check::bad(
            "sandbox",
            Verdict::Warning,
            "the kernel refuses namespaces: only this owner's own tasks can run here",
            farlane_daemon::namespaces_line(),
        ),
    }
}

fn uv() -> Check {
    let version = crate::uv::find().and_then(|uv| says(uv.to_str()?, &["--version"]));
    match version {
        Some(found) => Check::fine("uv", found),
        None => Check::bad(
            "uv",
            Verdict::Warning,
            "uv is not installed: no environments (fl.Env) can be built here",
            "pip install uv",
        ),
    }
}

fn data_folder(target: &Target) -> Check {
    let folder = target.owner_folder();
    match std::fs::metadata(&folder) {
        Err(_) => Check::fine("data", format!("{} (not made yet)", folder.display())),
        Ok(found) if found.permissions().mode() & 0o077 == 0 => {
            Check::fine("data", folder.display().to_string())
        }
        Ok(_) => Check::bad(
            "data",
            Verdict::Fault,
            format!("{} can be entered by others", folder.display()),
            format!("chmod 700 {}", folder.display()),
        ),
    }
}

async fn network(target: &Target) -> Result<Vec<Check>, Problem> {
    let network = match target.connect().await {
        Ok(network) => network,
        Err(problem) => {
            let next = problem.step().unwrap_or_default().to_owned();
            return Ok(vec![Check::bad(
                "network",
                Verdict::Fault,
                problem.what(),
                next,
            )]);
        }
    };
    let mut checks = Vec::new();
    let asked = show::now_ms();
    let status = match network.get_status(v1::GetStatusRequest {}).await {
        Ok(status) => status,
        Err(error) => {
            let problem = Problem::from(error);
            let next = problem.step().unwrap_or_default().to_owned();
            return Ok(vec![Check::bad(
                "network",
                Verdict::Fault,
                problem.what(),
                next,
            )]);
        }
    };
    checks.push(Check::fine(
        "network",
        format!(
            "{} answers in {} ms",
            network.identity().urls.join(", "),
            show::now_ms() - asked
        ),
    ));
    checks.push(match leaderless(&status) {
        Some(warning) => Check::bad(
            "leader",
            Verdict::Fault,
            warning,
            "start the other servers; their logs say what keeps them apart",
        ),
        None => Check::fine("leader", status.leader.clone()),
    });
    checks.push(clock(status.cluster_time_ms));
    checks.push(machines(&network, &status).await);
    checks.push(
        match network
            .identity()
            .device
            .check(farlane_units::Millis(show::now_ms()))
        {
            Ok(()) => Check::fine(
                "identity",
                format!("device {:?}", network.identity().device.name),
            ),
            Err(error) => Check::bad(
                "identity",
                Verdict::Fault,
                error.to_string(),
                "`farlane login` again",
            ),
        },
    );
    Ok(checks)
}

fn clock(cluster_ms: u64) -> Check {
    let skew = show::now_ms().abs_diff(cluster_ms);
    let found = format!("{} from the network's", show::span(skew));
    let next = "timedatectl set-ntp true";
    match skew {
        0..NOTABLE_SKEW_MS => Check::fine("clock", found),
        NOTABLE_SKEW_MS..MAX_SKEW_MS => Check::bad("clock", Verdict::Warning, found, next),
        _ => Check::bad("clock", Verdict::Fault, found, next),
    }
}

async fn machines(network: &Network, status: &v1::StatusReply) -> Check {
    if status.nodes_online > 0 {
        return Check::fine(
            "nodes",
            format!("{} online of {}", status.nodes_online, status.nodes),
        );
    }
    let known = network
        .list_nodes(v1::ListNodesRequest {})
        .await
        .map(|r| r.nodes)
        .unwrap_or_default();
    let newest = known.iter().map(|n| n.last_seen_ms).max().unwrap_or(0);
    Check::bad(
        "nodes",
        Verdict::Fault,
        format!(
            "none online of {}; last seen {}",
            status.nodes,
            show::relative(newest, show::now_ms())
        ),
        "`farlane tokens create` makes a join file for a machine",
    )
}
