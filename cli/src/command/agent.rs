//! `farlane agent`.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::builder::{NonEmptyStringValueParser, TypedValueParser};
use farlane_daemon::{Agent, AgentConfig, AgentError, User, enrolled};
use farlane_model::{Amount, MAX_NODE_RESOURCES, TenantId};
use farlane_runtime::{Shutdown, telemetry};
use farlane_seal::join::{JoinFile, MAX_JOIN_FILE};
use farlane_seal::record::EnrolmentTerms;
use farlane_units::{ByteCount, MilliCpu, UsdMicros};

use crate::agent_process::{self, AgentProcess};
use crate::connect::block_on;
use crate::problem::{Exit, Problem, doing, reading};
use crate::{folders, parse, show};

use super::probe;

/// Join this machine to a network and run tasks on it.
///
/// The join file is needed once; afterwards the state folder knows. Started as root, the agent runs
/// as the system user `farlane`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Example:  farlane agent --join-file farlane-join-eu-central.txt\n          \
                        ssh HOST farlane agent --join-file - < farlane-join-eu-central.txt\n          \
                        farlane agent probe"
)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// Join file from `farlane tokens create`; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    join_file: Option<PathBuf>,
    /// Where it keeps its identity, caches and unsent results.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(flatten)]
    pub offer: Offer,
    /// Not the machine's to say; the flag is known only to say who does.
    #[arg(long = "label", value_name = "KEY=VALUE", hide = true)]
    labels: Vec<String>,
    /// What to log: a level, or levels by part, like `info,farlane_daemon=debug`.
    #[arg(long, env = "FARLANE_LOG", default_value = "info")]
    log: String,
    /// Child of another farlane process: says when it is ready, ends when standard input does.
    #[arg(long, hide = true)]
    supervised: bool,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Action {
    Probe(Box<probe::Args>),
    /// Child of an agent: measures every GPU that CUDA's driver lists.
    #[command(hide = true, after_help = "Example:  farlane agent measure-gpus")]
    MeasureGpus,
}

/// What the machine offers; measured where not told.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "What it offers")]
pub struct Offer {
    /// Name for people; the host's by default.
    #[arg(long)]
    pub name: Option<String>,
    /// Cores; all by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub cpus: Option<u32>,
    /// Memory, like 8GiB; nine tenths by default.
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<ByteCount>,
    /// Scratch space, like 20GiB; half of what is free by default.
    #[arg(long, value_name = "SIZE")]
    pub disk: Option<ByteCount>,
    /// What else is here and may be held once at a time, like license=2; may be given again.
    #[arg(long = "resource", value_name = "NAME=N", value_parser = parse::resource)]
    pub resources: Vec<Amount>,
    /// Dollars for one core for an hour, where no join file names a price; 0 by default.
    #[arg(long, value_name = "USD", value_parser = NonEmptyStringValueParser::new().try_map(checked_price))]
    pub price: Option<String>,
    /// Python interpreter beside those found; may be given again.
    #[arg(long = "python", value_name = "PATH")]
    pub pythons: Vec<PathBuf>,
    /// Only run this tenant's work; may be given again.
    #[arg(long = "tenant", value_name = "ID")]
    pub tenants: Vec<TenantId>,
    /// Tenant whose work may run here without a sandbox, where the kernel refuses one.
    #[arg(long = "own-tenant", value_name = "ID")]
    pub own_tenants: Vec<TenantId>,
    /// The `uv` program that builds environments.
    #[arg(long, value_name = "PATH")]
    pub uv: Option<PathBuf>,
}

/// Checked here, kept as written: it goes on to a child's flags.
fn checked_price(text: String) -> Result<String, String> {
    parse::price(&text).map(|_| text)
}

impl Offer {
    fn price(&self) -> Option<UsdMicros> {
        self.price.as_ref().and_then(|text| parse::price(text).ok())
    }

