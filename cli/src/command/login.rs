//! `farlane login`.

use std::io::Read;
use std::path::PathBuf;

use farlane::{ConnectOptions, Identity, Network, v1};
use farlane_units::Millis;
use serde_json::json;

use crate::access::Access;
use crate::connect::{Target, block_on};
use crate::owner::{Owner, hex};
use crate::problem::{Problem, doing, reading};
use crate::show::{self, Form};
use crate::{folders, parse};

/// Largest file read from a prompt or pipe: an identity is a few KiB, its manifest at most 128 KiB.
const MAX_FILE: u64 = 4 << 20;

/// Store how to reach a network, as a profile that every program of this user finds.
///
/// FILE is an access file (from `farlane server` or `farlane keys create --access`), to which this
/// machine adds keys of its own, or a whole identity file (`--identity-out`), which is stored as it is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:  farlane login access.json\n          \
                        ssh server cat access.json | farlane login - --profile lab")]
pub struct Args {
    /// Access or identity file; `-` reads standard input.
    file: PathBuf,
    /// Name of the profile. `default` is used without further words, others by FARLANE_PROFILE.
    #[arg(long, default_value = "default", value_parser = parse::name)]
    profile: String,
    /// Store it without asking the network.
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    target: Target,
}

pub fn run(args: Args) -> Result<(), Problem> {
    let text = read(&args.file)?;
    let now = Millis(show::now_ms());
    let mut identity = match Access::from_json(&text)? {
        Some(access) if !access.names_network() => {
            return Err(
                Problem::failed("this access file was written before its network was founded").next(
                    "start another server of that network; log in with the file that the server has then",
                ),
            );
        }
        Some(access) => {
            let data = args.target.data.clone().unwrap_or_else(folders::data);
            Owner::open(&data)?.identity(&args.profile, &access, now)?
        }
        None => whole(&text)?,
    };
    if let Some(url) = &args.target.url {
        identity.urls = vec![url.clone()];
    }
    let status = match args.offline {
        true => None,
        false => Some(block_on(async {
            let options = ConnectOptions {
                connect_timeout: args.target.patience,
                ..ConnectOptions::default()
            };
            let network = Network::connect(identity.clone(), options).await?;
            Ok(network.get_status(v1::GetStatusRequest {}).await?)
        })?),
    };
    let path = folders::profile(&args.profile);
    identity.save(&path).map_err(Problem::failed)?;
    let project = status.map(|s| s.project).unwrap_or_default();
    if args.form.json {
        return show::json(&json!({
            "profile": args.profile,
            "file": path.display().to_string(),
            "urls": identity.urls,
            "network": hex(&identity.network),
            "project": project,
        }));
    }
    show::line(&format!(
        "logged in to {} as profile {:?} ({})",
        identity.urls.join(", "),
        args.profile,
        path.display()
    ))?;
    if args.profile != "default" {
        show::line(&format!("use it with FARLANE_PROFILE={}", args.profile))?;
    }
    Ok(())
}

fn read(file: &std::path::Path) -> Result<String, Problem> {
    let mut text = String::new();
    let source: Box<dyn Read> = match file.as_os_str() == "-" {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(file).map_err(reading(file))?),
    };
    source
        .take(MAX_FILE)
        .read_to_string(&mut text)
        .map_err(doing(file.display()))?;
    Ok(text)
}

/// An identity from its text: through a private file, which is the only door `Identity` has.
fn whole(text: &str) -> Result<Identity, Problem> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("identity.json");
    farlane_seal::private_file::write(&path, text.as_bytes()).map_err(Problem::failed)?;
    Identity::load(&path).map_err(|_| {
        Problem::failed("this is neither an access file nor an identity file")
            .next("`farlane keys create NAME --access FILE` on the owner's machine makes one")
    })
}
