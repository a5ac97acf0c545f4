//! The join file: all that a machine needs to become a node, once.
//!
//! ```text
//! # Farlane join file: SECRET, for one machine, once, until 1764000000000.
//! farlane-join = 1
//! url = https://server.example:7001
//! expires = 1764000000000
//! secret = <hex>
//! seed = <hex>
//! enrolment = <hex>
//! -----BEGIN CERTIFICATE----- …
//! ```
//! Only `secret` is ever sent. The agent makes its identity, certifies it with `seed`, and erases
//! the file.

use std::fmt;

use farlane_model::Digest;
use farlane_units::Millis;
use zeroize::Zeroizing;

use crate::random;
use crate::record::{EnrolmentCert, RecordError};
use crate::sign::EnrolmentSeed;

/// Most bytes of a join file.
pub const MAX_JOIN_FILE: usize = 256 * 1024;
/// Most addresses in one.
const MAX_URLS: usize = 16;

/// A one-time secret that a server knows by its hash.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinSecret(Zeroizing<[u8; 32]>);

impl JoinSecret {
    /// A new one.
    pub fn generate() -> Self {
        Self(Zeroizing::new(random::bytes()))
    }
    /// Its bytes: what the agent sends.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
    /// BLAKE3 of it: what the server is told.
    pub fn hash(&self) -> Digest {
        Digest::of(&*self.0)
    }
}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecret(…)")
    }
}

/// What a join file holds.
#[derive(Debug, Clone)]
pub struct JoinFile {
    /// Where the control plane is; tried in order.
    pub urls: Vec<String>,
    /// The control plane's certificate authority, the only one accepted.
    pub ca_pem: String,
    /// Shown to the server once.
    pub secret: JoinSecret,
    /// Certifies the node's identity; its hash of public half is the node's id.
    pub seed: EnrolmentSeed,
    /// The provider's promise for that key.
    pub enrolment: EnrolmentCert,
    /// The secret is refused later than this, in cluster time.
    pub expires: Millis,
}

/// Text that is no join file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadJoinFile {
    /// The first line that counts is not `farlane-join = 1`.
    #[error("this is not a join file that this version of Farlane can read")]
    NotJoinFile,
    /// A line is missing.
    #[error("the join file lacks its line {field:?}; was it cut short on the way?")]
    Missing {
        /// Which.
        field: &'static str,
    },
    /// A line cannot be read.
    #[error("the join file's line {field:?} is damaged")]
    Damaged {
        /// Which.
        field: &'static str,
    },
    /// The enrolment certificate does not hold.
    #[error(transparent)]
    Enrolment(#[from] RecordError),
}

impl JoinFile {
    /// As text, for a file or a pipe.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut out = format!(
            "# Farlane join file: SECRET, for one machine, once, until {}.\nfarlane-join = 1\n",
            self.expires.0
        );
        self.urls
            .iter()
            .for_each(|url| out.push_str(&format!("url = {url}\n")));
        let (secret, seed) = (
            hex::encode(self.secret.expose()),
            hex::encode(self.seed.expose()),
        );
        let enrolment = hex::encode(self.enrolment.to_bytes());
        out.push_str(&format!(
            "expires = {}\nsecret = {secret}\n",
            self.expires.0
        ));
        out.push_str(&format!(
            "seed = {seed}\nenrolment = {enrolment}\n{}",
            self.ca_pem
        ));
        Zeroizing::new(out)
    }

    /// From text.
    ///
    /// *Errors*: another version, a line missing or damaged, or a certificate that does not hold.
    pub fn from_text(text: &str) -> Result<Self, BadJoinFile> {
        let fields = Fields::read(text)?;
        let seed = fields.secret("seed")?;
        let enrolment = hex::decode(fields.one("enrolment")?)
            .map_err(|_| BadJoinFile::Damaged { field: "enrolment" })?;
        let file = Self {
            urls: fields.urls(),
            ca_pem: fields.pem.to_owned(),
            secret: JoinSecret(fields.secret("secret")?),
            seed: EnrolmentSeed::from_seed(&seed),
            enrolment: EnrolmentCert::from_bytes(&enrolment)?,
            expires: Millis(
                fields
                    .one("expires")?
                    .parse()
                    .map_err(|_| BadJoinFile::Damaged { field: "expires" })?,
            ),
        };
        if file.urls.is_empty() {
            return Err(BadJoinFile::Missing { field: "url" });
        }
        if file.seed.public() != file.enrolment.enrolment {
            return Err(BadJoinFile::Damaged { field: "seed" });
        }
        Ok(file)
    }
}

