//! Starting an agent, and the handle on a running one.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use farlane_model::{BootId, NodeId, NodeSpec, Tier};
use farlane_runtime::{Clock, Entropy, SystemClock, SystemEntropy};
use farlane_seal::join::JoinFile;
use farlane_units::{ByteCount, UsdMicros};
use tokio::sync::{mpsc, oneshot, watch};

use crate::blobs::Blobs;
use crate::calibrate::kept;
use crate::engine::{Calibration, Codes, Engine, Preparer, Setup};
use crate::environment::Environments;
use crate::folder::{Folder, Joined};
use crate::heat::Heat;
use crate::join::Proof;
use crate::link::Link;
use crate::probe::device::{self, Devices};
use crate::probe::machine::{self, Machine};
use crate::probe::python::{self, Found};
use crate::progress::PATIENCE;
use crate::sandbox::{self, Enforced, Sandbox};
use crate::user::User;
use crate::way::Way;
use crate::{AgentConfig, AgentError, StartError, files, join};

/// Frames and events between the connection and the loop.
const LINK: usize = 256;
/// Bound of built environments unless configured. Source: three with PyTorch.
const ENV_CACHE: ByteCount = ByteCount::gib(10);
/// Bound of fetched ciphertext unless configured.
const BLOB_CACHE: ByteCount = ByteCount::gib(2);
/// Backlog credit before any task has run, for each core: enough for a first round trip of no-ops,
/// and corrected after eight tasks.
const FIRST_CREDIT_A_CORE: u32 = 8;
/// Without work before this machine is measured, unless configured. Source: whoever has just started an agent,
/// or waits for an answer, sends the next call within seconds.
const CALIBRATE_AFTER: Duration = Duration::from_secs(10);

/// A running agent. Dropping it does not stop it; its shutdown does.
#[derive(Debug)]
pub struct Agent {
    node: NodeId,
    connected: watch::Receiver<bool>,
    ended: oneshot::Receiver<Result<(), AgentError>>,
}

