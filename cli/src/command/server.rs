//! `farlane server`.

use std::net::SocketAddr;
use std::path::PathBuf;

use farlane_runtime::{Shutdown, telemetry};
use farlane_server::ServerConfig;
use serde_json::json;

use crate::problem::Problem;
use crate::show::{self, Form};
use crate::{control, folders, parse};

/// Run a server of the control plane. It can read no task, argument or result.
///
/// Settings come from defaults, then the file, then the environment (FARLANE_SERVER_…), then flags.
/// A founding server writes an access file into its folder: `farlane login` with it, elsewhere or here.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:  farlane server --data /var/lib/farlane/server --listen 0.0.0.0:7443 --advertise farlane.example\n          \
                        farlane server --config /etc/farlane/server.toml"
)]
pub struct Args {
    /// Settings, in TOML.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Its folder.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where to listen, like 0.0.0.0:7443; port 0 is chosen once and kept.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Host name or address by which others reach it; may be given again.
    #[arg(long, value_name = "HOST")]
    advertise: Vec<String>,
    /// The region that it stands in, like eu-central: prices of bytes and distances count from there.
    #[arg(long, value_parser = parse::region)]
    region: Option<String>,
    /// What to log.
    #[arg(long, env = "FARLANE_LOG", default_value = "info")]
    log: String,
    #[command(flatten)]
    form: Form,
}

pub fn run(args: Args) -> Result<(), Problem> {
    telemetry::init(&args.log, telemetry::Format::Text).map_err(Problem::failed)?;
    let data = args
        .data
        .clone()
        .unwrap_or_else(|| folders::data().join("server"));
    let mut config = ServerConfig::load(data, args.config.as_deref(), std::env::vars())?;
    // Flags come last, so --data holds against the file too.
    if let Some(data) = args.data {
        config.data = data;
    }
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    if !args.advertise.is_empty() {
        config.advertise = args.advertise;
    }
    if let Some(region) = args.region {
        config.region = region;
    }
    folders::make_private(&config.data)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(config, args.form))
}

async fn serve(config: ServerConfig, form: Form) -> Result<(), Problem> {
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    let data = config.data.clone();
    let file = control::access_file(&data);
    let running = control::start(config, &data, shutdown.clone()).await?;
    let founded = running.network() != [0; 32];
    if founded {
        control::admit_founder(&running, &data).await?;
    }
    match form.json {
        true => show::line(
            &json!({"urls": running.urls(), "access": file.display().to_string()}).to_string(),
        )?,
        false => eprintln!(
            "farlane: serving at {}; Ctrl-C stops it",
            running.urls().join(", ")
        ),
    }
    let say = |text: String| match form.json {
        true => {}
        false => eprintln!("farlane: {text}"),
    };
    let file = file.display();
    if !founded {
        say(format!(
            "the network is founded as soon as another of its servers runs; {file} is written then"
        ));
        let founded = tokio::select! {
            founded = running.founded() => founded,
            () = shutdown.requested() => false,
        };
        if !founded {
            shutdown.requested().await;
            return running.stop().await.map_err(Problem::failed);
        }
        control::admit_founder(&running, &data).await?;
    }
    say(format!("its founder logs in with `farlane login {file}`"));
    shutdown.requested().await;
    running.stop().await.map_err(Problem::failed)
}
