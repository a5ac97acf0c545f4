//! Where the data of ended tasks lies, and calls that must stay there.
//!
//! Owns what "there" means: the node that ran a task's last attempt. Its result lies with the servers; what the attempt
//! took with it (function, environment, large arguments) that node still holds, until it makes room for others. Leaves
//! choosing among such nodes to the network, and holding the node to it to the granter, which reads its certificate.

use farlane_model::{BadSpec, Glob, NodeId, NodeRequest};

use crate::outcome::Receipt;

/// Where the data of one task lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// The node that ran it last.
    pub node: NodeId,
    /// Its name for people.
    pub node_name: String,
    /// Its region.
    pub region: String,
}

impl Receipt {
    /// Where the task's data lies: [`crate::Template::data`] takes it. `None` where no node ran it.
    pub fn data(&self) -> Option<Data> {
        Some(Data {
            node: self.node?,
            node_name: self.node_name.clone(),
            region: self.region.clone(),
        })
    }
}

/// Adds these nodes to those that a call must stay on.
///
/// *Errors*: none of all that it must stay on lies where it may run at all; both sides are named.
pub(crate) fn stay(node: &mut NodeRequest, data: Vec<Data>) -> Result<(), BadSpec> {
    let named = !node.keep_on.is_empty();
    node.keep_on.extend(data.iter().map(|one| one.node));
    let allowed = |one: &Data| node.allows_region(&one.region);
    // Of nodes that are named by their ids nobody here knows where they are.
    if data.is_empty() || named || data.iter().any(allowed) {
        return Ok(());
    }
    let mut places: Vec<String> = data.iter().map(lies).collect();
    places.sort_unstable();
    places.dedup();
    let asks = |what: &str, globs: &[Glob]| {
        let globs: Vec<&str> = globs.iter().map(Glob::as_str).collect();
        (!globs.is_empty()).then(|| format!("{what} {}", globs.join(" or ")))
    };
    let other = [
        asks("regions", &node.regions),
        asks("residency", &node.residency),
    ];
    Err(BadSpec::Contradiction {
        one: format!("keep_on, to data that lies on {}", places.join(" or ")),
        other: other
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" with "),
    })
}

fn lies(one: &Data) -> String {
    format!("{} in {}", one.node_name, one.region)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use farlane_model::PythonVersion;

    fn on(n: u8, region: &str) -> Data {
        Data {
            node: NodeId([n; 32]),
            node_name: format!("rack-{n}"),
            region: region.to_owned(),
        }
    }

    fn asks(regions: &[&str], residency: &[&str]) -> NodeRequest {
        let globs = |texts: &[&str]| texts.iter().map(|t| Glob::new(*t).unwrap()).collect();
        NodeRequest {
            regions: globs(regions),
            residency: globs(residency),
            ..NodeRequest::any(PythonVersion {
                major: 3,
                minor: 11,
            })
        }
    }

    #[test]
    fn a_call_stays_on_any_of_the_nodes_where_data_lies() {
        let mut node = asks(&["eu-*"], &[]);
        stay(&mut node, vec![on(1, "us-west"), on(2, "eu-north")]).unwrap();
        assert_eq!(node.keep_on, [NodeId([1; 32]), NodeId([2; 32])]);
        let mut free = asks(&[], &[]);
        stay(&mut free, vec![on(1, "us-west")]).unwrap();
        assert!(free.allows_node(&NodeId([1; 32])) && !free.allows_node(&NodeId([2; 32])));
        stay(&mut free, Vec::new()).unwrap();
        assert_eq!(free.keep_on.len(), 1);
    }

    #[test]
    fn data_that_lies_where_the_call_may_not_run_is_refused_with_both_sides() {
        let data = vec![on(1, "us-west"), on(1, "us-west"), on(3, "ap-south")];
        let refused = stay(&mut asks(&["eu-*"], &["eu-*", "us-east"]), data.clone());
        assert_eq!(
            refused.unwrap_err().to_string(),
            "keep_on, to data that lies on rack-1 in us-west or rack-3 in ap-south and regions eu-* with residency \
             eu-* or us-east contradict each other: no node can satisfy both"
        );
        // Another node is named beside, and may be there.
        let mut named = asks(&["eu-*"], &[]);
        named.keep_on = vec![NodeId([9; 32])];
        stay(&mut named, data).unwrap();
    }
}
