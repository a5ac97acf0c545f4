//! `farlane up`: a whole network on this machine.
//!
//! ```text
//! up ─┬─ server (this process)          the control plane; reads nothing
//!     ├─ standing granter (this process) grants for clients that are away
//!     ├─ provider (this process)         renews the list of removed machines
//!     └─ agent (child process)           runs the tasks, under a system user where up is root's
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use farlane::granter::Standing;
use farlane::{ConnectOptions, Identity, Network, v1};
use farlane_daemon::{Agent, enrolled, forget};
use farlane_model::Tier;
use farlane_runtime::{Shutdown, telemetry};
use farlane_server::ServerConfig;
use farlane_units::Millis;
use nix::fcntl::Flock;
use serde_json::json;

use crate::agent_process::{self, AgentChild, AgentProcess};
use crate::command::{agent, tokens};
use crate::owner::{Enrolment, Owner, sorted};
use crate::problem::{Exit, Problem, doing};
use crate::revocations::{self, Of};
use crate::show::{self, Form};
use crate::{control, folders, parse};

/// How long the agent of `up` has to join. Chosen: it starts a few seconds later at most.
const JOIN_WITHIN: Millis = Millis(10 * 60 * 1000);
/// Pauses before an agent that ended is started again. Chosen: quick once, then gentle.
const RESTART_AFTER: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
];
/// An agent that ran this long has started well; the pauses begin anew.
const RAN_WELL: Duration = Duration::from_secs(60);

/// Run a whole network on this machine: server, agent and granter, ready for `fl.Client()`.
///
/// Its folder keeps everything, queue included: stop it, kill it, start it again. Scripts of this
/// user find it by themselves. With --listen, other machines join with `farlane tokens create`. Flags
/// hold for this start: with another region or other labels than before, this machine joins anew.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:  farlane up\n          farlane up --listen 192.168.1.10 --region eu-central"
)]
pub struct Args {
    /// Where to listen: an address, with a port or one that is chosen once and kept.
    #[arg(long, value_name = "ADDRESS", value_parser = listen_address)]
    listen: Option<SocketAddr>,
    /// Host name or address by which others reach it; may be given again.
    #[arg(long, value_name = "HOST")]
    advertise: Vec<String>,
    /// Its folder; $XDG_DATA_HOME/farlane by default.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Region of this machine.
    #[arg(long, default_value = "local", value_parser = parse::region)]
    region: String,
    /// Label of this machine that tasks may ask for; may be given again.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse::label)]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    offer: agent::Offer,
    /// What to log.
    #[arg(long, env = "FARLANE_LOG", default_value = "warn")]
    log: String,
    #[command(flatten)]
    form: Form,
}

/// `192.168.1.10` or `192.168.1.10:7443`.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse::<SocketAddr>()
        .or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0)))
        .map_err(|_| "write an address, like 0.0.0.0 or 192.168.1.10:7443".to_owned())
}

pub fn run(args: Args) -> Result<(), Problem> {
    telemetry::init(&args.log, telemetry::Format::Text).map_err(Problem::failed)?;
    args.offer.check()?;
    let data = args.data.clone().unwrap_or_else(folders::data);
    folders::make_private(&data)?;
    // However it was written: the folder's name also names its agent's state.
    let data = data.canonicalize().map_err(doing(data.display()))?;
    let _lock = lock(&data)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(up(args, data))
}

/// One `up` a folder.
fn lock(data: &Path) -> Result<Flock<std::fs::File>, Problem> {
    folders::lock(data, "up.lock")?.ok_or_else(|| {
        Problem::failed(format!(
            "another `farlane up` already runs in {}",
            data.display()
        ))
        .next("use that one, stop it, or choose another folder with --data")
    })
}

async fn up(args: Args, data: PathBuf) -> Result<(), Problem> {
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    let labels = sorted(args.labels.clone())?;
    let owner = Arc::new(Owner::open(&data)?);
    let server_shutdown = Shutdown::new();
    let config = server_config(&args, data.join("server"))?;
    folders::make_private(&config.data)?;
    let server_data = config.data.clone();
    let running = control::start(config, &data, server_shutdown.clone()).await?;
    if running.network() == [0; 32] {
        return Err(Problem::failed("this server does not found its network alone")
            .next("`farlane server` runs one of several; `farlane up` is for one (FARLANE_SERVER_… says otherwise)"));
    }
    let access = control::admit_founder(&running, &server_data).await?;
    let identity = owner.identity("local", &access, Millis(show::now_ms()))?;
    let endpoint = folders::endpoint(&data);
    identity.save(&endpoint).map_err(Problem::failed)?;

    let renewing = revocations::keep_fresh(
        owner.clone(),
        identity.clone(),
        Of::Founder,
        shutdown.clone(),
    );
    let renewing = tokio::spawn(renewing);
    let granter_folder = data.join("granter");
    folders::make_private(&granter_folder)?;
    let _granter = folders::lock_granter(&granter_folder)?;
    let standing = Standing::start(identity.clone(), &granter_folder, ConnectOptions::default());
    let enroller = Enroller {
        owner: owner.clone(),
        identity: identity.clone(),
        region: args.region.clone(),
        labels,
    };
    let process = agent_process(&args, &data, &enroller);
    let (standing, process) = tokio::join!(standing, process);
    let (standing, process) = (standing?, process?);
    let state = process.state.clone();
    let (ready, node) = tokio::sync::oneshot::channel();
    let keeper = tokio::spawn(keep_agent(process, enroller, shutdown.clone(), ready));
    tokio::select! {
        // Without a machine of its own it serves others.
        node = node => announce(&args, &data, &state, running.urls(), node.ok().as_deref())?,
        () = shutdown.requested() => {}
        () = server_shutdown.requested() => {}
    }
    tokio::select! {
        () = shutdown.requested() => {}
        // It ended by itself (a full disk, say); what it ended with is this program's answer.
        () = server_shutdown.requested() => shutdown.trigger(),
    }
    // First those who would complain about a missing server.
    let _ = keeper.await;
    renewing.abort();
    standing.close();
    server_shutdown.trigger();
    running.stop().await.map_err(Problem::failed)?;
    if !args.form.json {
        eprintln!("farlane: stopped; the queue is kept in {}", data.display());
    }
    Ok(())
}

