//! `farlane tokens`.

use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use farlane::{Network, v1};
use farlane_model::Tier;
use farlane_seal::join::JoinFile;
use farlane_seal::record::EnrolmentCert;
use farlane_units::{Millis, UsdMicros};
use serde_json::json;

use crate::command::keys::owner_of;
use crate::command::nodes::short;
use crate::connect::{Target, block_on};
use crate::owner::{Enrolment, Owner, hex};
use crate::place::Place;
use crate::problem::{Exit, Problem};
use crate::show::{self, Form, Table};
use crate::{parse, revocations};

/// How long an address is tried. Chosen: twice the slowest round trip on Earth by satellite, and
/// short enough for a prompt.
const REACH_TIMEOUT: Duration = Duration::from_secs(2);

/// Make, list and revoke one-time join files for machines.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Create(Box<Create>),
    /// List the network's join files, newest first; never their secrets.
    #[command(after_help = "Example:  farlane tokens list --json")]
    List {
        #[command(flatten)]
        form: Form,
        #[command(flatten)]
        target: Target,
    },
    /// Revoke a join file that no machine has used.
    #[command(after_help = "Example:  farlane tokens revoke 6f1c09ab33d2")]
    Revoke {
        /// Its first digits, as `farlane tokens list` shows them.
        token: String,
        #[command(flatten)]
        target: Target,
    },
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
    /// Where to write it, a file that is not there yet; `-` prints it.
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
    match args.action {
        Action::Create(create) => block_on(self::create(*create)),
        Action::List { form, target } => block_on(list(target, form)),
        Action::Revoke { token, target } => block_on(revoke(target, token)),
    }
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
    let owner = owner_of(network.identity(), &args.target.owner_folder())?;
    let life = u64::try_from(args.expires.as_millis()).unwrap_or(u64::MAX);
    let wish = Enrolment {
        region: args.region.clone(),
        tier: args.tier.into(),
        labels: args.labels,
        price: args.price,
        expires: Millis(show::now_ms().saturating_add(life)),
    };
    let path = args
        .out
        .unwrap_or_else(|| PathBuf::from(format!("farlane-join-{}.txt", args.region)));
    let place = Place::take(path)?;
    // First, since it needs the same rights and more: what cannot be told must not be open to join with. And
    // a machine is granted nothing before its provider's list is there.
    revocations::publish(&owner, &network).await?;
    let file = register(&network, &owner, wish).await?;
    let Some(path) = place.fill(file.to_text().as_bytes())? else {
        return match args.form.json {
            true => show::json(&json!({
                "file": null,
                "text": file.to_text().as_str(),
                "node": file.enrolment.node().to_string(),
                "region": args.region,
                "expires_ms": file.expires.0,
                "urls": file.urls,
            })),
            false => show::text(&file.to_text()),
        };
    };
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

/// Digits of a token's hash that a table shows.
const SHORT: usize = 12;

fn state(token: &v1::JoinTokenView, now_ms: u64) -> &'static str {
    match () {
        () if token.taken_ms > 0 => "used",
        () if token.expires_ms <= now_ms => "expired",
        () => "open",
    }
}

async fn list(target: Target, form: Form) -> Result<(), Problem> {
    let network = target.connect().await?;
    let reply = network.list_join_tokens(v1::ListJoinTokensRequest {});
    let (tokens, now) = (reply.await?.tokens, show::now_ms());
    let promise =
        |token: &v1::JoinTokenView| EnrolmentCert::from_bytes(&token.enrolment_bytes).ok();
    if form.json {
        let each = tokens.iter().map(|token| {
            let promise = promise(token);
            json!({
                "token": hex(&token.secret_hash),
                "state": state(token, now),
                "region": promise.as_ref().map(|p| p.region.clone()),
                "node": promise.as_ref().map(|p| p.node().to_string()),
                "created_by": token.created_by,
                "created_ms": token.created_ms,
                "expires_ms": token.expires_ms,
                "taken_ms": token.taken_ms,
            })
        });
        return show::json(&each.collect::<Vec<_>>());
    }
    let mut table = Table::new(&["TOKEN", "REGION", "STATE", "MADE", "EXPIRES", "NODE"]);
    for token in &tokens {
        let promise = promise(token);
        let shown = hex(&token.secret_hash);
        table.row([
            shown.get(..SHORT).unwrap_or(&shown).to_owned(),
            promise
                .as_ref()
                .map_or_else(|| "?".to_owned(), |p| show::name(&p.region)),
            state(token, now).to_owned(),
            show::relative(token.created_ms, now),
            show::relative(token.expires_ms, now),
            promise.map_or_else(String::new, |p| short(&p.node().0)),
        ]);
    }
    table.print("no join file is known here; `farlane tokens create` makes one")
}

async fn revoke(target: Target, wanted: String) -> Result<(), Problem> {
    let network = target.connect().await?;
    let reply = network.list_join_tokens(v1::ListJoinTokensRequest {});
    let tokens = reply.await?.tokens;
    let begin = wanted.to_ascii_lowercase();
    let mut found = tokens
        .iter()
        .filter(|t| !begin.is_empty() && hex(&t.secret_hash).starts_with(&begin));
    let missing = || {
        let what = format!("no join file's token begins with {wanted:?}");
        Problem::new(Exit::NotFound, what).next("`farlane tokens list` shows them")
    };
    let token = found.next().ok_or_else(missing)?;
    if found.next().is_some() {
        let what = format!("more than one token begins with {wanted:?}");
        return Err(Problem::new(Exit::Usage, what).next("give more digits"));
    }
    if token.taken_ms > 0 {
        let what = "a machine has joined with it already";
        return Err(Problem::new(Exit::NotFound, what)
            .next("`farlane nodes remove NODE` takes that machine out"));
    }
    let secret_hash = token.secret_hash.clone();
    network
        .revoke_join_token(v1::RevokeJoinTokenRequest { secret_hash })
        .await?;
    show::line(&format!("revoked {begin}"))
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
