//! `farlane tokens`.

use std::io::Write;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use farlane::{Network, v1};
use farlane_model::Tier;
use farlane_seal::join::JoinFile;
use farlane_seal::private_file;
use farlane_units::{Millis, UsdMicros};
use serde_json::json;

use crate::command::keys::owner_of;
use crate::connect::{Target, block_on};
use crate::owner::{Enrolment, Owner};
use crate::problem::{Exit, Problem};
use crate::show::{self, Form};
use crate::{parse, revocations};

/// How long an address is tried. Chosen: twice the slowest round trip on Earth by satellite, and
/// short enough for a prompt.
const REACH_TIMEOUT: Duration = Duration::from_secs(2);

/// Make one-time join files for machines.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Create(Box<Create>),
}

/// Make a join file: one machine joins with it, once, before it expires.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:  farlane tokens create --region eu-central --price 0.04\n          \
                        ssh HOST farlane agent --join-file - < farlane-join-eu-central.txt"
)]
struct Create {
    /// Where the machine is; tasks ask for regions like `eu-*`.
    #[arg(long, default_value = "local", value_parser = parse::region)]
    region: String,
    /// Dollars for one core for an hour; without it, what the machine's own flags say, else 0.
    #[arg(long, value_parser = parse::price)]
    price: Option<UsdMicros>,
    /// What else is true of it; may be given again.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse::label)]
    labels: Vec<(String, String)>,
    /// The strongest sandbox that it may claim.
    #[arg(long, default_value = "namespaces")]
    tier: TierName,
    /// How long the file can be used to join.
    #[arg(long, default_value = "24h", value_parser = parse::duration)]
    expires: Duration,
    /// Where to write it; `-` prints it.
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    target: Target,
}

/// Sandboxes by name.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum TierName {
    Process,
    Namespaces,
    Gvisor,
    Microvm,
}

impl From<TierName> for Tier {
    fn from(name: TierName) -> Self {
        match name {
            TierName::Process => Self::Process,
            TierName::Namespaces => Self::Namespaces,
            TierName::Gvisor => Self::UserKernel,
            TierName::Microvm => Self::MicroVm,
        }
    }
}

pub fn run(args: Args) -> Result<(), Problem> {
    let Action::Create(create) = args.action;
    block_on(self::create(*create))
}

/// Registers a fresh join secret with the network and returns the file that carries it.
///
/// *Errors*: the network refuses, or does not answer.
pub async fn register(
    network: &Network,
    owner: &Owner,
    wish: Enrolment,
) -> Result<JoinFile, Problem> {
    let mine = network.identity();
    let now = Millis(show::now_ms());
    let mut file = owner.enrol(wish, mine.urls.clone(), mine.ca_pem.clone(), now)?;
    let request = v1::CreateJoinTokenRequest {
        secret_hash: file.secret.hash().as_bytes().to_vec().into(),
        expires_ms: file.expires.0,
        enrolment_bytes: file.enrolment.to_bytes(),
    };
    let reply = network.create_join_token(request).await?;
    if !reply.urls.is_empty() {
        file.urls = reply.urls;
    }
    Ok(file)
}

async fn create(args: Create) -> Result<(), Problem> {
    let network = args.target.connect().await?;
    let owner = owner_of(network.identity())?;
    let life = u64::try_from(args.expires.as_millis()).unwrap_or(u64::MAX);
    let wish = Enrolment {
        region: args.region.clone(),
        tier: args.tier.into(),
        labels: args.labels,
        price: args.price,
        expires: Millis(show::now_ms().saturating_add(life)),
    };
    let file = register(&network, &owner, wish).await?;
    // Its machine is granted nothing before its provider's list is there.
    revocations::publish(&owner, &network).await?;
    let path = args
        .out
        .unwrap_or_else(|| PathBuf::from(format!("farlane-join-{}.txt", args.region)));
    if path.as_os_str() == "-" {
        std::io::stdout()
            .lock()
            .write_all(file.to_text().as_bytes())?;
        return Ok(());
    }
    private_file::write(&path, file.to_text().as_bytes()).map_err(Problem::failed)?;
    let unreachable: Vec<String> = file
        .urls
        .iter()
        .filter_map(|url| reach(url).err())
        .collect();
    let command = format!("ssh HOST farlane agent --join-file - < {}", path.display());
    if args.form.json {
        return show::json(&json!({
            "file": path.display().to_string(),
            "command": command,
            "node": file.enrolment.node().to_string(),
            "region": args.region,
            "expires_ms": file.expires.0,
            "urls": file.urls,
            "warnings": unreachable,
        }));
    }
    show::line(&format!(
        "{} (secret; for one machine, {})",
        path.display(),
        show::relative(file.expires.0, show::now_ms())
    ))?;
    show::line(&format!("on the other machine:\n  {command}"))?;
    unreachable
        .iter()
        .for_each(|warning| eprintln!("farlane: {warning}"));
    match unreachable.len() == file.urls.len()
        && unreachable.iter().any(|w| !w.contains("only this machine"))
    {
        true => Err(Problem::new(
            Exit::NoConnection,
            "none of the addresses in the join file answers",
        )),
        false => Ok(()),
    }
}

/// Whether another machine could reach `url`: it answers, and it is no loopback address.
fn reach(url: &str) -> Result<(), String> {
    let bare = url
        .split_once("://")
        .map_or(url, |(_, rest)| rest)
        .trim_end_matches('/');
    let addresses: Vec<_> = bare
        .to_socket_addrs()
        .map_err(|e| format!("{url} cannot be resolved: {e}"))?
        .collect();
    let answers = addresses
        .iter()
        .any(|a| TcpStream::connect_timeout(a, REACH_TIMEOUT).is_ok());
    match (answers, addresses.iter().all(|a| a.ip().is_loopback())) {
        (false, _) => Err(format!(
            "{url} does not answer within {} s",
            REACH_TIMEOUT.as_secs()
        )),
        (true, true) => Err(format!(
            "{url} is reached from only this machine; start `farlane up --listen ADDRESS` with one that others see"
        )),
        (true, false) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_tried() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        assert!(reach(&url).unwrap_err().contains("only this machine"));
        drop(listener);
        assert!(reach(&url).unwrap_err().contains("does not answer"));
        assert!(
            reach("https://no-such-host.invalid:1")
                .unwrap_err()
                .contains("resolved")
        );
    }
}
