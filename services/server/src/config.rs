//! What a server is told: defaults < TOML < environment (`FARLANE_SERVER_…`) < flags.
//!
//! Owns the keys, their defaults and their checks. Leaves flags to the command line, which sets
//! fields of [`ServerConfig`] after [`ServerConfig::load`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use farlane_units::ByteCount;
use serde::Serialize;

use crate::{audit, carbon};

/// Another server of the same network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemberConfig {
    /// Its number, from 1.
    pub id: u64,
    /// Where it is reached.
    pub url: String,
    /// Where it stands; empty where that is not said.
    pub region: String,
}

/// Everything a server is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerConfig {
    /// Its folder.
    pub data: PathBuf,
    /// Where it listens. Port 0: one is chosen at the first start and kept in the folder.
    pub listen: SocketAddr,
    /// Host names or addresses by which others reach it, beside the one it listens on.
    pub advertise: Vec<String>,
    /// Where accounts lie: empty for a SQLite file in the folder, else a `postgres://` URL.
    pub database: String,
    /// This server's number among the members.
    pub id: u64,
    /// All servers, this one too; empty for one alone.
    pub members: Vec<MemberConfig>,
    /// Whether this server founds the network when its folder is empty.
    pub found: bool,
    /// Folder of blobs; empty for one in the server's own folder.
    pub blobs: PathBuf,
    /// Whether every server of the network sees that folder. Needed where there are several.
    pub blobs_shared: bool,
    /// Largest blob.
    pub blob_limit: ByteCount,
    /// Most bytes of one project's blobs.
    pub blob_project: ByteCount,
    /// Most bytes of all blobs.
    pub blob_total: ByteCount,
    /// Memory for cached rows.
    pub cache: ByteCount,
    /// Carbon of regions by hour: a file, or an address; empty for none.
    pub carbon: String,
    /// The region that it stands in; empty where that is not said.
    pub region: String,
    /// Seconds between two audits of one node; 0 for none.
    pub audit_every: u64,
    /// Where this server is: "52.5,13.4", degrees north and east, and kilometres around if a third is given; empty
    /// for the place of its region. Claimed places are then held against the speed of light.
    pub location: String,
    /// Where regions are, by globs; the first that matches counts.
    pub locations: Vec<(String, String)>,
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{path} is not valid TOML: {message}")]
    Syntax {
        /// Which.
        path: PathBuf,
        /// What the parser says.
        message: String,
    },
    /// A key that is none of ours.
    #[error("{origin}: unknown key {key:?}; did you mean {nearest:?}?")]
    UnknownKey {
        /// File or environment.
        origin: String,
        /// What was written.
        key: String,
        /// The nearest known one.
        nearest: &'static str,
    },
    /// Several servers without what they must share.
    #[error("{what}")]
    Alone {
        /// Which setting, and what to set.
        what: &'static str,
    },
    /// A value that does not fit its key.
    #[error("{origin}: {key} must be {wanted}, not {found:?}")]
    BadValue {
        /// File or environment.
        origin: String,
        /// Which key.
        key: &'static str,
        /// What it takes.
        wanted: &'static str,
        /// What was written.
        found: String,
    },
}

/// Every key, in the order of the struct.
const KEYS: [&str; 18] = [
    "data",
    "listen",
    "advertise",
    "database",
    "id",
    "members",
    "found",
    "blobs",
    "blobs_shared",
    "blob_limit",
    "blob_project",
    "blob_total",
    "cache",
    "carbon",
    "region",
    "audit_every",
    "location",
    "locations",
];
const ENV_PREFIX: &str = "FARLANE_SERVER_";

