//! The state folder: what a node is, across starts.
//!
//! ```text
//! identity   32 bytes   the node's signing key, made here
//! record     canonical  its certified record
//! transport.key, .pem   of mTLS, renewed
//! network.json          addresses, certificate authority, network
//! journal               sealed results that nobody has acknowledged
//! ```
//! Owns the files and their modes (0700, 0600). Leaves their meaning to `join` and `engine`.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use farlane_seal::NodeIdentity;
use farlane_seal::private_file;
use farlane_seal::record::NodeRecord;
use serde::{Deserialize, Serialize};

use crate::StartError;

/// Where the control plane is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NetworkFile {
    pub(crate) version: u32,
    pub(crate) urls: Vec<String>,
    pub(crate) ca_pem: String,
    /// Which network, in hexadecimal digits, as it said at the join.
    pub(crate) network: String,
}

/// The transport certificate and its key.
#[derive(Clone)]
pub(crate) struct Transport {
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
    /// When it came, in wall time in milliseconds.
    pub(crate) issued_ms: u64,
    /// Wall time in milliseconds.
    pub(crate) not_after_ms: u64,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transport(until {} ms)", self.not_after_ms)
    }
}

/// Who this node is.
#[derive(Debug, Clone)]
pub(crate) struct Joined {
    pub(crate) identity: NodeIdentity,
    pub(crate) record: NodeRecord,
    pub(crate) network: NetworkFile,
    pub(crate) network_id: Bytes,
    pub(crate) transport: Transport,
}

#[derive(Serialize, Deserialize)]
struct TransportFile {
    certificate_pem: String,
    key_pem: String,
    #[serde(default)]
    issued_ms: u64,
    not_after_ms: u64,
}

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes it, 0700, where it is missing.
    ///
    /// *Errors*: the system's.
    pub(crate) fn open(path: &Path) -> Result<Self, StartError> {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        let what = || StartError::io(format!("the state folder {}", path.display()));
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(what())?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(what())?;
        Ok(Self(path.canonicalize().map_err(what())?))
    }

    /// One that is there already, left as it is; `None` where this user may not look into it.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        path.read_dir().ok()?;
        Some(Self(path.canonicalize().ok()?))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Who this node is; `None` where it has not joined.
    ///
    /// *Errors*: the files hold something else.
    pub(crate) fn joined(&self) -> Result<Option<Joined>, StartError> {
        if !self.path("transport.json").exists() {
            return Ok(None);
        }
        let identity = self
            .identity()?
            .ok_or_else(|| self.bad("identity", "missing"))?;
        let record =
            std::fs::read(self.path("record")).map_err(|e| self.bad("record", &e.to_string()))?;
        let record =
            NodeRecord::from_bytes(&record).map_err(|e| self.bad("record", &e.to_string()))?;
        if *record.identity() != identity.public() {
            return Err(self.bad("record", "it is another node's"));
        }
        let network = self.json::<NetworkFile>("network.json")?;
        let network_id = hex::decode(&network.network)
            .map_err(|e| self.bad("network.json", &format!("\"network\": {e}")))?;
        let file = self.json::<TransportFile>("transport.json")?;
        let TransportFile {
            certificate_pem,
            key_pem,
            issued_ms,
            not_after_ms,
        } = file;
        let transport = Transport {
            certificate_pem,
            key_pem,
            issued_ms,
            not_after_ms,
        };
        Ok(Some(Joined {
            identity,
            record,
            network,
            network_id: network_id.into(),
            transport,
        }))
    }

    /// The signing key, where there is one.
    pub(crate) fn identity(&self) -> Result<Option<NodeIdentity>, StartError> {
        let path = self.path("identity");
        if !path.exists() {
            return Ok(None);
        }
        let seed = private_file::read(&path).map_err(|e| self.bad("identity", &e.to_string()))?;
        let identity = NodeIdentity::from_slice(&seed);
        identity
            .map(Some)
            .ok_or_else(|| self.bad("identity", "not 32 bytes"))
    }

    /// Keeps a file's bytes, 0600.
    ///
    /// *Errors*: the system's.
    pub(crate) fn keep(&self, name: &'static str, bytes: &[u8]) -> Result<(), StartError> {
        private_file::write(&self.path(name), bytes).map_err(|error| StartError::Io {
            what: format!("keeping {name}"),
            source: std::io::Error::other(error),
        })
    }

    /// Keeps the transport certificate and key.
    ///
    /// *Errors*: the system's.
    pub(crate) fn keep_transport(&self, transport: &Transport) -> Result<(), StartError> {
        let file = TransportFile {
            certificate_pem: transport.certificate_pem.clone(),
            key_pem: transport.key_pem.clone(),
            issued_ms: transport.issued_ms,
            not_after_ms: transport.not_after_ms,
        };
        let bytes =
            serde_json::to_vec(&file).map_err(|e| self.bad("transport.json", &e.to_string()))?;
        self.keep("transport.json", &bytes)
    }

    fn json<T: serde::de::DeserializeOwned>(&self, name: &'static str) -> Result<T, StartError> {
        let bytes =
            private_file::read(&self.path(name)).map_err(|e| self.bad(name, &e.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|e| self.bad(name, &e.to_string()))
    }

    fn bad(&self, name: &str, why: &str) -> StartError {
        StartError::BadState {
            path: self.path(name),
            why: why.to_owned(),
        }
    }
}
