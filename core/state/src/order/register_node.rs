//! Adds a node, or replaces what is known of it.

use std::sync::Arc;

use bytes::Bytes;
use farlane_model::{Digest, Glob, NodeId, NodeSpec, Standing};
use serde::{Deserialize, Serialize};

use crate::apply::Ctx;
use crate::node::Node;
use crate::row::{NodeRow, OutboxEvent, keys};
use crate::rows::Table;
use crate::{Change, Outcome, Refusal};

/// Most nodes of one cell. Source: SPEC.md, "The scheduler".
const MAX_NODES: usize = 100_000;

/// A node enrolled. Its record and certificate have been checked by the server that proposes this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterNode {
    /// Hash of its enrolment key.
    pub node: NodeId,
    /// Canonical signed record.
    pub record: Bytes,
    /// Canonical `NodeSpec`.
    pub spec: Bytes,
    /// From its certificate.
    pub region: String,
    /// Its provider's root.
    pub provider: Digest,
}

impl RegisterNode {
    pub(crate) fn apply(self, ctx: &mut Ctx) -> Result<Outcome, Refusal> {
        let spec = ctx
            .state
            .alike
            .spec(&self.spec)
            .ok_or(Refusal::NodeInvalid)?;
        // A region is a name, so a pattern without stars.
        if self.region.contains('*') || Glob::new(self.region.as_str()).is_err() {
            return Err(Refusal::NodeInvalid);
        }
        let number = match ctx.state.nodes.get(&self.node).copied() {
            Some(number) => self.replace(ctx, number, spec)?,
            None => self.add(ctx)?,
        };
        ctx.put_node(number);
        let key = keys::node(self.node);
        ctx.writes.put(Table::Records, &key, |out| {
            out.extend_from_slice(&self.record)
        });
        ctx.promote(number);
        ctx.event(&OutboxEvent::Node {
            node: self.node,
            spec: self.spec,
            region: self.region,
            provider: self.provider,
            at: ctx.stamp.now,
        });
        ctx.changes.push(Change::NodeChanged { node: self.node });
        Ok(Outcome::Done)
    }

    fn replace(&self, ctx: &mut Ctx, number: u32, spec: Arc<NodeSpec>) -> Result<u32, Refusal> {
        let region = ctx.state.alike.text(&self.region);
        let node = ctx.state.node_mut(number).ok_or(Refusal::NodeUnknown)?;
        if node.revoked {
            return Err(Refusal::NodeRevoked);
        }
        node.spec = spec;
        if *node.region != *self.region || node.provider != self.provider {
            // They were another book's, or another place's.
            node.prices.clear();
        }
        node.region = region;
        node.provider = self.provider;
        node.generation = node.generation.wrapping_add(1);
        Ok(number)
    }

    fn add(&self, ctx: &mut Ctx) -> Result<u32, Refusal> {
        if ctx.state.nodes.len() >= MAX_NODES {
            return Err(Refusal::TooMany {
                what: "nodes".into(),
                most: MAX_NODES as u64,
            });
        }
        let cluster = ctx.state.cluster.as_mut().ok_or(Refusal::NotFounded)?;
        let number = cluster.next_node;
        let row = NodeRow {
            number,
            spec: self.spec.clone(),
            region: self.region.clone(),
            provider: self.provider,
            generation: 1,
            boots: Vec::new(),
            revoked: false,
            daily: None,
            next_prekey: 1,
            registered: ctx.stamp.now,
            prices: Vec::new(),
            standing: Standing::Good,
        };
        let node =
            Node::from_row(self.node, row, &mut ctx.state.alike).ok_or(Refusal::NodeInvalid)?;
        cluster.next_node += 1;
        ctx.writes
            .put_serde(Table::Cluster, keys::CLUSTER, &*cluster);
        ctx.state
            .by_number
            .resize_with(number as usize + 1, || None);
        ctx.state.by_number[number as usize] = Some(Box::new(node));
        ctx.state.nodes.insert(self.node, number);
        ctx.state.touched.add(number);
        Ok(number)
    }
}
