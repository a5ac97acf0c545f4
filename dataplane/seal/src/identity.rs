//! What a client needs to be somebody on a network, as one file.
//!
//! JSON, version 1, mode 0600. It holds secrets: the API key, the device's key and the project's
//! vault. What it names as its tenant's root is what it trusts; nothing in it comes from a control
//! plane unverified.

use std::fmt;
use std::path::{Path, PathBuf};

use farlane_model::{ProjectId, TenantId};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::private_file::{self, FileError};
use crate::record::{DeviceRecord, Manifest, RecordError};
use crate::sign::{DeviceKey, PublicKey};
use crate::vault::VaultSecret;

const VERSION: u32 = 1;

/// A device's place in a tenant's project on one network.
#[derive(Clone)]
pub struct Identity {
    /// For people; the profile's name.
    pub name: String,
    /// Where the control plane is; tried in order.
    pub urls: Vec<String>,
    /// The control plane's certificate authority, the only one accepted.
    pub ca_pem: String,
    /// Shown to the control plane with every call. Secret.
    pub api_key: Zeroizing<String>,
    /// The project that the key is for.
    pub project: ProjectId,
    /// The network, as in the server's hello.
    pub network: Vec<u8>,
    /// The tenant's root: what signs devices and manifests.
    pub tenant_root: PublicKey,
    /// This device. Secret.
    pub device_key: DeviceKey,
    /// Its record under the tenant's root.
    pub device: DeviceRecord,
    /// Opens the project's session keys. Secret.
    pub vault: VaultSecret,
    /// The tenant's policy: pinned providers, devices, granters.
    pub manifest: Manifest,
}

/// A file that is no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not there, exposed, or not written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not an identity file of a known version.
    #[error("{path} is not an identity file: {reason}", path = path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A record in it does not hold.
    #[error("a record in the identity file does not hold")]
    Record(#[from] RecordError),
}

/// The file's form: binary as hex.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    version: u32,
    name: String,
    urls: Vec<String>,
    ca_pem: String,
    api_key: String,
    project: String,
    network: String,
    tenant_root: String,
    device_key: String,
    device: String,
    vault: String,
    manifest: String,
}

impl Drop for Form {
    fn drop(&mut self) {
        self.api_key.zeroize();
        self.device_key.zeroize();
        self.vault.zeroize();
    }
}

fn bytes(field: &str, text: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    hex::decode(text)
        .map(Zeroizing::new)
        .map_err(|_| format!("its {field:?} is not hexadecimal"))
}

fn key(field: &str, text: &str) -> Result<Zeroizing<[u8; 32]>, String> {
    let mut out = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text, &mut *out)
        .map_err(|_| format!("its {field:?} is not 32 bytes in hexadecimal"))?;
    Ok(out)
}

impl Identity {
    /// The tenant it belongs to.
    pub fn tenant(&self) -> TenantId {
        self.tenant_root.tenant()
    }

