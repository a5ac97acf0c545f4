//! The network and the sweep that a newcomer sees: `cargo xtask demo [--keep]`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::network::{Machine, Network};
use crate::preflight::{self, Purpose};
use crate::program::Life;
use crate::venv::Venv;
use crate::wheel::{self, Profile};

/// Where the machines of the demo stand, in name, and what a core costs there: made up, in the
/// range of spot prices of small cloud machines in 2026.
const PLACES: [(&str, &str); 3] = [
    ("us-west", "0.048"),
    ("eu-central", "0.039"),
    ("ap-southeast", "0.052"),
];
/// Three machines download and unpack scikit-learn first.
const SWEEP_LIMIT: Duration = Duration::from_secs(900);

/// Flags.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Keep the network up afterwards, and say how to use and stop it.
    #[arg(long)]
    keep: bool,
    /// How to compile.
    #[arg(long, default_value = "release", hide = true)]
    profile: Profile,
    /// Take what was built last.
    #[arg(long, hide = true)]
    no_build: bool,
}

/// Builds, starts the network, runs the sweep, stops the network unless told to keep it.
///
/// *Errors*: the machine lacks something, or a part fails; whatever runs is stopped then.
pub fn run(args: &Args) -> Result<ExitCode> {
    preflight::ensure(Purpose::Run)?;
    println!(
        "Builds Farlane (about 15 minutes on two cores, once), makes a Python environment, starts\n\
         one server and {} machines here, and runs a sweep on them (2 minutes, most of it fetching\n\
         scikit-learn). Takes about 4 GB under {}.\n",
        PLACES.len(),
        crate::place::cache().display(),
    );
    let begun = Instant::now();
    if !args.no_build {
        args.profile.build().shown()?;
    }
    let wheel = wheel::pack(args.profile)?;
    let venv = Venv::ensure("demo", &[])?;
    venv.install(&wheel)?;
    println!(
        "built in {} s: {}\n",
        begun.elapsed().as_secs(),
        wheel.display()
    );

    let life = if args.keep {
        Life::Own
    } else {
        Life::WithXtask
    };
    let network = Network::start("demo", &venv, &machines(), life)?;
    println!("one server and {} machines are up\n", PLACES.len());
    let script = crate::place::root().join("examples/digits_sweep.py");
    let swept = network
        .run("python")
        .args([script])
        .limit(SWEEP_LIMIT)
        .shown();
    if let Err(error) = swept {
        println!("what the parts said is in {}", network.folder().display());
        return Err(error);
    }
    match args.keep {
        true => kept(network)?,
        false => {
            drop(network);
            println!("\nThe network is stopped; nothing is left running.");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The cores of this machine, shared out; one each where there are few.
fn machines() -> Vec<Machine> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cpus = u32::try_from(cores / PLACES.len()).unwrap_or(1).max(1);
    PLACES
        .iter()
        .map(|&(region, price)| Machine {
            region,
            price,
            cpus,
        })
        .collect()
}

fn kept(network: Network) -> Result<()> {
    let export: Vec<String> = network
        .variables()
        .iter()
        .map(|(key, path)| format!("{key}={}", path.display()))
        .collect();
    let bin = crate::place::venvs().join("demo/bin");
    let pids: Vec<String> = network.keep()?.iter().map(ToString::to_string).collect();
    println!("\nThe network stays up. To use it in a shell:");
    println!("  export {} PATH={}:$PATH", export.join(" "), bin.display());
    println!("  farlane nodes");
    println!("  python -c 'import farlane as fl; print(fl.Client().submit(pow, 2, 10).result())'");
    println!("To stop it:\n  kill {}", pids.join(" "));
    Ok(())
}