impl ServerConfig {
    /// The defaults, for this folder.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            advertise: Vec::new(),
            database: String::new(),
            id: 1,
            members: Vec::new(),
            found: true,
            blobs: PathBuf::new(),
            blobs_shared: false,
            blob_limit: ByteCount(farlane_wire::hello::BLOB_BYTES),
            // Source: half of all, so that one project alone cannot stop the others.
            blob_project: ByteCount::gib(32),
            // Source: fills a quarter of a common disk; raise it where there is more.
            blob_total: ByteCount::gib(64),
            // Source: SPEC.md, idle memory of a server.
            cache: ByteCount::mib(8),
            carbon: String::new(),
            region: String::new(),
            // Source: docs/design/audit.md: a quarter of a second of each machine a day.
            audit_every: 24 * 3600,
            location: String::new(),
            locations: Vec::new(),
        }
    }

    /// Reads the file when there is one, then the environment over it.
    ///
    /// *Errors*: an unreadable file, an unknown key, a value that does not fit.
    pub fn load(
        data: impl Into<PathBuf>,
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut config = Self::new(data);
        if let Some(path) = file {
            config.read_file(path)?;
        }
        let ours: BTreeMap<String, String> = environment
            .filter(|(key, _)| key.starts_with(ENV_PREFIX))
            .collect();
        for (name, text) in ours {
            let key = name[ENV_PREFIX.len()..].to_ascii_lowercase();
            config.set(&name, &key, &from_environment(&key, text))?;
        }
        Ok(config)
    }

    /// Whether the settings fit each other.
    ///
    /// *Errors*: several servers that would not share accounts or blobs.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.members.len() < 2 {
            return Ok(());
        }
        let postgres = ["postgres:", "postgresql:"];
        // SQLite locks its file between the processes of one machine, and of no more.
        let one_machine = !self.database.is_empty() && self.members.iter().all(is_loopback);
        let what = match () {
            () if !postgres.iter().any(|p| self.database.starts_with(p)) && !one_machine => {
                "several servers need one database for accounts: set `database` to the same \
                 postgres:// URL on each (FARLANE_SERVER_DATABASE); a SQLite file serves one server"
            }
            () if !self.blobs_shared => {
                "several servers need one folder for blobs: mount it on each, set `blobs` to it \
                 (FARLANE_SERVER_BLOBS), and say `blobs_shared = true` \
                 (FARLANE_SERVER_BLOBS_SHARED=true) once each of them sees the same files there"
            }
            () => return Ok(()),
        };
        Err(ConfigError::Alone { what })
    }

    /// Where each server stands, as far as that is said.
    pub fn homes(&self) -> Vec<(u64, Arc<str>)> {
        let others = self.members.iter().filter(|m| m.id != self.id);
        let others = others.map(|m| (m.id, m.region.as_str()));
        let own = self.members.iter().find(|m| m.id == self.id);
        let own = match self.region.as_str() {
            "" => own.map_or("", |m| &m.region),
            named => named,
        };
        let all = std::iter::once((self.id, own)).chain(others);
        let said = all.filter(|(_, region)| !region.is_empty());
        said.map(|(id, region)| (id, region.into())).collect()
    }

    /// Where blobs lie.
    pub fn blob_folder(&self) -> PathBuf {
        match self.blobs.as_os_str().is_empty() {
            true => self.data.join("blobs"),
            false => self.blobs.clone(),
        }
    }

    fn read_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::File {
            path: path.to_owned(),
            source,
        })?;
        let table: toml::Table =
            text.parse()
                .map_err(|e: toml::de::Error| ConfigError::Syntax {
                    path: path.to_owned(),
                    message: e.message().to_owned(),
                })?;
        let origin = path.display().to_string();
        for (key, value) in &table {
            self.set(&origin, key, value)?;
        }
        Ok(())
    }

    fn set(&mut self, origin: &str, key: &str, value: &toml::Value) -> Result<(), ConfigError> {
        let Some(known) = KEYS.into_iter().find(|k| *k == key) else {
            return Err(ConfigError::UnknownKey {
                origin: origin.to_owned(),
                key: key.to_owned(),
                nearest: nearest(key),
            });
        };
        self.assign(known, value)
            .map_err(|wanted| ConfigError::BadValue {
                origin: origin.to_owned(),
                key: known,
                wanted,
                found: value.to_string(),
            })
    }

    fn assign(&mut self, key: &'static str, value: &toml::Value) -> Result<(), &'static str> {
        match key {
            "data" => self.data = value.as_str().ok_or("a folder")?.into(),
            "listen" => {
                let text = value.as_str().ok_or("an address and port")?;
                self.listen = text
                    .parse()
                    .map_err(|_| "an address and port, like 0.0.0.0:7443")?;
            }
            "advertise" => self.advertise = strings(value).ok_or("a list of host names")?,
            "database" => self.database = value.as_str().ok_or("a URL")?.to_owned(),
            "id" => self.id = number(value).filter(|n| *n > 0).ok_or("a number from 1")?,
            "members" => {
                self.members = members(value).ok_or("a list of {id, url} or {id, url, region}")?
            }
            "found" => self.found = value.as_bool().ok_or("true or false")?,
            "blobs" => self.blobs = value.as_str().ok_or("a folder")?.into(),
            "blobs_shared" => self.blobs_shared = value.as_bool().ok_or("true or false")?,
            "blob_project" => self.blob_project = size(value).ok_or("a size, like 32GiB")?,
            "blob_limit" => self.blob_limit = size(value).ok_or("a size, like 4GiB")?,
            "blob_total" => self.blob_total = size(value).ok_or("a size, like 64GiB")?,
            "cache" => self.cache = size(value).ok_or("a size, like 8MiB")?,
            "region" => {
                let named = value.as_str().and_then(region);
                self.region = named.ok_or("the name of a region, like eu-central")?;
            }
            "audit_every" => self.audit_every = number(value).ok_or("seconds, 0 for none")?,
            "location" => self.location = audit::place(value).ok_or(audit::PLACE)?,
            "locations" => self.locations = audit::places(value).ok_or(audit::PLACES)?,
            _ => {
                let text = value.as_str().ok_or("a file or an address")?;
                if !text.is_empty() {
                    carbon::checked(text)?;
                }
                self.carbon = text.to_owned();
            }
        }
        Ok(())
    }
}

