//! A bill as it is kept with the attempt.

use farlane_model::{Quote, RunnerUp};

use crate::cost::picos;
use crate::fleet::Fleet;
use crate::view::{Assignment, Group};

impl Fleet {
    /// What is kept of an assignment of this group. Nodes are named as they are now.
    pub fn quote(&self, group: &Group, of: &Assignment) -> Quote {
        let runner_up = of.runner_up.and_then(|(node, cost)| {
            let (spec, region) = (self.spec(&node)?, self.region(&node)?);
            Some(RunnerUp {
                node_name: spec.name.clone(),
                region: region.to_string(),
                cost: picos(cost),
            })
        });
        Quote {
            run: of.run,
            emits: of.emits,
            prices: group.policy.prices(),
            terms: of.bill.kept(),
            runner_up,
        }
    }
}
