//! A Farlane network of real processes on this machine.
//!
//! One server and some agents, each with a state folder of its own, started by the commands that a
//! person would type. It sees nothing of the user's own networks, and they nothing of it.
//!
//! ```text
//! ~/.cache/farlane/NAME/      data/ config/ (the owner's)   server/   *.log   join-*.txt
//!                   region/   an agent's; under /var/lib/farlane/NAME for root, whose agents
//!                             run as a system user that cannot walk into root's own folders
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::preflight::is_root;
use crate::program::{Life, Program, Running};
use crate::venv::Venv;
use crate::{place, program};

/// A part that is not up after this long will not be: a hundred times what it takes.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Where a system user can reach it. Source: Filesystem Hierarchy Standard 3.0, /var/lib.
const SYSTEM_STATE: &str = "/var/lib/farlane";
/// Of the parts that were kept, so that the next network of that name can end them.
const PIDS: &str = "pids";
/// What would lead a command to another network.
const VARIABLES: [&str; 4] = [
    "FARLANE_URL",
    "FARLANE_KEY",
    "FARLANE_IDENTITY_FILE",
    "FARLANE_PROFILE",
];

/// One agent of a network.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// Its region, which is its name too.
    pub region: &'static str,
    /// Dollars for one of its cores for an hour.
    pub price: &'static str,
    /// Cores that it offers.
    pub cpus: u32,
}

/// A running network; it ends when this is dropped.
#[derive(Debug)]
pub struct Network {
    venv: Venv,
    folder: PathBuf,
    agents: PathBuf,
    life: Life,
    /// Newest last.
    parts: Vec<Running>,
}

impl Network {
    /// Starts a network of that name, and waits until all its machines are on it.
    ///
    /// *Errors*: a part does not start; what it said is in the error.
    pub fn start(name: &str, venv: &Venv, machines: &[Machine], life: Life) -> Result<Self> {
        let folder = place::cache().join(name);
        let agents = match is_root() {
            true => Path::new(SYSTEM_STATE).join(name),
            false => folder.clone(),
        };
        end_kept(&folder)?;
        for old in [&folder, &agents].into_iter().filter(|f| f.exists()) {
            fs::remove_dir_all(old).with_context(|| format!("emptying {}", old.display()))?;
        }
        place::make(&folder)?;
        if agents != folder {
            open_to_all(&agents)?;
        }
        let mut this = Self {
            venv: venv.clone(),
            folder,
            agents,
            life,
            parts: Vec::new(),
        };
        this.serve()?;
        let tenant = this.tenant()?;
        for machine in machines {
            this.join(machine, &tenant)?;
        }
        this.wait("the machines", |network| {
            let said = network
                .farlane(&["status", "--json"])
                .output()
                .unwrap_or_default();
            let status: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
            status["nodes_online"].as_u64() == u64::try_from(machines.len()).ok()
        })?;
        Ok(this)
    }

    /// A program of the environment, as the owner of this network runs it.
    pub fn run(&self, name: &str) -> Program {
        let mut program = self.venv.run(name);
        for (key, value) in self.variables() {
            program = program.env(key, value);
        }
        VARIABLES
            .iter()
            .fold(program, |program, key| program.without(key))
    }

    /// A command of its owner.
    pub fn farlane(&self, args: &[&str]) -> Program {
        self.run("farlane").args(args)
    }

    /// What leads a command to this network.
    pub fn variables(&self) -> [(&'static str, PathBuf); 2] {
        [
            ("XDG_DATA_HOME", self.folder.join("data")),
            ("XDG_CONFIG_HOME", self.folder.join("config")),
        ]
    }

    /// Where its logs are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Leaves it running when xtask ends; its processes.
    ///
    /// *Errors*: their list cannot be written.
    pub fn keep(mut self) -> Result<Vec<u32>> {
        let pids: Vec<u32> = self.parts.drain(..).map(Running::keep).collect();
        let text: Vec<String> = pids.iter().map(ToString::to_string).collect();
        fs::write(self.folder.join(PIDS), text.join("\n"))?;
        Ok(pids)
    }

    fn serve(&mut self) -> Result<()> {
        let data = self.folder.join("server");
        let data = data.to_string_lossy();
        self.part("server", &["server", "--data", &data, "--log", "warn"])?;
        let access = self.folder.join("server/access.json");
        self.wait("the server", |_| access.exists())?;
        self.farlane(&["login", &access.to_string_lossy()])
            .output()?;
        Ok(())
    }

    fn join(&mut self, machine: &Machine, tenant: &str) -> Result<()> {
        let Machine {
            region,
            price,
            cpus,
        } = *machine;
        let join = self.folder.join(format!("join-{region}.txt"));
        let join = join.to_string_lossy();
        let token = [
            "tokens", "create", "--region", region, "--price", price, "--out", &join, "--json",
        ];
        self.farlane(&token).output()?;
        let state = self.agents.join(region);
        let (state, cpus) = (state.to_string_lossy(), cpus.to_string());
        let mut flags = vec![
            "agent",
            "--join-file",
            &join,
            "--state",
            &state,
            "--name",
            region,
        ];
        flags.extend(["--cpus", &cpus, "--own-tenant", tenant, "--log", "warn"]);
        self.part(region, &flags)
    }

    fn part(&mut self, name: &str, args: &[&str]) -> Result<()> {
        let log = self.folder.join(format!("{name}.log"));
        self.parts
            .push(self.farlane(args).started(&log, self.life)?);
        Ok(())
    }

    fn tenant(&self) -> Result<String> {
        let said = self.farlane(&["config", "show", "--json"]).output()?;
        let shown: serde_json::Value = serde_json::from_str(&said)?;
        let tenant = shown["tenant"].as_str().map(ToOwned::to_owned);
        tenant.context("`farlane config show` names no tenant")
    }

    fn wait(&mut self, what: &str, mut there: impl FnMut(&Self) -> bool) -> Result<()> {
        let begun = Instant::now();
        while !there(self) {
            self.parts.iter_mut().try_for_each(Running::still_runs)?;
            if begun.elapsed() > START_LIMIT {
                let seconds = START_LIMIT.as_secs();
                bail!(
                    "{what} did not come up within {seconds} s; see {}",
                    self.folder.display()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let kept = self.parts.is_empty();
        // Machines first, so that none complains about a missing server.
        while let Some(part) = self.parts.pop() {
            drop(part);
        }
        if !kept && self.agents != self.folder {
            let _ = fs::remove_dir_all(&self.agents);
        }
    }
}

/// Makes the way to root's agents, which their system user walks.
fn open_to_all(agents: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    place::make(agents)?;
    for folder in [Path::new(SYSTEM_STATE), agents] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Ends what an earlier network of this folder left running on request.
fn end_kept(folder: &Path) -> Result<()> {
    let Ok(text) = fs::read_to_string(folder.join(PIDS)) else {
        return Ok(());
    };
    let marks = folder.to_string_lossy().into_owned();
    let ours = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("farlane") && (line.contains(&marks) || line.contains(SYSTEM_STATE))
    };
    let pids: Vec<u32> = text
        .lines()
        .filter_map(|l| l.parse().ok())
        .filter(ours)
        .collect();
    if !pids.is_empty() {
        println!("stopping the network that an earlier run kept");
        program::signal("TERM", &pids);
        let begun = Instant::now();
        while pids.iter().any(ours) {
            if begun.elapsed() > START_LIMIT {
                bail!("the network of an earlier run does not stop: kill {pids:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}
