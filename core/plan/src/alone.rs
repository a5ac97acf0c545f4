//! Offers of single nodes, beside those of their classes.
//!
//! Owns which nodes a group looks at one by one: those where its environment is ready, and all that fit where a place
//! depends on who is there, or on named resources. Leaves which offer is taken to the search.

use std::cmp::Reverse;

use farlane_model::NodeId;

use crate::company::Here;
use crate::search::{Offer, Round, is_soon};

/// Most nodes that a round looks at one by one. Source: 10 ms at 40 ns each; groups beyond it wait for a later round.
const MAX_LOOKS: usize = 262_144;

impl Round<'_> {
    /// Whether a group's places depend on more than their class and its room.
    pub(crate) fn is_particular(&self, group: usize) -> bool {
        let spec = &self.groups[group].spec;
        spec.company.is_any() || spec.company.tag.is_some() || !spec.amounts.is_empty()
    }

    /// Makes an offer for every node that fits.
    pub(crate) fn look_at_nodes(&mut self, group: usize, fitting: &[u32]) {
        let of = &self.groups[group];
        let (mut any, mut offers) = (false, Vec::new());
        for class in fitting {
            let there = self.fleet.class(*class);
            if !there.is_online() {
                continue;
            }
            self.looked += there.len();
            if self.looked > MAX_LOOKS {
                self.report.cut_short = true;
                break;
            }
            for place in (0..there.len()).filter(|place| of.is_open(&there.id(*place))) {
                any = true;
                offers.extend(self.alone(group, *class, place).map(Reverse));
            }
        }
        if !any && self.looked <= MAX_LOOKS {
            self.report.unfit.push(group);
        }
        self.offers[group] = Some(offers.into());
    }

    /// Offers of nodes that are ready for the group, where being ready is worth anything, or hold what it takes with it.
    pub(crate) fn warm(&self, group: usize, fitting: &[u32]) -> Vec<Reverse<Offer>> {
        let of = &self.groups[group];
        let ready = of.warm.iter().filter(|_| of.start.0 > 0);
        let holding = of.lies.iter().flat_map(|part| part.nodes.iter());
        let mut known: Vec<&NodeId> = ready.chain(holding).collect();
        known.sort_unstable();
        known.dedup();
        let open = known.into_iter().filter(|node| of.is_open(node));
        let found = open.filter_map(|node| self.fleet.find(node));
        let fits = |class: &u32| {
            fitting.binary_search(class).is_ok() && self.fleet.class(*class).is_online()
        };
        let fit = found.filter(|(class, _)| fits(class));
        fit.filter_map(|(class, place)| self.alone(group, class, place).map(Reverse))
            .collect()
    }

    /// What one node would cost for the group's next task now; `None` where it takes none.
    pub(crate) fn alone(&self, group: usize, class: u32, place: usize) -> Option<Offer> {
        let of = &self.groups[group];
        let there = self.fleet.class(class);
        let (id, free) = (there.id(place), there.free(place));
        let mut ahead = free.ahead(of.need())?;
        if !self.affords(group, &id) {
            return None;
        }
        if ahead == 0 && !self.has_amounts(group, &id) {
            // It waits for what others hold, though there are cores.
            ahead = (free.credit > 0).then(|| free.backlog.saturating_add(1))?;
        }
        if !is_soon(&there.traits, of, ahead) {
            return None;
        }
        let here = match self.is_particular(group) {
            true => self.presence.here(of, &id, there.region())?,
            false => Here {
                warm: of.warm.binary_search(&id).is_ok(),
                held: of.held(&id),
                ..Here::default()
            },
        };
        Some(Offer {
            cost: there.traits.bill(of, ahead, &here).total(),
            id,
            class,
            place,
            ahead,
            here,
            alone: true,
            version: self.version(class),
            shown: self.shown,
        })
    }

    /// The same offer, as it is now.
    pub(crate) fn again(&self, group: usize, offer: &Offer) -> Option<Offer> {
        match offer.alone {
            true => self.alone(group, offer.class, offer.place),
            // What lies before it had no room then, and has not got any since.
            false if offer.ahead == 0 && offer.shown == self.shown => {
                self.offer(group, offer.class, offer.place)
            }
            false => self.offer(group, offer.class, 0),
        }
    }

    /// The best offer of another class.
    pub(crate) fn runner_up(&self, group: usize, taken: &Offer) -> Option<(NodeId, f64)> {
        let offers = self.offers[group].as_ref()?;
        let first = offers.peek().map(|Reverse(offer)| offer)?;
        let other = match first.class == taken.class {
            false => first,
            true => {
                let others = offers.iter().map(|Reverse(offer)| offer);
                others.filter(|offer| offer.class != taken.class).min()?
            }
        };
        Some((other.id, other.cost))
    }

    /// A task of the group was placed there.
    pub(crate) fn note(&mut self, group: usize, node: NodeId) {
        let of = &self.groups[group];
        if let Some(region) = self.fleet.region(&node) {
            self.presence.add(of, node, region);
        }
        for one in &of.spec.amounts {
            *self.taken.entry((node, one.name.clone())).or_default() += one.amount;
        }
    }

    fn has_amounts(&self, group: usize, node: &NodeId) -> bool {
        self.groups[group].spec.amounts.iter().all(|one| {
            let taken = self.taken.get(&(*node, one.name.clone()));
            let free = self.fleet.free_amount(node, &one.name);
            one.amount <= free.saturating_sub(taken.copied().unwrap_or(0))
        })
    }
}