impl Agent {
    /// Probes this machine, joins the network where that has not happened yet, and serves until
    /// `shutdown` is ready. Returns once joined; the connection is made and remade in the background.
    ///
    /// *Errors*: see [`StartError`]; nothing runs then.
    pub async fn start(
        config: AgentConfig,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Self, StartError> {
        keep_memory_private();
        let folder = Folder::open(&config.state_dir)?;
        let probing = {
            let (config, folder) = (config.clone(), folder.clone());
            tokio::task::spawn_blocking(move || probe(&config, &folder))
        };
        let probed = probing.await.map_err(|error| StartError::Io {
            what: "probing this machine".into(),
            source: std::io::Error::other(error),
        })??;
        let joined = match folder.joined()? {
            Some(joined) => joined,
            None => {
                let text = config.join_file.as_deref().ok_or(StartError::NotJoined)?;
                join::join(&folder, text, &probed.machine.hostname, &probed.spec).await?
            }
        };
        Self::run(config, folder, probed, joined, shutdown)
    }

    fn run(
        config: AgentConfig,
        folder: Folder,
        probed: Probed,
        joined: Joined,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Self, StartError> {
        let node = joined.record.node();
        let shared = probed.shared;
        let (channel, live) = watch::channel(None);
        let (events, linked) = mpsc::channel(LINK);
        let (told, connected) = watch::channel(false);
        let (end, ended) = oneshot::channel();
        let pythons = probed.found.pythons;
        let cache = config.blob_cache.unwrap_or(BLOB_CACHE);
        let patience = config.transfer_patience.unwrap_or(PATIENCE);
        let (way, heat) = (Arc::new(Way::default()), Arc::new(Heat::default()));
        let blobs = folder.path("blobs");
        let preparer = Arc::new(Preparer {
            blobs: Blobs::new(live.clone(), blobs, cache, patience, way.clone()),
            codes: Codes::default(),
            environments: Environments::new(
                shared.environments,
                config.uv,
                config.env_cache.unwrap_or(ENV_CACHE),
            ),
            pythons,
        });
        let mut boot = [0; 16];
        SystemEntropy.fill(&mut boot);
        let proof = Proof {
            identity: joined.identity.clone(),
            node,
            network: joined.network_id,
        };
        let mut spec = with_terms(probed.spec, &joined.record);
        let idle = config.calibrate_after.unwrap_or(CALIBRATE_AFTER);
        let calibration = known(&mut spec, &folder, idle, config.program.clone());
        let has_gpus = !spec.devices.is_empty();
        let setup = Setup {
            identity: joined.identity,
            spec,
            record: joined.record,
            boot: BootId(boot),
            tenants: config.tenants,
            own_tenants: config.own_tenants,
            sandbox: probed.sandbox,
            preparer,
            journal: folder.path("journal"),
            channel: live,
            way: way.clone(),
            heat: heat.clone(),
            calibration,
        };
        let link = Link {
            folder,
            network: joined.network,
            transport: joined.transport,
            proof,
            events,
            channel,
            doubted: false,
            proved: None,
            way,
        };
        let runtime = runtime()?;
        // A thread of its own that lives as long as the agent: sandboxes die with the thread that
        // started them, and nothing here has to be handed between threads.
        std::thread::Builder::new()
            .name("farlane-agent".into())
            .spawn(move || {
                let result = runtime.block_on(async {
                    tokio::spawn(link.run());
                    tokio::spawn(heat.watch(has_gpus));
                    Engine::run(setup, linked, told, shutdown).await
                });
                runtime.shutdown_timeout(std::time::Duration::from_millis(500));
                let _ = end.send(result);
            })
            .map_err(StartError::io("the agent's thread"))?;
        Ok(Self {
            node,
            connected,
            ended,
        })
    }

    /// Whether the agent of this state folder has joined a network: it needs no join file then.
    pub fn has_joined(state_dir: &std::path::Path) -> bool {
        // Written last by a join.
        state_dir.join("transport.json").exists()
    }

    /// Which node this is.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Waits until the control plane has taken this node for the first time; `false` where the agent
    /// ended before.
    pub async fn connected(&mut self) -> bool {
        self.connected.wait_for(|yes| *yes).await.is_ok()
    }

    /// Waits until it has stopped, its workers included.
    ///
    /// *Errors*: why it stopped by itself.
    pub async fn wait(self) -> Result<(), AgentError> {
        self.ended.await.unwrap_or(Err(AgentError::Crashed))
    }
}

/// Everything of an agent runs on one thread, but for what blocks.
fn runtime() -> Result<tokio::runtime::Runtime, StartError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .build()
        .map_err(StartError::io("the agent's runtime"))
}

/// Puts in what was measured of this machine before, and says when it is to be measured again.
fn known(
    spec: &mut NodeSpec,
    folder: &Folder,
    idle: Duration,
    program: Option<PathBuf>,
) -> Calibration {
    let machine = kept::machine(spec);
    if let Some(known) = kept::read(folder, machine, SystemClock.wall()) {
        known.put_on(spec);
    }
    Calibration {
        folder: folder.clone(),
        machine,
        idle_ms: u64::try_from(idle.as_millis()).unwrap_or(u64::MAX),
        program,
    }
}

/// What this machine is.
pub(crate) struct Probed {
    machine: Machine,
    pub(crate) found: Found,
    sandbox: Sandbox,
    pub(crate) spec: NodeSpec,
    pub(crate) shared: files::Shared,
    pub(crate) temperatures: Vec<Option<u32>>,
    pub(crate) refused: Vec<String>,
    pub(crate) advice: Option<String>,
}

/// Looks at this machine, with what it needs on the disk in `folder`.
///
/// *Errors*: the disk, or there is no interpreter.
pub(crate) fn probe(config: &AgentConfig, folder: &Folder) -> Result<Probed, StartError> {
    let user = User::is_root().then(User::unprivileged);
    let state = folder.path("");
    let machine = machine::read(&state);
    let mut found = python::find(&config.interpreters, user);
    for (path, why) in &found.skipped {
        tracing::info!(path = %path.display(), %why, "an interpreter cannot serve");
    }
    let Some(python) = found.pythons.first().cloned() else {
        return Err(StartError::NoPython {
            skipped: found.reasons(),
        });
    };
    let place = match folder.identity()? {
        Some(identity) => identity.public().fingerprint().to_string(),
        None => farlane_model::Digest::of(state.as_os_str().as_encoded_bytes()).to_string(),
    };
    let shared = files::install(&state, &place, user)?;
    let sandbox = Sandbox {
        tier: Tier::Namespaces,
        bwrap: sandbox::bubblewrap(),
        root: shared.root.clone(),
        python,
        environment: None,
        scratch: ByteCount::mib(16),
        scratch_outside: shared.scratch.clone(),
        threads: 1,
        user,
        cgroups: sandbox::Cgroups::probe(),
        gpus: sandbox::Gpus::default(),
    };
    let wanted = config.strongest_tier.unwrap_or(Tier::MicroVm);
    let enforced = match wanted {
        Tier::Process => sandbox::unconfined(sandbox.cgroups.is_some()),
        _ => sandbox::probe(&sandbox),
    };
    if let Some(advice) = &enforced.advice {
        tracing::warn!(%advice, "no namespaces here: only your own tenant's work can run (tier 0)");
    }
    if sandbox.cgroups.is_none() {
        tracing::info!(
            "no control groups may be made here: a task's memory is bounded for each of its processes, not \
             for all together; under systemd, `Delegate=memory pids` in the unit allows it"
        );
    }
    if enforced.tier == Tier::Namespaces {
        only_those_that_run(&sandbox, &mut found);
    }
    let devices = device::find();
    for why in &devices.refused {
        tracing::info!(%why, "an accelerator cannot serve");
    }
    let spec = spec(config, &machine, &found, &enforced, &devices);
    let found_devices = devices.found.iter();
    Ok(Probed {
        machine,
        found,
        sandbox,
        spec,
        shared,
        temperatures: found_devices.map(|one| one.temperature).collect(),
        refused: devices.refused,
        advice: enforced.advice,
    })
}

fn spec(
    config: &AgentConfig,
    machine: &Machine,
    found: &Found,
    enforced: &Enforced,
    devices: &Devices,
) -> NodeSpec {
    let cpus = config.cpus.unwrap_or(machine.cpus);
    let name = config
        .name
        .clone()
        .unwrap_or_else(|| machine.hostname.clone());
    let join = config
        .join_file
        .as_deref()
        .and_then(|text| JoinFile::from_text(text).ok());
    let promised = join.and_then(|file| file.enrolment.price_usd_micros_core_hour);
    NodeSpec {
        name: name.chars().filter(|c| !c.is_control()).take(64).collect(),
        cpu_model: machine.cpu_model.as_str().into(),
        cpus,
        clock_mhz: machine.clock_mhz,
        memory: config
            .memory
            .unwrap_or(ByteCount(machine.memory.0 / 10 * 9)),
        disk: config.disk.unwrap_or(ByteCount(machine.disk_free.0 / 2)),
        interpreters: found
            .pythons
            .iter()
            .map(|python| python.interpreter.clone())
            .collect(),
        tier: enforced.tier,
        enforced: enforced.names.as_slice().into(),
        labels: [].into(),
        price_usd_micros_core_hour: config
            .price_usd_micros_core_hour
            .or(promised)
            .unwrap_or(UsdMicros::ZERO),
        backlog_credit: cpus
            .0
            .div_ceil(1000)
            .saturating_mul(FIRST_CREDIT_A_CORE)
            .clamp(2, 1024),
        os: std::env::consts::OS.into(),
        arch: std::env::consts::ARCH.into(),
        agent: env!("CARGO_PKG_VERSION").into(),
        devices: devices.found.iter().map(|one| one.device.clone()).collect(),
        measured: None,
        resources: config.resources.clone(),
    }
}

/// Drops interpreters that do not run inside the sandbox (the first one was probed with it).
fn only_those_that_run(sandbox: &Sandbox, found: &mut Found) {
    let first = sandbox.python.clone();
    let works: Vec<bool> = std::thread::scope(|scope| {
        let probes: Vec<_> = found
            .pythons
            .iter()
            .map(|python| {
                let plan = Sandbox {
                    python: python.clone(),
                    ..sandbox.clone()
                };
                let known = *python == first;
                scope.spawn(move || known || sandbox::probe(&plan).tier == Tier::Namespaces)
            })
            .collect();
        probes
            .into_iter()
            .map(|probe| probe.join().unwrap_or(false))
            .collect()
    });
    let mut works = works.into_iter();
    found.pythons.retain(|python| {
        let fine = works.next().unwrap_or(false);
        if !fine {
            tracing::warn!(path = %python.path.display(), "an interpreter does not run in the sandbox");
        }
        fine
    });
}

/// What the provider's certificate says: of labels alone, of price and tier before what the machine says.
fn with_terms(mut spec: NodeSpec, record: &farlane_seal::record::NodeRecord) -> NodeSpec {
    let terms = record.certificate();
    if let Some(price) = terms.price_usd_micros_core_hour {
        spec.price_usd_micros_core_hour = price;
    }
    spec.labels = terms.labels.as_slice().into();
    spec.tier = spec.tier.min(terms.tier);
    spec
}

/// Other processes of this user must not read the keys in this one's memory.
#[allow(unsafe_code)]
fn keep_memory_private() {
    // SAFETY: prctl with these constants takes no pointers and changes this process only.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
    }
}
