//! Sets what a project is due and what it may hold.

use farlane_model::{KeyId, ProjectId};
use farlane_units::UsdMicros;
use serde::{Deserialize, Serialize};

use crate::apply::Ctx;
use crate::project::{MAX_WEIGHT, ProjectSet, ProjectSettings};
use crate::{Outcome, Refusal};

/// Replaces a project's settings. They hold for every placement after it; what is held by then stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetProject {
    /// Whose.
    pub project: ProjectId,
    /// The revision that these were made from; 0 where nothing was set.
    pub after: u64,
    /// All of them.
    pub settings: ProjectSettings,
    /// Who sets them.
    pub by: KeyId,
}

fn valid(settings: &ProjectSettings) -> bool {
    let budget = settings.quota.budget;
    settings.policy.is_none_or(|policy| policy.check().is_ok())
        && (1..=MAX_WEIGHT).contains(&settings.weight)
        && budget.is_none_or(|b| b >= UsdMicros::ZERO)
}

impl SetProject {
    pub(crate) fn apply(self, ctx: &mut Ctx) -> Result<Outcome, Refusal> {
        if !valid(&self.settings) {
            return Err(Refusal::SettingsInvalid);
        }
        let known = ctx.state.project(&self.project);
        if known.set().map_or(0, |set| set.revision) != self.after {
            return Err(Refusal::SettingsStale);
        }
        let set = ProjectSet {
            settings: self.settings,
            revision: ctx.stamp.index,
            at: ctx.stamp.now,
            by: self.by,
        };
        ctx.state.projects.entry(self.project).or_default().row.set = Some(set);
        ctx.put_project(self.project);
        Ok(Outcome::Done)
    }
}
