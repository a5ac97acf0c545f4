//! `farlane config`.

use std::path::PathBuf;

use clap::ValueEnum;
use farlane_server::ServerConfig;
use serde_json::{Value, json};

use crate::connect::Target;
use crate::folders;
use crate::owner::hex;
use crate::problem::Problem;
use crate::show::{self, Form};

/// Show the settings in force.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Show(Box<Show>),
}

/// Show what is in force after defaults, file, environment and flags; secrets are masked. With
/// --role server, --data is the server's folder.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:  farlane config show\n          farlane config show --role server --config server.toml --json"
)]
struct Show {
    /// Whose settings.
    #[arg(long, default_value = "client")]
    role: Role,
    /// The server's file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    Client,
    Server,
}

pub fn run(args: Args) -> Result<(), Problem> {
    let Action::Show(show) = args.action;
    let value = match show.role {
        Role::Client => client(&show)?,
        Role::Server => server(&show)?,
    };
    if show.form.json {
        return show::json(&value);
    }
    let Value::Object(settings) = value else {
        return Ok(());
    };
    for (key, value) in &settings {
        show::line(&format!("{key} = {value}"))?;
    }
    Ok(())
}

fn client(show: &Show) -> Result<Value, Problem> {
    let identity = show.target.identity()?;
    Ok(json!({
        "name": identity.name,
        "urls": identity.urls,
        "project": identity.project.to_string(),
        "network": hex(&identity.network),
        "api_key": masked_key(&identity.api_key),
        "tenant": identity.tenant().to_string(),
        "device": identity.device.device.to_string(),
        "manifest_version": identity.manifest.version,
        "providers": identity.manifest.providers.iter().map(|p| p.name.clone()).collect::<Vec<_>>(),
    }))
}

fn server(show: &Show) -> Result<Value, Problem> {
    // As `farlane server --data` takes it.
    let data = show.target.data.clone();
    let data = data.unwrap_or_else(|| folders::data().join("server"));
    let mut config = ServerConfig::load(data, show.config.as_deref(), std::env::vars())?;
    config.database = masked_url(&config.database);
    config.carbon = masked_query(&config.carbon);
    serde_json::to_value(&config).map_err(Problem::failed)
}

/// The public half of an API key.
fn masked_key(key: &str) -> String {
    match key.rsplit_once('_') {
        Some((public, _)) => format!("{public}_…"),
        None => "…".to_owned(),
    }
}

/// A database's address without its password.
fn masked_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    match rest.split_once('@') {
        Some((user, host)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:…@{host}")
        }
        None => url.to_owned(),
    }
}

/// An address without what follows its path, which may be a key.
fn masked_query(url: &str) -> String {
    match url.split_once('?') {
        Some((path, _)) if url.contains("://") => format!("{path}?…"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked() {
        assert_eq!(masked_key("flk_01ABC_deadbeef"), "flk_01ABC_…");
        assert_eq!(masked_key("hunter2"), "…");
        assert_eq!(
            masked_url("postgres://me:hunter2@db/x"),
            "postgres://me:…@db/x"
        );
        assert_eq!(masked_url("postgres://db/x"), "postgres://db/x");
        assert_eq!(masked_url(""), "");
        assert_eq!(masked_query("https://a/b?key=x"), "https://a/b?…");
        assert_eq!(
            (masked_query("a?b.csv"), masked_query("")),
            ("a?b.csv".to_owned(), String::new())
        );
    }
}