/// Text of the environment as the value its key takes: lists split at commas, words as they are.
fn from_environment(key: &str, text: String) -> toml::Value {
    match key {
        "advertise" => toml::Value::Array(
            text.split(',')
                .filter(|s| !s.is_empty())
                .map(|s| s.trim().into())
                .collect(),
        ),
        "members" => toml::Value::Array(
            text.split(',')
                .filter_map(|pair| pair.split_once('='))
                .map(member_value)
                .collect(),
        ),
        "locations" => toml::Value::Table(
            text.split(';')
                .filter_map(|pair| pair.split_once('='))
                .map(|(region, place)| (region.trim().to_owned(), place.trim().into()))
                .collect(),
        ),
        "id" | "audit_every" => text
            .parse::<i64>()
            .map_or(toml::Value::String(text), toml::Value::Integer),
        "found" | "blobs_shared" => text
            .parse::<bool>()
            .map_or(toml::Value::String(text), toml::Value::Boolean),
        _ => toml::Value::String(text),
    }
}

fn member_value((id, url): (&str, &str)) -> toml::Value {
    let mut table = toml::Table::new();
    table.insert("id".into(), id.trim().parse::<i64>().unwrap_or(0).into());
    table.insert("url".into(), url.trim().into());
    table.into()
}

fn strings(value: &toml::Value) -> Option<Vec<String>> {
    value
        .as_array()?
        .iter()
        .map(|v| v.as_str().map(str::to_owned))
        .collect()
}

fn number(value: &toml::Value) -> Option<u64> {
    value.as_integer().and_then(|n| u64::try_from(n).ok())
}

fn size(value: &toml::Value) -> Option<ByteCount> {
    match value {
        toml::Value::String(text) => text.parse().ok(),
        other => number(other).map(ByteCount),
    }
}

