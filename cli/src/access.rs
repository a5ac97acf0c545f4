//! What opens a network to somebody new: addresses, the authority to accept, and an API key.
//!
//! A server writes one for its founder; `farlane keys create --access FILE` writes others. It holds
//! no key that opens data: whoever logs in with it brings (or makes) those.

use std::path::Path;

use farlane_model::ProjectId;
use farlane_seal::private_file;
use serde::{Deserialize, Serialize};

use crate::owner::hex;
use crate::problem::{Problem, doing};

/// Version of the file's form.
const VERSION: u32 = 1;

/// An access file's content. Secret: it holds an API key.
#[derive(Clone, PartialEq, Eq)]
pub struct Access {
    /// For people: the network's or project's name.
    pub name: String,
    /// Where the control plane is; tried in order.
    pub urls: Vec<String>,
    /// The control plane's certificate authority, the only one accepted.
    pub ca_pem: String,
    /// Shown with every call.
    pub api_key: String,
    /// The project that the key is for.
    pub project: ProjectId,
    /// The network, as in the server's hello.
    pub network: Vec<u8>,
}

impl Access {
    /// Whether it names a network: one that was written before several servers had founded theirs has
    /// zeros there, and no server answers to that.
    pub fn names_network(&self) -> bool {
        self.network.iter().any(|byte| *byte != 0)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    farlane_access: u32,
    name: String,
    urls: Vec<String>,
    ca_pem: String,
    api_key: String,
    project: String,
    network: String,
}

impl Access {
    /// Writes it, mode 0600, whole or not at all.
    ///
    /// *Errors*: the system's.
    pub fn save(&self, path: &Path) -> Result<(), Problem> {
        let form = Form {
            farlane_access: VERSION,
            name: self.name.clone(),
            urls: self.urls.clone(),
            ca_pem: self.ca_pem.clone(),
            api_key: self.api_key.clone(),
            project: self.project.to_string(),
            network: hex(&self.network),
        };
        let text = serde_json::to_string_pretty(&form).map_err(Problem::failed)?;
        private_file::write(path, text.as_bytes()).map_err(Problem::failed)
    }

    /// Reads one; `None` where the text is JSON of another kind.
    ///
    /// *Errors*: it is an access file, and damaged.
    pub fn from_json(text: &str) -> Result<Option<Self>, Problem> {
        let Ok(serde_json::Value::Object(object)) = serde_json::from_str(text) else {
            return Ok(None);
        };
        if !object.contains_key("farlane_access") {
            return Ok(None);
        }
        // Line and column only: serde's own words may quote the key.
        let form: Form = serde_json::from_str(text).map_err(|e: serde_json::Error| {
            Problem::failed(format!(
                "the access file is damaged at line {}, column {}",
                e.line(),
                e.column()
            ))
        })?;
        if form.farlane_access != VERSION {
            return Err(
                Problem::failed("the access file is of a newer Farlane").next("update this one")
            );
        }
        let network = (0..form.network.len() / 2)
            .map(|i| u8::from_str_radix(form.network.get(2 * i..2 * i + 2).unwrap_or("?"), 16))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Problem::failed("the access file's \"network\" is not hexadecimal"))?;
        Ok(Some(Self {
            name: form.name,
            urls: form.urls,
            ca_pem: form.ca_pem,
            api_key: form.api_key,
            project: form.project.parse().map_err(doing("the access file"))?,
            network,
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_comes_back_and_others_cannot_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.json");
        let access = Access {
            name: "lab".into(),
            urls: vec!["https://a:1".into()],
            ca_pem: "PEM".into(),
            api_key: "flk_secret".into(),
            project: ProjectId::from_bytes([3; 16]),
            network: vec![0, 255],
        };
        access.save(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(access.names_network());
        assert!(Access::from_json(&text).unwrap() == Some(access));
        assert!(Access::from_json("{\"version\": 1}").unwrap().is_none());
        assert!(Access::from_json("hello").unwrap().is_none());
        let damaged = text.replace("00ff", "0xff");
        let problem = Access::from_json(&damaged).err().unwrap();
        assert!(!problem.what().contains("flk_secret"));
    }
}
