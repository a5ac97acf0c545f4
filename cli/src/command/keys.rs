//! `farlane keys`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use farlane::v1;
use farlane_units::Millis;
use farlane_wire::id;
use serde_json::{Value, json};

use super::projects;
use crate::access::Access;
use crate::connect::{Target, block_on};
use crate::owner::Owner;
use crate::place::Place;
use crate::problem::{Exit, Problem};
use crate::show::{self, Form, Table};
use crate::{folders, parse};

/// Make, list and revoke API keys.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the project's keys.
    #[command(after_help = "Example:  farlane keys list --json")]
    List {
        #[command(flatten)]
        form: Form,
        #[command(flatten)]
        target: Target,
    },
    Create(Box<Create>),
    /// Revoke a key at once, everywhere.
    #[command(after_help = "Example:  farlane keys revoke 01JDC4V8Q2X3S4ZK9T5B6N7M8P")]
    Revoke {
        /// Its id, as `farlane keys list` shows it.
        id: String,
        #[command(flatten)]
        target: Target,
    },
}

/// What a key may, in words. Source: farlane-store, `Scope`.
const SCOPES: [&str; 4] = ["submit", "read", "admin", "network"];

/// Make a key. It is shown once; only its hash is stored.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:  farlane keys create laptop --identity-out laptop.json   (another machine, or somebody who may read all: then `farlane login laptop.json`)\n          \
                        farlane keys create guest --scopes read --access guest.json   (another owner, who looks and does not submit)"
)]
struct Create {
    /// What it is for.
    #[arg(value_parser = parse::name)]
    name: String,
    /// What it may: submit, read, admin (keys of the project), network (what concerns every project: machines,
    /// prices, projects, traces; give read beside it, since its commands look at lists first).
    #[arg(long, value_delimiter = ',', default_value = "submit,read", value_parser = SCOPES)]
    scopes: Vec<String>,
    /// Until when.
    #[arg(long, default_value = "365d", value_parser = parse::duration)]
    expires: Duration,
    /// Of another project than one's own: needs a key with the scopes `admin`, `network` and `read`.
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Write an access file instead of printing the key: for an owner with keys of their own, who may then
    /// look and, with `network`, bring machines. Only the project's own owner submits to it and grants:
    /// for that, --identity-out.
    #[arg(long, value_name = "FILE")]
    access: Option<PathBuf>,
    /// Write a whole identity with a device key that ends with the API key: it submits, grants and can
    /// read all of this project's data. Needs the owner's keys on this machine.
    #[arg(long, value_name = "FILE", conflicts_with = "access")]
    identity_out: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    target: Target,
}

pub fn run(args: Args) -> Result<(), Problem> {
    match args.action {
        Action::List { form, target } => block_on(list(target, form)),
        Action::Create(create) => block_on(self::create(*create)),
        Action::Revoke { id, target } => block_on(revoke(target, id)),
    }
}

fn as_json(key: &v1::KeyView) -> Value {
    json!({
        "id": key.id,
        "name": key.name,
        "scopes": key.scopes,
        "created_ms": key.created_ms,
        "expires_ms": key.expires_ms,
        "revoked": key.revoked,
    })
}

async fn list(target: Target, form: Form) -> Result<(), Problem> {
    let network = target.connect().await?;
    let keys = network.list_keys(v1::ListKeysRequest {}).await?.keys;
    if form.json {
        return show::json(&keys.iter().map(as_json).collect::<Vec<_>>());
    }
    let now = show::now_ms();
    let mut table = Table::new(&["KEY", "NAME", "SCOPES", "MADE", "EXPIRES"]);
    for key in &keys {
        let expires = match (key.revoked, key.expires_ms <= now) {
            (true, _) => "revoked".to_owned(),
            (false, true) => "expired".to_owned(),
            (false, false) => show::relative(key.expires_ms, now),
        };
        table.row([
            key.id.clone(),
            show::name(&key.name),
            key.scopes.join(","),
            show::relative(key.created_ms, now),
            expires,
        ]);
    }
    table.print("no keys")
}