    /// Reads one from its file.
    ///
    /// *Errors*: not there, readable by others, of another version, or a record does not hold.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let text = private_file::read(path)?;
        Self::from_json(&text).map_err(|error| match error {
            Bad::Text(reason) => IdentityError::Unreadable {
                path: path.to_owned(),
                reason,
            },
            Bad::Record(record) => IdentityError::Record(record),
        })
    }

    /// Writes it, mode 0600, whole or not at all; makes the folder (0700) when it is missing.
    ///
    /// *Errors*: the system's.
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            make_private_folder(folder).map_err(|source| FileError::Io {
                path: folder.to_owned(),
                source,
            })?;
        }
        private_file::write(path, self.to_json().as_bytes())?;
        Ok(())
    }

    /// As JSON.
    pub fn to_json(&self) -> Zeroizing<String> {
        let form = Form {
            version: VERSION,
            name: self.name.clone(),
            urls: self.urls.clone(),
            ca_pem: self.ca_pem.clone(),
            api_key: self.api_key.to_string(),
            project: self.project.to_string(),
            network: hex::encode(&self.network),
            tenant_root: hex::encode(self.tenant_root.0),
            device_key: hex::encode(self.device_key.expose()),
            device: hex::encode(self.device.to_bytes()),
            vault: hex::encode(self.vault.expose()),
            manifest: hex::encode(self.manifest.to_bytes()),
        };
        let text = serde_json::to_string_pretty(&form);
        Zeroizing::new(text.expect("strings and numbers always make JSON"))
    }

    fn from_json(text: &[u8]) -> Result<Self, Bad> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_slice(text).map_err(bad_json)?;
        if version != VERSION {
            return Err(Bad::Text(format!(
                "it has version {version}, this Farlane reads {VERSION}"
            )));
        }
        let form: Form = serde_json::from_slice(text).map_err(bad_json)?;
        let tenant_root = PublicKey(*key("tenant_root", &form.tenant_root)?);
        let device_key = DeviceKey::from_seed(&*key("device_key", &form.device_key)?);
        let device = DeviceRecord::from_bytes(&bytes("device", &form.device)?)?;
        let manifest = Manifest::from_bytes(&bytes("manifest", &form.manifest)?, &tenant_root)?;
        if device.tenant_root != tenant_root || device.device != device_key.public() {
            return Err(RecordError::Misplaced {
                what: "device record",
            }
            .into());
        }
        Ok(Self {
            name: form.name.clone(),
            urls: form.urls.clone(),
            ca_pem: form.ca_pem.clone(),
            api_key: Zeroizing::new(form.api_key.clone()),
            project: form
                .project
                .parse()
                .map_err(|_| "its \"project\" is no id".to_owned())?,
            network: bytes("network", &form.network)?.to_vec(),
            tenant_root,
            device_key,
            device,
            vault: VaultSecret::from_bytes(*key("vault", &form.vault)?),
            manifest,
        })
    }
}

enum Bad {
    Text(String),
    Record(RecordError),
}
impl From<String> for Bad {
    fn from(reason: String) -> Self {
        Self::Text(reason)
    }
}
impl From<RecordError> for Bad {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}

/// Line and column only: serde's own words may quote a secret.
fn bad_json(error: serde_json::Error) -> Bad {
    Bad::Text(format!(
        "line {}, column {} cannot be read",
        error.line(),
        error.column()
    ))
}

#[cfg(unix)]
fn make_private_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}
#[cfg(not(unix))]
fn make_private_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("name", &self.name)
            .field("urls", &self.urls)
            .field("project", &self.project)
            .field("tenant_root", &self.tenant_root)
            .field("device", &self.device.device)
            .field("manifest_version", &self.manifest.version)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::vectors::network::Cast;

    fn identity() -> Identity {
        let cast = Cast::new();
        Identity {
            name: "default".into(),
            urls: vec!["https://127.0.0.1:1".into()],
            ca_pem: "-----BEGIN CERTIFICATE-----\n".into(),
            api_key: Zeroizing::new("flk_very-secret".into()),
            project: ProjectId::new(1, [1; 10]),
            network: vec![1, 2, 3],
            tenant_root: cast.tenant.public(),
            device_key: cast.device.clone(),
            device: cast.device_record.clone(),
            vault: VaultSecret::generate(),
            manifest: cast.manifest.clone(),
        }
    }

    #[test]
    fn it_comes_back_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/place/identity.json");
        let identity = identity();
        identity.save(&path).unwrap();
        let read = Identity::load(&path).unwrap();
        assert_eq!(*read.to_json(), *identity.to_json());
        assert_eq!(read.tenant(), identity.tenant());
    }

    #[test]
    fn secrets_are_not_printed() {
        let identity = identity();
        let text = format!("{identity:?}");
        assert!(!text.contains("very-secret"));
        assert!(!text.contains(&hex::encode(identity.vault.expose())));
        assert!(!text.contains(&hex::encode(identity.device_key.expose())));
    }

    #[test]
    fn foreign_or_damaged_files_are_refused() {
        let json = identity().to_json();
        let reads = |text: &str| Identity::from_json(text.as_bytes()).is_ok();
        assert!(reads(&json));
        assert!(!reads(&json.replace("\"version\": 1", "\"version\": 2")));
        assert!(!reads("{}") && !reads(&json[1..]));
        let other = identity();
        let swap = |field: &str| {
            let line = |text: &str| {
                text.lines()
                    .find(|l| l.contains(&format!("\"{field}\":")))
                    .unwrap()
                    .to_owned()
            };
            json.replace(&line(&json), &line(&other.to_json()))
        };
        for field in ["tenant_root", "device_key", "device", "manifest"] {
            assert!(!reads(&swap(field)), "{field}");
        }
    }
}