    /// As flags of a child.
    pub fn flags(&self) -> Vec<String> {
        let mut flags = Vec::new();
        let mut flag = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                flags.extend([format!("--{name}"), value]);
            }
        };
        flag("name", self.name.clone());
        flag("cpus", self.cpus.map(|n| n.to_string()));
        flag("memory", self.memory.map(|m| m.0.to_string()));
        flag("disk", self.disk.map(|d| d.0.to_string()));
        flag("price", self.price.clone());
        flag("uv", self.uv.as_ref().map(|p| p.display().to_string()));
        self.resources
            .iter()
            .for_each(|r| flag("resource", Some(format!("{}={}", r.name, r.amount))));
        self.pythons
            .iter()
            .for_each(|p| flag("python", Some(p.display().to_string())));
        self.tenants
            .iter()
            .for_each(|t| flag("tenant", Some(t.to_string())));
        self.own_tenants
            .iter()
            .for_each(|t| flag("own-tenant", Some(t.to_string())));
        flags
    }

    /// Each named resource once, as a node's spec lists them.
    ///
    /// *Errors*: one is named twice, or there are too many.
    pub fn check(&self) -> Result<(), Problem> {
        let resources = self.sorted();
        if let Some(pair) = resources
            .windows(2)
            .find(|pair| pair[0].name == pair[1].name)
        {
            let what = format!("--resource names {} twice", pair[0].name);
            return Err(
                Problem::new(Exit::Usage, what).next("name it once, with all that there is")
            );
        }
        match resources.len() > MAX_NODE_RESOURCES {
            true => Err(Problem::new(
                Exit::Usage,
                format!("--resource was given more than {MAX_NODE_RESOURCES} times"),
            )),
            false => Ok(()),
        }
    }

    fn sorted(&self) -> Vec<Amount> {
        let mut resources = self.resources.clone();
        resources.sort();
        resources
    }

    /// As an agent is told.
    pub fn config(&self, state: PathBuf, join: Option<String>) -> AgentConfig {
        AgentConfig {
            join_file: join,
            name: self.name.clone(),
            cpus: self.cpus.map(|n| MilliCpu(n.saturating_mul(1000))),
            memory: self.memory,
            disk: self.disk,
            resources: self.sorted(),
            price_usd_micros_core_hour: self.price(),
            interpreters: self.pythons.clone(),
            tenants: (!self.tenants.is_empty()).then(|| self.tenants.clone()),
            own_tenants: self.own_tenants.clone(),
            uv: self.uv.clone(),
            program: std::env::current_exe().ok(),
            ..AgentConfig::new(state)
        }
    }
}

pub fn run(args: Args) -> Result<(), Problem> {
    match &args.action {
        Some(Action::Probe(args)) => return probe::run(args),
        Some(Action::MeasureGpus) => {
            return farlane_daemon::measure_gpus(&mut std::io::stdout().lock())
                .map_err(Problem::failed);
        }
        None => {}
    }
    telemetry::init(&args.log, telemetry::Format::Text).map_err(Problem::failed)?;
    args.offer.check()?;
    let join = args.join_file.as_deref().map(read_join).transpose()?;
    let state = args
        .state
        .clone()
        .unwrap_or_else(|| agent_process::default_state(&folders::data(), "agent", &[]));
    check_terms(&args, &state, join.as_deref())?;
    match User::is_root() && !args.supervised {
        true => block_on(as_system_user(AgentProcess {
            state,
            join,
            flags: args.flags(),
        })),
        false => block_on(serve(&args, state, join)),
    }
}

impl Args {
    fn flags(&self) -> Vec<String> {
        let mut flags = self.offer.flags();
        flags.extend(["--log".to_owned(), self.log.clone()]);
        flags
    }
}

/// What the provider signed of a machine holds; flags that say otherwise would only seem to.
fn check_terms(args: &Args, state: &Path, join: Option<&str>) -> Result<(), Problem> {
    if !args.labels.is_empty() {
        let what = "a machine's labels are its provider's word, and come with the join file";
        return Err(Problem::new(Exit::Usage, what).next(
            "`farlane tokens create --label KEY=VALUE` makes one that has them; a machine that has joined \
             already joins anew with it, in another --state folder",
        ));
    }
    // A join file that cannot be read is the agent's to refuse.
    let terms = match enrolled(state) {
        Some((_, terms)) => Some(terms),
        None => join
            .and_then(|text| JoinFile::from_text(text).ok())
            .map(|file| EnrolmentTerms::clone(&file.enrolment)),
    };
    let named = terms.and_then(|terms| terms.price_usd_micros_core_hour);
    match (args.offer.price(), named) {
        (Some(own), Some(named)) if own != named => Err(Problem::new(
            Exit::Usage,
            format!(
                "the join file names a price of {} for a core and hour, and that holds",
                show::money(named)
            ),
        )
        .next("leave --price out, or join with a file that `farlane tokens create` made without --price")),
        _ => Ok(()),
    }
}

