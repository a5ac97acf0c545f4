//! What files a process of tier 0 can reach: the interpreter, the system's libraries, its
//! environment, and its scratch. Above all not the agent's keys. And whom it can signal: nobody outside,
//! where the kernel has that (6.12).

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};

/// Newest rights that are asked for; a kernel that has fewer grants what it has. Source:
/// landlock(7): version 3 (Linux 6.2) has truncation.
const NEWEST: ABI = ABI::V3;

/// A set of rules, ready to bind the process that applies it. Where the kernel has no Landlock it binds
/// nothing, and [`is_enforced`] says so.
///
/// *Errors*: the kernel's.
pub(super) fn rules(
    readable: &[PathBuf],
    writable: &[PathBuf],
) -> Result<RulesetCreated, RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::Signal)?
        .create()?;
    let read = AccessFs::from_read(NEWEST);
    for (paths, access) in [(readable, read), (writable, AccessFs::from_all(NEWEST))] {
        for path in paths {
            if let Ok(file) = PathFd::new(path) {
                let access = if path.is_dir() {
                    access
                } else {
                    access & AccessFs::from_file(NEWEST)
                };
                rules = rules.add_rule(PathBeneath::new(file, access))?;
            }
        }
    }
    Ok(rules)
}

/// Whether this kernel enforces such rules.
pub(super) fn is_enforced() -> bool {
    Path::new("/sys/kernel/security/landlock").exists()
        || Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(ABI::V1))
            .and_then(Ruleset::create)
            .is_ok()
}
