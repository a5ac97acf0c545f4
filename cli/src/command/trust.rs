//! `farlane trust`.

use std::path::{Path, PathBuf};

use farlane::Identity;
use farlane_seal::PublicKey;
use farlane_seal::record::{Manifest, ProviderPin};
use farlane_units::Millis;
use serde_json::json;

use crate::owner::{self, Owner};
use crate::problem::{Exit, Problem};
use crate::show::{self, Form, Table};
use crate::{folders, parse};

/// Say whose machines may run this tenant's work.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
    /// Folder of a `farlane up` that was given one with --data; without it, the one that
    /// FARLANE_IDENTITY_FILE lies in where the owner's keys do too, else this user's own.
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the providers trusted.
    #[command(after_help = "Example:  farlane trust list --json")]
    List {
        #[command(flatten)]
        form: Form,
    },
    /// Print this owner's own fingerprint, for others to trust.
    #[command(after_help = "Example:  farlane trust show")]
    Show {
        #[command(flatten)]
        form: Form,
    },
    /// Trust a provider: its machines may then open this tenant's work.
    #[command(
        after_help = "Example:  farlane trust add lab 6f1c…9e02   (64 digits, as `farlane trust show` prints them there)"
    )]
    Add {
        /// Name for people.
        #[arg(value_parser = parse::name)]
        name: String,
        /// The provider's fingerprint.
        #[arg(value_parser = owner::fingerprint)]
        fingerprint: PublicKey,
        /// It is this tenant's own: results may be pickled objects, which can run code here.
        #[arg(long)]
        own: bool,
    },
    /// Trust a provider no longer. Work already granted runs to its end.
    #[command(after_help = "Example:  farlane trust remove lab")]
    Remove {
        /// Its name.
        #[arg(value_parser = parse::name)]
        name: String,
    },
}

pub fn run(args: Args) -> Result<(), Problem> {
    let data = folders::of_owner(args.data.as_deref(), None);
    let owner = Owner::existing(&data)?.ok_or_else(|| {
        Problem::new(
            Exit::NotAllowed,
            format!("no owner's keys in {}", folders::keys(&data).display()),
        )
        .next(
            "`farlane up` or `farlane login` makes them; run this on that machine, with --data DIR \
             if `up` was given one",
        )
    })?;
    let now = Millis(show::now_ms());
    let manifest = owner.manifest(now)?;
    match args.action {
        Action::List { form } => list(&manifest, form),
        Action::Show { form } => match form.json {
            true => show::json(&json!({
                "provider": owner.provider.public().to_string(),
                "tenant": owner.tenant.public().to_string(),
            })),
            false => show::line(&owner.provider.public().to_string()),
        },
        Action::Add {
            name,
            fingerprint,
            own,
        } => {
            let mut terms = (*manifest).clone();
            terms.providers.retain(|p| p.root != fingerprint);
            if terms.providers.iter().any(|p| p.name == name) {
                return Err(Problem::new(
                    Exit::Usage,
                    format!("another provider is called {name:?} already"),
                )
                .next("`farlane trust list` shows them; choose another name"));
            }
            terms.providers.push(ProviderPin {
                root: fingerprint,
                name: name.clone(),
                own,
            });
            let signed = owner.sign_manifest(terms, now)?;
            hand_out(&owner, &data, &signed, now)?;
            show::line(&format!(
                "trusting {name}: its machines may open this tenant's work (manifest {})",
                signed.version
            ))
        }
        Action::Remove { name } => {
            let mut terms = (*manifest).clone();
            let own = owner.provider.public();
            let before = terms.providers.len();
            terms.providers.retain(|p| p.name != name || p.root == own);
            if terms.providers.len() == before {
                return Err(Problem::new(
                    Exit::NotFound,
                    format!("no other provider is called {name:?}"),
                )
                .next("`farlane trust list` shows them"));
            }
            let signed = owner.sign_manifest(terms, now)?;
            hand_out(&owner, &data, &signed, now)?;
            show::line(&format!(
                "no longer trusting {name} (manifest {})",
                signed.version
            ))
        }
    }
}

fn list(manifest: &Manifest, form: Form) -> Result<(), Problem> {
    if form.json {
        return show::json(&json!({
            "version": manifest.version,
            "not_after_ms": manifest.not_after.0,
            "providers": manifest.providers.iter().map(|p| json!({
                "name": p.name, "fingerprint": p.root.to_string(), "own": p.own,
            })).collect::<Vec<_>>(),
        }));
    }
    let mut table = Table::new(&["NAME", "OWN", "FINGERPRINT"]);
    for pin in &manifest.providers {
        table.row([
            pin.name.clone(),
            if pin.own { "yes" } else { "no" }.to_owned(),
            pin.root.to_string(),
        ]);
    }
    table.print("nobody")
}

/// Puts a new manifest into every identity of this tenant on this machine: `up`'s own and profiles.
fn hand_out(owner: &Owner, data: &Path, manifest: &Manifest, now: Millis) -> Result<(), Problem> {
    let mut files = vec![folders::endpoint(data)];
    let profiles = folders::profile("default");
    if let Some(folder) = profiles.parent().filter(|f| f.is_dir()) {
        files.extend(folder.read_dir()?.flatten().map(|entry| entry.path()));
    }
    for path in files
        .iter()
        .filter(|p| p.extension().is_some_and(|e| e == "json") && p.exists())
    {
        let mut identity = Identity::load(path).map_err(Problem::failed)?;
        if identity.tenant_root != owner.tenant.public() {
            continue;
        }
        identity
            .manifest
            .replace(manifest.clone(), now)
            .map_err(Problem::failed)?;
        identity.save(path).map_err(Problem::failed)?;
    }
    Ok(())
}