async fn serve(args: &Args, state: PathBuf, join: Option<String>) -> Result<(), Problem> {
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    if args.supervised {
        end_with_standard_input(shutdown.clone());
    }
    let mut agent = Agent::start(args.offer.config(state, join), shutdown.requested())
        .await
        .map_err(Problem::failed)?;
    if args.supervised
        && let Some(path) = &args.join_file
    {
        // Spent: the folder holds a record now.
        let _ = std::fs::remove_file(path);
    }
    let node = agent.node();
    tokio::select! {
        connected = agent.connected() => match (connected, args.supervised) {
            // A parent that is gone reads no more; standard input says so too.
            (true, true) => drop(show::line(&format!("{}{node}", agent_process::READY))),
            (true, false) => eprintln!("farlane: node {node} is on the network; Ctrl-C stops it"),
            // It ended first, and says below why.
            (false, _) => {}
        },
        () = shutdown.requested() => {}
    }
    agent.wait().await.map_err(stopped)
}

fn stopped(error: AgentError) -> Problem {
    match &error {
        AgentError::Removed(_) => Problem::new(Exit::NotAllowed, &error).next(
            "if the machine should join anew: a new join file from `farlane tokens create`, and \
             another --state folder",
        ),
        AgentError::Unknown(_) => Problem::new(Exit::NotFound, &error).next(
            "join it anew: a new join file from `farlane tokens create`, and another --state folder",
        ),
        AgentError::Crashed => Problem::failed(error),
    }
}

/// Stops this process when its parent is gone, however it went.
fn end_with_standard_input(shutdown: Shutdown) {
    std::thread::spawn(move || {
        let mut sink = [0u8; 64];
        while matches!(std::io::stdin().read(&mut sink), Ok(n) if n > 0) {}
        shutdown.trigger();
    });
}

/// Runs the agent in a child under the system user, for as long as this process lives.
async fn as_system_user(process: AgentProcess) -> Result<(), Problem> {
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    let mut child = process.spawn()?;
    tokio::select! {
        node = child.ready() => {
            if let Some(node) = node {
                eprintln!("farlane: node {node} is on the network, as the user farlane; Ctrl-C stops it");
            }
        }
        () = shutdown.requested() => {}
    }
    tokio::select! {
        status = child.ended() => match status?.code() {
            Some(0) => return Ok(()),
            code => {
                let exit = [Exit::NotAllowed, Exit::NotFound];
                let exit = exit.into_iter().find(|exit| code == Some(*exit as i32));
                let what = "the agent stopped; its last lines above say why";
                return Err(Problem::new(exit.unwrap_or(Exit::Failed), what));
            }
        },
        () = shutdown.requested() => {}
    }
    child.stop().await;
    Ok(())
}

fn read_join(path: &Path) -> Result<String, Problem> {
    let mut text = String::new();
    let limit = MAX_JOIN_FILE as u64 + 1;
    match path.as_os_str() == "-" {
        true => std::io::stdin().take(limit).read_to_string(&mut text),
        false => std::fs::File::open(path)
            .map_err(reading(path))?
            .take(limit)
            .read_to_string(&mut text),
    }
    .map_err(doing(path.display()))?;
    match text.trim().is_empty() {
        true => Err(Problem::new(Exit::Usage, "the join file is empty")
            .next("`farlane tokens create` on the provider's machine makes one")),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        offer: Offer,
    }

    #[test]
    fn an_offer_survives_the_way_to_a_child() {
        let id = "ab".repeat(32);
        let line = [
            "x",
            "--name",
            "rack 1",
            "--cpus",
            "3",
            "--memory",
            "8GiB",
            "--price",
            "0.04",
            "--resource",
            "tpu=8",
            "--resource",
            "license=2",
            "--python",
            "/usr/bin/python3",
            "--own-tenant",
            &id,
        ];
        let first = Line::parse_from(line).offer;
        let flags = first.flags();
        let again = Line::parse_from(std::iter::once("x".to_owned()).chain(flags.clone())).offer;
        assert_eq!(again.flags(), flags);
        let config = again.config("s".into(), None);
        assert_eq!(config.memory, Some(ByteCount::gib(8)));
        assert_eq!(config.cpus, Some(MilliCpu(3000)));
        assert_eq!(config.price_usd_micros_core_hour, Some(UsdMicros(40_000)));
        assert!(config.tenants.is_none());
        let license = Amount::new("license", 2).unwrap();
        assert_eq!(
            config.resources,
            [license.clone(), Amount::new("tpu", 8).unwrap()]
        );
        assert!(again.check().is_ok());
        let twice = Offer {
            resources: vec![license.clone(), license],
            ..again
        };
        assert!(format!("{:?}", twice.check().unwrap_err()).contains("license twice"));
    }
}
