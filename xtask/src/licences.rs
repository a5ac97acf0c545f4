//! Under which licences everything that Farlane is built from comes: `cargo metadata` against the
//! list in deny.toml, so that the list holds also where cargo-deny is not installed.

use std::fs;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::place;
use crate::program::Program;
use crate::stage::Verdict;

#[derive(Debug, Deserialize)]
struct Deny {
    licenses: Licences,
    bans: Bans,
}

#[derive(Debug, Deserialize)]
struct Licences {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Banned>,
}

#[derive(Debug, Deserialize)]
struct Banned {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    license: Option<String>,
    source: Option<String>,
}

/// Names every crate whose licence is not on the list, that is banned, or that comes from nowhere
/// public.
///
/// *Errors*: cargo or deny.toml cannot be read.
pub fn check() -> Result<Verdict> {
    let said = Program::cargo()
        .args(["metadata", "--locked", "--format-version", "1"])
        .output()?;
    let metadata: Metadata = serde_json::from_str(&said).context("reading cargo metadata")?;
    let text = fs::read_to_string(place::root().join("deny.toml"))?;
    let deny: Deny = toml::from_str(&text).context("reading deny.toml")?;
    let faults: Vec<String> = metadata
        .packages
        .iter()
        .flat_map(|p| faults(p, &deny))
        .collect();
    Ok(Verdict::faults(
        &faults,
        format!("{} crates", metadata.packages.len()),
    ))
}

fn faults(package: &Package, deny: &Deny) -> Vec<String> {
    let mut out = Vec::new();
    let licence = package.license.as_deref().unwrap_or_default();
    if !allowed(licence, &deny.licenses.allow) {
        out.push(format!(
            "{}: licence {licence:?} is not allowed by deny.toml",
            package.name
        ));
    }
    if let Some(banned) = deny.bans.deny.iter().find(|b| b.name == package.name) {
        out.push(format!("{}: banned: {}", package.name, banned.reason));
    }
    if package
        .source
        .as_ref()
        .is_some_and(|s| !s.starts_with("registry+"))
    {
        out.push(format!("{}: comes from no registry", package.name));
    }
    out
}

/// Whether an SPDX expression can be met with licences of the list. Source: SPDX 2.3, annex D;
/// `/` is what some crates write for OR.
fn allowed(expression: &str, list: &[String]) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let fine = any(&words, &mut at, list);
    !words.is_empty() && at == words.len() && fine
}

fn any(words: &[&str], at: &mut usize, list: &[String]) -> bool {
    let mut fine = every(words, at, list);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        fine |= every(words, at, list);
    }
    fine
}

fn every(words: &[&str], at: &mut usize, list: &[String]) -> bool {
    let mut fine = one(words, at, list);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        fine &= one(words, at, list);
    }
    fine
}

fn one(words: &[&str], at: &mut usize, list: &[String]) -> bool {
    let Some(word) = words.get(*at) else {
        return false;
    };
    *at += 1;
    if *word == "(" {
        let fine = any(words, at, list);
        *at += 1;
        return fine;
    }
    let mut name = (*word).to_owned();
    if words.get(*at) == Some(&"WITH") {
        name.push_str(" WITH ");
        name.push_str(words.get(*at + 1).copied().unwrap_or_default());
        *at += 2;
    }
    list.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read_as_spdx_has_them() {
        let list = ["MIT", "ISC", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"].map(String::from);
        for fine in [
            "MIT",
            "GPL-3.0 OR MIT",
            "MIT/Apache-2.0",
            "(MIT OR GPL-3.0) AND ISC",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
        ] {
            assert!(allowed(fine, &list), "{fine}");
        }
        for bad in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR ISC) AND GPL-3.0",
            "MIT WITH X",
            "MIT ISC",
        ] {
            assert!(!allowed(bad, &list), "{bad}");
        }
    }
}
