//! Where a client finds its network, without being told.
//!
//! Order: what the caller passed; `FARLANE_IDENTITY_FILE`; the profile
//! (`$XDG_CONFIG_HOME/farlane/profiles/default.json`, or the one that `FARLANE_PROFILE` names); the endpoint file
//! that `farlane up` keeps (`$XDG_DATA_HOME/farlane/endpoint.json`). `FARLANE_URL` and `FARLANE_KEY` replace the
//! address and the key of whichever was found.

use std::path::{Path, PathBuf};

use farlane_model::TenantId;
use farlane_seal::identity::Identity;
use farlane_wire::channel;

use crate::Error;

/// What a caller may pass.
#[derive(Debug, Clone, Default)]
pub struct Hints {
    /// An identity file.
    pub identity_file: Option<PathBuf>,
    /// Replaces the addresses.
    pub url: Option<String>,
    /// Replaces the API key.
    pub key: Option<String>,
}

/// Reads the process's environment; tests pass their own.
pub trait Environment {
    /// A variable's value.
    fn var(&self, name: &str) -> Option<String>;
}

/// The process's own.
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }
}

/// Folder of profiles that `farlane login` writes.
pub fn profiles_dir(env: &impl Environment) -> PathBuf {
    xdg(env, "XDG_CONFIG_HOME", ".config").join("profiles")
}

/// The file that `farlane up` keeps for clients of this user.
pub fn endpoint_file(env: &impl Environment) -> PathBuf {
    xdg(env, "XDG_DATA_HOME", ".local/share").join("endpoint.json")
}

/// The folder that clients and granters of this user and tenant share, to remember grants of what may
/// run once and the newest revocations.
pub fn memory_folder(env: &impl Environment, tenant: TenantId) -> PathBuf {
    let shared = xdg(env, "XDG_DATA_HOME", ".local/share").join("memory");
    shared.join(tenant.to_string())
}

fn xdg(env: &impl Environment, name: &str, fallback: &str) -> PathBuf {
    let base = env
        .var(name)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let home = || {
        env.var("HOME")
            .map_or_else(|| PathBuf::from("/"), PathBuf::from)
            .join(fallback)
    };
    base.unwrap_or_else(home).join("farlane")
}

/// The identity to use.
///
/// *Errors*: none found, and where it was looked for; or the file found, the address or the key cannot
/// be used.
pub fn discover(hints: &Hints, env: &impl Environment) -> Result<Identity, Error> {
    let mut identity = load(&find(hints, env)?)?;
    if let Some(url) = hints.url.clone().or_else(|| env.var("FARLANE_URL")) {
        identity.urls = vec![url];
    }
    if let Some(key) = hints.key.clone().or_else(|| env.var("FARLANE_KEY")) {
        if !is_key(&key) {
            let what =
                "the API key given cannot be one; `farlane keys create` prints keys, like flk_…";
            return Err(Error::BadIdentity(what.to_owned()));
        }
        identity.api_key = key.into();
    }
    for url in &identity.urls {
        // Found out now, not by trying for as long as patience lasts.
        channel::endpoint(url, identity.ca_pem.as_bytes(), None)
            .map_err(|e| Error::BadIdentity(e.to_string()))?;
    }
    Ok(identity)
}

/// Whether a text can stand in a header, where keys are shown.
fn is_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_graphic())
}

fn find(hints: &Hints, env: &impl Environment) -> Result<PathBuf, Error> {
    if let Some(path) = &hints.identity_file {
        return Ok(path.clone());
    }
    if let Some(path) = env.var("FARLANE_IDENTITY_FILE") {
        return Ok(PathBuf::from(path));
    }
    let named = env.var("FARLANE_PROFILE");
    let profile = profiles_dir(env).join(format!("{}.json", named.as_deref().unwrap_or("default")));
    if profile.exists() || named.is_some() {
        return Ok(profile);
    }
    let endpoint = endpoint_file(env);
    if endpoint.exists() {
        return Ok(endpoint);
    }
    Err(Error::NoIdentity(format!(
        "no network to connect to: start one here with `farlane up`, or `farlane login` to one. \
         Looked at FARLANE_IDENTITY_FILE (not set), {}, and {}.",
        profile.display(),
        endpoint.display()
    )))
}

/// Reads an identity file.
///
/// *Errors*: it cannot be read, or others can read it.
pub fn load(path: &Path) -> Result<Identity, Error> {
    let at = path.display().to_string();
    Identity::load(path).map_err(|e| match e.to_string() {
        text if text.contains(&at) => Error::BadIdentity(text),
        text => Error::BadIdentity(format!("{at}: {text}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    impl Environment for HashMap<&str, String> {
        fn var(&self, name: &str) -> Option<String> {
            self.get(name).cloned()
        }
    }

    fn found(hints: &Hints, env: &HashMap<&str, String>) -> Result<PathBuf, Error> {
        find(hints, env)
    }

    #[test]
    fn the_nearest_place_wins() -> Result<(), Box<dyn std::error::Error>> {
        let home = std::env::temp_dir().join(format!("farlane-discover-{}", std::process::id()));
        let mut env = HashMap::from([("HOME", home.display().to_string())]);
        let none = Hints::default();
        let Err(Error::NoIdentity(text)) = found(&none, &env) else {
            return Err("found one".into());
        };
        assert!(
            text.contains("farlane up") && text.contains("profiles/default.json"),
            "{text}"
        );

        let endpoint = home.join(".local/share/farlane/endpoint.json");
        std::fs::create_dir_all(endpoint.parent().ok_or("no parent")?)?;
        std::fs::write(&endpoint, "{}")?;
        assert_eq!(found(&none, &env)?, endpoint);
        let profile = home.join(".config/farlane/profiles/default.json");
        std::fs::create_dir_all(profile.parent().ok_or("no parent")?)?;
        std::fs::write(&profile, "{}")?;
        assert_eq!(found(&none, &env)?, profile);
        env.insert("FARLANE_IDENTITY_FILE", "/ci/identity.json".to_owned());
        assert_eq!(found(&none, &env)?, PathBuf::from("/ci/identity.json"));
        let hints = Hints {
            identity_file: Some("/arg.json".into()),
            ..Hints::default()
        };
        assert_eq!(found(&hints, &env)?, PathBuf::from("/arg.json"));
        std::fs::remove_dir_all(&home)?;
        Ok(())
    }

    #[test]
    fn keys_are_what_a_header_takes() {
        assert!(is_key("flk_abc.DEF-123"));
        for bad in ["", "flk ü", "flü", "a b", "a\n"] {
            assert!(!is_key(bad), "{bad:?}");
        }
    }
}
