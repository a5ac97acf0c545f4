//! What nodes hold, added up anew: never more than they have, no device twice, gangs whole.

use std::collections::{BTreeMap, BTreeSet};

use farlane_model::*;
use farlane_state::*;

use crate::world::*;

/// Every node's leases, added up anew, fit: running ones its capacity, waiting ones its credit.
pub fn capacity_holds(
    w: &World,
    before: &BTreeMap<NodeId, (u32, u64, usize)>,
) -> BTreeMap<NodeId, (u32, u64, usize)> {
    let mut now = BTreeMap::new();
    for node in w.state.nodes() {
        let (mut running, mut waiting) = (0u64, 0usize);
        for live in w.state.desired(&node.id) {
            let lease = live.placed.unwrap().lease;
            match lease.backlog {
                true => waiting += 1,
                false => running += u64::from(live.spec.task.resources.cpus.0),
            }
        }
        // A node that was made smaller keeps what it has, and takes nothing until there is room.
        let (offered, had, waited) = before.get(&node.id).copied().unwrap_or_default();
        let shrunk = offered != node.spec.cpus.0;
        let fits = running <= u64::from(node.spec.cpus.0);
        assert!(
            fits || running <= had || shrunk,
            "node {} holds {running}",
            node.id
        );
        let credit = node.spec.backlog_credit as usize;
        assert!(
            waiting <= credit || waiting <= waited || shrunk,
            "node {} waits {waiting}",
            node.id
        );
        assert_eq!(node.waiting(), waiting);
        let free = u64::from(node.spec.cpus.0).saturating_sub(running);
        assert_eq!(u64::from(node.free_cpus().0), free);
        now.insert(node.id, (node.spec.cpus.0, running, waiting));
    }
    now
}

/// Whom a node's GPUs are leased to, and how much of its licenses is leased.
#[derive(Default, Clone, PartialEq)]
pub struct Devices {
    held: BTreeMap<usize, (u32, BTreeSet<TenantId>)>,
    licenses: u32,
}

/// No GPU gives more than itself or serves two tenants, running leases hold what they asked for and waiting ones
/// nothing, and named resources are never overdrawn but where a node was made smaller.
pub fn devices_hold(w: &World, before: &BTreeMap<NodeId, Devices>) -> BTreeMap<NodeId, Devices> {
    let mut now = BTreeMap::new();
    for node in w.state.nodes() {
        let mut devices = Devices::default();
        for live in w.state.desired(&node.id) {
            let (lease, task) = (live.placed.unwrap().lease, &live.spec.task);
            let wanted = if lease.backlog {
                0
            } else {
                task.resources.devices()
            };
            assert_eq!(lease.places().count(), wanted as usize);
            for place in lease.places() {
                let (held, tenants) = devices.held.entry(place).or_default();
                *held += task.resources.share();
                tenants.insert(live.session.tenant);
            }
            if !lease.backlog {
                devices.licenses += Amount::of(&task.amounts, "license");
            }
        }
        for (place, (held, tenants)) in &devices.held {
            assert!(
                *held <= 1000 && tenants.len() == 1,
                "device {place} gives {held} to {tenants:?}"
            );
            let load = node.devices().at(*place);
            assert_eq!((load.held, load.tenant.as_ref()), (*held, tenants.first()));
            let earlier = before
                .get(&node.id)
                .is_some_and(|b| b.held.contains_key(place));
            assert!(
                *place < node.spec.devices.len() || earlier,
                "device {place} is not there"
            );
        }
        let offered = Amount::of(&node.spec.resources, "license");
        let had = before.get(&node.id).map_or(0, |b| b.licenses);
        assert!(
            devices.licenses <= offered.max(had),
            "{} of {offered} licenses",
            devices.licenses
        );
        assert_eq!(
            node.free_amount("license"),
            offered.saturating_sub(devices.licenses)
        );
        now.insert(node.id, devices);
    }
    now
}

/// Either each unfinished member of a gang holds a lease or none does, and all were leased equally often.
pub fn gangs_hold(w: &World) {
    let mut seen: BTreeMap<TaskId, (bool, u32, u16)> = BTreeMap::new();
    for live in w.state.tasks() {
        let Some(member) = live.gang else {
            assert!(live.spec.task.gang.is_none(), "{} is in no gang", live.id);
            continue;
        };
        assert!(member.rank < member.size);
        let backlog = live.placed.is_some_and(|p| p.lease.backlog);
        assert!(!backlog, "{} waits at a node", live.id);
        let of = (live.placed.is_some(), live.attempt, live.lost);
        assert_eq!(*seen.entry(member.first).or_insert(of), of, "{}", live.id);
    }
    assert_eq!(w.count(Table::Gangs), seen.len());
}