fn server_config(args: &Args, folder: PathBuf) -> Result<ServerConfig, Problem> {
    let mut config = ServerConfig::load(folder, None, std::env::vars()).map_err(Problem::failed)?;
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    if !args.advertise.is_empty() {
        config.advertise.clone_from(&args.advertise);
    } else if config.advertise.is_empty() && config.listen.ip().is_unspecified() {
        config
            .advertise
            .extend(outward_address().map(|ip| ip.to_string()));
    }
    if config.region.is_empty() {
        config.region.clone_from(&args.region);
    }
    Ok(config)
}

/// The address by which this machine leaves for others. Nothing is sent: connecting a datagram
/// socket only looks the route up.
fn outward_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // 192.0.2.1 is for documentation (RFC 5737): routed as the Internet is, and nobody's.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    socket
        .local_addr()
        .ok()
        .map(|a| a.ip())
        .filter(|ip| !ip.is_unspecified())
}

/// The agent's process, with a fresh join file where its folder holds no record yet, or one that says
/// something else than the flags.
async fn agent_process(
    args: &Args,
    data: &Path,
    enroller: &Enroller,
) -> Result<AgentProcess, Problem> {
    let provider = enroller.owner.provider.public();
    let state = agent_process::default_state(data, "agent", &provider.0);
    agent_process::forget_orphans(data, &state);
    let mut offer = args.offer.clone();
    let tenant = enroller.identity.tenant();
    if !offer.own_tenants.contains(&tenant) {
        offer.own_tenants.push(tenant);
    }
    let mut flags = offer.flags();
    flags.extend(["--log".to_owned(), args.log.clone()]);
    leave_if_other(&enroller.wish(), &state, &enroller.identity).await?;
    let join = match Agent::has_joined(&state) {
        true => None,
        false => Some(enroller.join_file().await?),
    };
    Ok(AgentProcess { state, join, flags })
}

/// What lets the agent of this `up` join.
struct Enroller {
    owner: Arc<Owner>,
    identity: Identity,
    region: String,
    labels: Vec<(String, String)>,
}

impl Enroller {
    fn wish(&self) -> Enrolment {
        Enrolment {
            region: self.region.clone(),
            tier: Tier::Namespaces,
            labels: self.labels.clone(),
            // The agent's own flag says it, at each start.
            price: None,
            expires: Millis(show::now_ms()).saturating_add(JOIN_WITHIN),
        }
    }

    /// The text of a fresh join file.
    async fn join_file(&self) -> Result<String, Problem> {
        let network = Network::connect(self.identity.clone(), ConnectOptions::default()).await?;
        let file = tokens::register(&network, &self.owner, self.wish()).await?;
        Ok(file.to_text().to_string())
    }

    /// This network has not heard of the agent's node: what it joined was newer than the folder of this
    /// `up`. It joins anew, with other keys.
    async fn rejoin(&self, process: &mut AgentProcess) -> Result<(), Problem> {
        eprintln!(
            "farlane: this network's data are older than its agent's (restored from a backup?); the machine \
             joins anew"
        );
        let join = self.join_file().await?;
        forget(&process.state).map_err(Problem::failed)?;
        process.join = Some(join);
        Ok(())
    }
}

/// Region and labels are in what the provider signed for one node. Where that says other ones than
/// `wish`, the machine leaves the network, to join it as another node; unless somebody removed it.
async fn leave_if_other(
    wish: &Enrolment,
    state: &Path,
    identity: &Identity,
) -> Result<(), Problem> {
    let Some((node, terms)) = enrolled(state) else {
        return Ok(());
    };
    if (&terms.region, &terms.labels) == (&wish.region, &wish.labels) {
        return Ok(());
    }
    let network = Network::connect(identity.clone(), ConnectOptions::default()).await?;
    let known = network.list_nodes(v1::ListNodesRequest {}).await?.nodes;
    let known = known.iter().find(|known| known.node[..] == node.0);
    if known.is_some_and(|known| known.revoked) {
        return Ok(());
    }
    eprintln!("farlane: this machine has another region or other labels now; it joins anew");
    // Its keys go, so nobody has to be told by a signed list that it is not to be trusted.
    forget(state).map_err(Problem::failed)?;
    if let Some(known) = known {
        let request = v1::RemoveNodeRequest {
            node: known.node.clone(),
            ..Default::default()
        };
        network.remove_node(request).await?;
    }
    Ok(())
}