async fn create(args: Create) -> Result<(), Problem> {
    let network = args.target.connect().await?;
    let life = Millis(u64::try_from(args.expires.as_millis()).unwrap_or(u64::MAX));
    // Before the key is made, so that nothing is left over when the owner's keys are elsewhere.
    let owner = match &args.identity_out {
        Some(_) => Some(owner_of(network.identity(), &args.target.owner_folder())?),
        None => None,
    };
    let place = args.access.clone().or_else(|| args.identity_out.clone());
    let place = place.map(Place::take).transpose()?;
    let project = match &args.project {
        Some(name) => Some(projects::find(&network, name).await?.project),
        None => None,
    };
    let of = project.as_ref().map(|id| id::project(id)).transpose();
    let of = of.map_err(Problem::failed)?;
    let request = v1::CreateKeyRequest {
        name: args.name.clone(),
        scopes: args.scopes.clone(),
        ttl_ms: life.0,
        project: project.unwrap_or_default(),
    };
    let made = network.create_key(request).await?;
    let key = made.key.unwrap_or_default();
    let mine = network.identity();
    let access = Access {
        name: args.name.clone(),
        urls: mine.urls.clone(),
        ca_pem: mine.ca_pem.clone(),
        api_key: made.secret.clone(),
        project: of.unwrap_or(mine.project),
        network: mine.network.clone(),
    };
    let mut secret = Some(made.secret);
    let mut file = None;
    if let Some(path) = &args.access {
        access.save(path)?;
        (secret, file) = (None, Some(path));
    }
    if let (Some(path), Some(owner)) = (&args.identity_out, owner) {
        let identity = owner.guest(&args.name, &access, life, Millis(show::now_ms()))?;
        identity.save(path).map_err(Problem::failed)?;
        (secret, file) = (None, Some(path));
    }
    if let Some(place) = place {
        place.keep();
    }
    if args.form.json {
        let mut value = as_json(&key);
        value["secret"] = json!(secret);
        value["file"] = json!(file.map(|f| f.display().to_string()));
        return show::json(&value);
    }
    match (secret, file) {
        (Some(secret), _) => {
            eprintln!(
                "key {} ({}): this is the only time it is shown",
                key.id,
                key.scopes.join(",")
            );
            show::line(&secret)
        }
        (None, Some(path)) => show::line(&format!(
            "key {} written to {} (secret: mode 0600)",
            key.id,
            path.display()
        )),
        (None, None) => Ok(()),
    }
}

/// The owner's keys in `data`, where they are those of `identity`.
///
/// *Errors*: there are none, or they are another tenant's.
pub fn owner_of(identity: &farlane::Identity, data: &Path) -> Result<Owner, Problem> {
    let owner = Owner::existing(data)?.ok_or_else(|| {
        Problem::new(
            Exit::NotAllowed,
            format!(
                "the owner's keys are not on this machine ({})",
                folders::keys(data).display()
            ),
        )
        .next(
            "run this where `farlane up` or `farlane login` made them; if that was given another \
             folder, with --data DIR",
        )
    })?;
    match owner.tenant.public() == identity.tenant_root {
        true => Ok(owner),
        false => Err(Problem::new(
            Exit::NotAllowed,
            format!(
                "the keys in {} belong to another tenant than this identity",
                folders::keys(data).display()
            ),
        )
        .next("choose the identity with --identity, or both with --data DIR")),
    }
}

async fn revoke(target: Target, id: String) -> Result<(), Problem> {
    let network = target.connect().await?;
    // A whole key is understood too; its secret part is not sent.
    let id = id
        .strip_prefix("flk_")
        .and_then(|rest| rest.split('_').next())
        .unwrap_or(&id)
        .to_owned();
    network
        .revoke_key(v1::RevokeKeyRequest { id: id.clone() })
        .await
        .map_err(|error| Problem::from(error).where_missing("`farlane keys list` shows them"))?;
    show::line(&format!("revoked {id}"))
}