/// A region's name, or nothing.
fn region(text: &str) -> Option<String> {
    let named = text.is_empty() || farlane_model::is_region(text);
    named.then(|| text.to_owned())
}

fn members(value: &toml::Value) -> Option<Vec<MemberConfig>> {
    let read = |v: &toml::Value| {
        let table = v.as_table()?;
        let named = table.get("region");
        (table.len() == 2 + usize::from(named.is_some())).then_some(())?;
        Some(MemberConfig {
            id: number(table.get("id")?).filter(|id| *id > 0)?,
            url: table.get("url")?.as_str()?.to_owned(),
            region: named.map_or(Some(String::new()), |r| region(r.as_str()?))?,
        })
    };
    value.as_array()?.iter().map(read).collect()
}

fn is_loopback(member: &MemberConfig) -> bool {
    let rest = member.url.split_once("://").map_or("", |(_, rest)| rest);
    let host = rest.trim_end_matches('/').rsplit_once(':');
    let host = host.map_or(rest, |(host, _)| host);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn nearest(key: &str) -> &'static str {
    KEYS.into_iter()
        .min_by_key(|known| distance(key, known))
        .unwrap_or(KEYS[0])
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let cost = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
        let owned: Vec<_> = pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        owned.into_iter()
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.toml");
        std::fs::write(
            &path,
            "listen = \"0.0.0.0:7443\"\nblob_limit = \"2GiB\"\nmembers = [{id = 1, url = \"https://a:1\"}]\n",
        )
        .unwrap();
        let config = ServerConfig::load(
            "d",
            Some(&path),
            env(&[
                ("FARLANE_SERVER_BLOB_LIMIT", "1MiB"),
                ("FARLANE_SERVER_ADVERTISE", "a.example, b.example"),
                ("FARLANE_SERVER_MEMBERS", "2=https://b:1"),
                ("FARLANE_URL", "not ours"),
            ]),
        )
        .unwrap();
        assert_eq!(config.listen.port(), 7443);
        assert_eq!(config.blob_limit, ByteCount::mib(1));
        assert_eq!(config.advertise, ["a.example", "b.example"]);
        assert_eq!(
            config.members,
            [MemberConfig {
                id: 2,
                url: "https://b:1".into(),
                region: String::new()
            }]
        );
    }

    #[test]
    fn several_servers_must_share_accounts_and_blobs() {
        let mut config = ServerConfig::new("d");
        config.check().unwrap();
        let member = |id, url: &str| MemberConfig {
            id,
            url: url.to_owned(),
            region: String::new(),
        };
        config.members = vec![member(1, "https://a:1"), member(2, "https://127.0.0.1:1")];
        let wrong = |config: &ServerConfig| config.check().unwrap_err().to_string();
        for database in ["", "sqlite:///shared/accounts.db"] {
            config.database = database.to_owned();
            assert!(wrong(&config).contains("postgres://"), "{database}");
        }
        config.database = "postgres://farlane@db/farlane".to_owned();
        assert!(wrong(&config).contains("blobs_shared = true"));
        config.blobs_shared = true;
        config.check().unwrap();
        // On one machine a file that all of them name will do.
        config.members[0].url = "https://[::1]:7443".to_owned();
        config.database = "sqlite:///d/accounts.db".to_owned();
        config.check().unwrap();
        config.database = String::new();
        assert!(wrong(&config).contains("postgres://"));
    }

    #[test]
    fn a_wrong_key_names_its_neighbour_and_a_wrong_value_its_form() {
        let wrong = |key, value| {
            ServerConfig::load("d", None, env(&[(key, value)]))
                .unwrap_err()
                .to_string()
        };
        let text = wrong("FARLANE_SERVER_LISTN", "x");
        assert!(text.contains("did you mean \"listen\"?"), "{text}");
        let text = wrong("FARLANE_SERVER_LISTEN", "7443");
        assert!(text.contains("like 0.0.0.0:7443"), "{text}");
        assert!(wrong("FARLANE_SERVER_ID", "0").contains("a number from 1"));
    }
}