/// Keeps an agent running until shutdown, or until the network has removed it; lets one that the network
/// does not know join anew. Tells `ready` once that the first one is on the network.
async fn keep_agent(
    mut process: AgentProcess,
    enroller: Enroller,
    shutdown: Shutdown,
    ready: tokio::sync::oneshot::Sender<String>,
) {
    let mut ready = Some(ready);
    let mut failures = 0;
    while !shutdown.is_requested() {
        let begun = std::time::Instant::now();
        match process.spawn() {
            Ok(child) => {
                let ended = watch_agent(child, &shutdown, &mut ready).await;
                if shutdown.is_requested() {
                    return;
                }
                let code = ended.and_then(|status| status.code());
                if code == Some(Exit::NotAllowed as i32) {
                    return removed(&process.state).print();
                }
                let rejoined = match code == Some(Exit::NotFound as i32) {
                    true => enroller.rejoin(&mut process).await.map_err(|e| e.print()),
                    false => Err(()),
                };
                if rejoined.is_err() {
                    // Nobody waits for a machine that may never come.
                    ready = None;
                }
            }
            Err(problem) => {
                problem.print();
                ready = None;
            }
        }
        // A join file works once; whether it was used, the folder knows.
        if Agent::has_joined(&process.state) {
            process.join = None;
        }
        failures = if begun.elapsed() > RAN_WELL {
            0
        } else {
            failures + 1
        };
        let pause = RESTART_AFTER[failures.min(RESTART_AFTER.len()).saturating_sub(1)];
        eprintln!(
            "farlane: the agent ended; starting it again in {} ms",
            pause.as_millis()
        );
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.requested() => {}
        }
    }
}

async fn watch_agent(
    mut child: AgentChild,
    shutdown: &Shutdown,
    ready: &mut Option<tokio::sync::oneshot::Sender<String>>,
) -> Option<ExitStatus> {
    tokio::select! {
        node = child.ready() => {
            if let Some(node) = node
                && let Some(ready) = ready.take()
            {
                let _ = ready.send(node);
            }
        }
        () = shutdown.requested() => {}
    }
    tokio::select! {
        ended = child.ended() => ended.ok(),
        () = shutdown.requested() => {
            child.stop().await;
            None
        }
    }
}

/// Somebody decided that; starting it again would be refused for ever.
fn removed(state: &Path) -> Problem {
    Problem::failed("this machine was removed from the network; its agent is not started again")
        .next(format!(
            "if it should join anew: stop `farlane up`, remove {}, and start it again",
            state.display()
        ))
}

fn announce(
    args: &Args,
    data: &Path,
    state: &Path,
    urls: &[String],
    node: Option<&str>,
) -> Result<(), Problem> {
    let url = urls.join(", ");
    if args.form.json {
        let ready = json!({
            "urls": urls,
            "node": node,
            "data": data.display().to_string(),
            "agent_state": state.display().to_string(),
            "pid": std::process::id(),
        });
        return show::line(&ready.to_string());
    }
    show::line(&format!("Farlane is up at {url}"))?;
    show::line(&format!("  data      {}", data.display()))?;
    let machine = match node {
        Some(node) => {
            let short = node.get(..12).unwrap_or(node);
            format!("{short} in region {}", args.region)
        }
        None => "none of its own".to_owned(),
    };
    show::line(&format!("  machine   {machine}"))?;
    if args.data.is_some() {
        show::line(&format!(
            "  reach it  export FARLANE_IDENTITY_FILE={}",
            data.join("endpoint.json").display()
        ))?;
    }
    show::line(
        "  use it    python3 -c 'import farlane as fl; print(fl.Client().submit(pow, 2, 10).result())'",
    )?;
    show::line("  look      farlane status · farlane nodes · farlane tasks")?;
    if args.listen.is_some_and(|l| !l.ip().is_loopback()) {
        show::line("  others    farlane tokens create --region REGION")?;
    }
    show::line("Ctrl-C stops it; the queue is kept.")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_need_no_port() {
        assert_eq!(listen_address("10.0.0.1").unwrap().port(), 0);
        assert_eq!(listen_address("[::1]:7443").unwrap().port(), 7443);
        assert!(listen_address("example.com").is_err() && listen_address("7443").is_err());
    }

    #[test]
    fn a_folder_has_one_up() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock(dir.path()).unwrap();
        assert!(
            lock(dir.path())
                .unwrap_err()
                .what()
                .contains("already runs")
        );
        drop(first);
        assert!(lock(dir.path()).is_ok());
    }
}
