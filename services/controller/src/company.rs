//! Where those lie whom waiting tasks want to be near or far from, or beside which they spread.

use std::collections::BTreeSet;

use farlane_model::Kin;
use farlane_plan::{Group, Presence};
use farlane_state::State;

use crate::overlay::Overlay;

/// Whom these groups look for, where they lie in the state and where they are on their way to.
pub(crate) fn presence(state: &State, overlay: &Overlay, groups: &[Group]) -> Presence {
    let mut presence = Presence::default();
    let mut wanted: BTreeSet<Kin> = BTreeSet::new();
    for group in groups.iter().filter(|g| g.spec.company.is_any()) {
        wanted.extend(group.spec.kin(&group.digest));
        let tags = group.spec.company.affinities.iter();
        wanted.extend(tags.map(|wish| Kin::Tag(group.spec.project, wish.tag.clone())));
    }
    if wanted.is_empty() {
        return presence;
    }
    for kin in &wanted {
        for (node, count) in state.whereabouts(kin) {
            presence.note(kin.clone(), node.id, &node.region, count);
        }
    }
    for placing in overlay.placing(state) {
        let (Some(task), Some(node)) = (state.task(placing.task), state.node(&placing.node)) else {
            continue;
        };
        let kin = task.spec.task.kin(&task.spec.digest);
        for kin in kin.filter(|kin| wanted.contains(kin)) {
            presence.note(kin, node.id, &node.region, 1);
        }
    }
    presence
}
