//! Which room may use which: `cargo metadata` against xtask/floors.toml.

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::place;
use crate::program::Program;
use crate::stage::Verdict;

/// xtask/floors.toml.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    floors: BTreeMap<String, u32>,
    apart: BTreeMap<String, Vec<String>>,
    pure: Pure,
    only: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pure {
    rooms: Vec<String>,
    without: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    license: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
}

/// Prints every arrow that runs up.
///
/// *Errors*: cargo or the manifest cannot be read.
pub fn run() -> Result<ExitCode> {
    let verdict = check()?;
    println!("{}", verdict.said);
    Ok(if verdict.count.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The same as a step.
///
/// *Errors*: cargo or the manifest cannot be read.
pub fn check() -> Result<Verdict> {
    let said = Program::cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()?;
    let metadata: Metadata = serde_json::from_str(&said).context("reading cargo metadata")?;
    let text = fs::read_to_string(place::root().join("xtask/floors.toml"))?;
    let manifest: Manifest = toml::from_str(&text).context("reading xtask/floors.toml")?;
    let fine = format!("{} rooms on their floors", metadata.packages.len());
    Ok(Verdict::faults(
        &faults(&metadata.packages, &manifest),
        fine,
    ))
}

fn faults(packages: &[Package], manifest: &Manifest) -> Vec<String> {
    let mut out = Vec::new();
    for name in manifest.floors.keys() {
        if !packages.iter().any(|p| &p.name == name) {
            out.push(format!("{name} has a floor but is no package"));
        }
    }
    let folders: BTreeMap<&str, &str> = packages
        .iter()
        .map(|p| (p.name.as_str(), folder(p)))
        .collect();
    for package in packages {
        let Some(floor) = manifest.floors.get(&package.name) else {
            out.push(format!(
                "{} has no floor in xtask/floors.toml",
                package.name
            ));
            continue;
        };
        if package.license.as_deref() != Some("Apache-2.0 OR MIT") {
            out.push(format!(
                "{} does not inherit the workspace's licence",
                package.name
            ));
        }
        for used in package.dependencies.iter().map(|d| d.name.as_str()) {
            if let Some(below) = manifest.floors.get(used)
                && below >= floor
            {
                out.push(format!(
                    "{} (floor {floor}) uses {used} (floor {below})",
                    package.name
                ));
            }
            let shunned = manifest.apart.get(folder(package)).into_iter().flatten();
            if folders
                .get(used)
                .is_some_and(|f| shunned.clone().any(|s| s == f))
            {
                out.push(format!(
                    "{} uses {used}: their folders keep apart",
                    package.name
                ));
            }
            if manifest.pure.rooms.contains(&package.name)
                && manifest.pure.without.iter().any(|w| w == used)
            {
                out.push(format!("{} is pure and uses {used}", package.name));
            }
            if let Some(rooms) = manifest.only.get(used)
                && !rooms.contains(&package.name)
            {
                out.push(format!(
                    "{} uses {used}, which is for {}",
                    package.name,
                    rooms.join(", ")
                ));
            }
        }
    }
    out
}

/// The folder that a room's own folder lies in: `services` of `…/services/store/Cargo.toml`.
fn folder(package: &Package) -> &str {
    let mut parts = package.manifest_path.rsplit('/').skip(2);
    parts.next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MANIFEST: &str = r#"
        floors = { low = 1, high = 2, twin = 2 }
        apart = { services = ["agent"] }
        only = { sqlx = ["high"] }
        pure = { rooms = ["low"], without = ["tokio"] }
    "#;

    fn package(name: &str, folder: &str, uses: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            manifest_path: format!("/r/{folder}/{name}/Cargo.toml"),
            license: Some("Apache-2.0 OR MIT".to_owned()),
            dependencies: uses
                .iter()
                .map(|n| Dependency {
                    name: (*n).to_owned(),
                })
                .collect(),
        }
    }

    fn found(low: &[&str], high: &[&str], twin: &[&str]) -> Vec<String> {
        let packages = [
            package("low", "core", low),
            package("high", "services", high),
            package("twin", "agent", twin),
        ];
        faults(&packages, &toml::from_str(MANIFEST).unwrap())
    }

    #[test]
    fn arrows_run_down() {
        assert_eq!(
            found(&["serde"], &["low", "sqlx", "tokio"], &["low"]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn an_arrow_up_or_across_is_a_fault() {
        assert_eq!(found(&["high"], &[], &[]).len(), 1);
        assert_eq!(found(&[], &[], &["high"]).len(), 1);
        assert_eq!(
            found(&[], &["twin"], &[]).len(),
            2,
            "across, and between folders that keep apart"
        );
    }

    #[test]
    fn purity_and_ownership_are_held() {
        assert_eq!(found(&["tokio"], &[], &[]), ["low is pure and uses tokio"]);
        assert_eq!(
            found(&[], &[], &["sqlx"]),
            ["twin uses sqlx, which is for high"]
        );
    }

    #[test]
    fn a_room_without_a_floor_is_a_fault() {
        let manifest = toml::from_str(MANIFEST).unwrap();
        let packages = [package("low", "core", &[]), package("new", "core", &[])];
        assert_eq!(faults(&packages, &manifest).len(), 3);
    }
}