/// The lines of a join file, and the certificates after them.
struct Fields<'a> {
    lines: Vec<(&'a str, &'a str)>,
    pem: &'a str,
}

impl<'a> Fields<'a> {
    fn read(text: &'a str) -> Result<Self, BadJoinFile> {
        if text.len() > MAX_JOIN_FILE {
            return Err(BadJoinFile::NotJoinFile);
        }
        let pem = text.find("-----BEGIN").map_or("", |at| &text[at..]);
        let head = &text[..text.len() - pem.len()];
        let lines: Vec<_> = head
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .filter_map(|line| line.split_once('='))
            .map(|(field, value)| (field.trim(), value.trim()))
            .collect();
        if lines.first() != Some(&("farlane-join", "1")) {
            return Err(BadJoinFile::NotJoinFile);
        }
        match pem.is_empty() {
            true => Err(BadJoinFile::Missing {
                field: "certificate",
            }),
            false => Ok(Self { lines, pem }),
        }
    }

    fn one(&self, field: &'static str) -> Result<&'a str, BadJoinFile> {
        let found = self.lines.iter().find(|(name, _)| *name == field);
        found
            .map(|(_, value)| *value)
            .ok_or(BadJoinFile::Missing { field })
    }

    fn urls(&self) -> Vec<String> {
        let urls = self.lines.iter().filter(|(name, _)| *name == "url");
        urls.take(MAX_URLS)
            .map(|(_, url)| (*url).to_owned())
            .collect()
    }

    fn secret(&self, field: &'static str) -> Result<Zeroizing<[u8; 32]>, BadJoinFile> {
        let mut out = Zeroizing::new([0; 32]);
        hex::decode_to_slice(self.one(field)?, &mut *out)
            .map_err(|_| BadJoinFile::Damaged { field })?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::vectors::network::Cast;

    fn file() -> JoinFile {
        let cast = Cast::new();
        JoinFile {
            urls: vec!["https://a:1".into(), "https://b:2".into()],
            ca_pem: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
            secret: JoinSecret::generate(),
            seed: cast.enrolment,
            enrolment: cast.record.certificate().clone(),
            expires: Millis(1234),
        }
    }

    #[test]
    fn text_comes_back() {
        let file = file();
        let read = JoinFile::from_text(&file.to_text()).unwrap();
        assert_eq!((&read.urls, &read.ca_pem), (&file.urls, &file.ca_pem));
        assert_eq!((&read.secret, read.expires), (&file.secret, file.expires));
        assert_eq!(read.seed.expose(), file.seed.expose());
        assert_eq!(read.enrolment, file.enrolment);
        assert!(!format!("{file:?}").contains(&hex::encode(file.seed.expose())));
    }

    #[test]
    fn damage_is_named() {
        let text = file().to_text();
        assert_eq!(
            JoinFile::from_text("hello").unwrap_err(),
            BadJoinFile::NotJoinFile
        );
        for (field, missing) in [
            ("url = ", BadJoinFile::Missing { field: "url" }),
            ("secret = ", BadJoinFile::Missing { field: "secret" }),
            ("seed = ", BadJoinFile::Missing { field: "seed" }),
            ("enrolment = ", BadJoinFile::Missing { field: "enrolment" }),
        ] {
            let cut: String = text
                .lines()
                .filter(|l| !l.starts_with(field))
                .map(|l| format!("{l}\n"))
                .collect();
            assert_eq!(JoinFile::from_text(&cut).unwrap_err(), missing);
        }
        let cut = &text[..text.find("-----").unwrap()];
        let missing = BadJoinFile::Missing {
            field: "certificate",
        };
        assert_eq!(JoinFile::from_text(cut).unwrap_err(), missing);
        let other = file();
        let swapped = text.replace(
            text.lines().find(|l| l.starts_with("seed")).unwrap(),
            &format!("seed = {}", hex::encode(other.seed.expose())),
        );
        let damaged = BadJoinFile::Damaged { field: "seed" };
        assert_eq!(JoinFile::from_text(&swapped).unwrap_err(), damaged);
    }
}
