//! Orders and their bytes: (kind, version, body).

use bytes::Bytes;
use farlane_units::Millis;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::order::*;

/// When an entry was made, as the leader says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Log index.
    pub index: u64,
    /// Raft term.
    pub term: u64,
    /// Cluster time; never goes back.
    pub now: Millis,
}

/// An order as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Which order.
    pub kind: u16,
    /// Of its encoding.
    pub version: u16,
    /// The encoded order.
    pub body: Bytes,
}

/// A command that this build cannot read: the replica must stop rather than skip it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownCommand {
    /// Made by a newer build, most likely.
    #[error("command kind {kind} version {version} is unknown to this build")]
    Kind {
        /// Which order.
        kind: u16,
        /// Of its encoding.
        version: u16,
    },
    /// The body does not read as that order.
    #[error("the body of command kind {kind} version {version} cannot be read")]
    Body {
        /// Which order.
        kind: u16,
        /// Of its encoding.
        version: u16,
    },
}

macro_rules! orders {
    ($($(#[$doc:meta])* $number:literal $name:ident $codec:ident),* $(,)?) => {
        /// Everything that can be asked of the state machine.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Order {
            $($(#[$doc])* $name($name)),*
        }

        impl Order {
            /// To what the log keeps.
            pub fn encode(&self) -> Command {
                let (kind, body) = match self {
                    $(Order::$name(order) => ($number, orders!(@encode $codec order))),*
                };
                Command { kind, version: 1, body }
            }

            /// From what the log keeps. What is sealed stays a slice of the body.
            ///
            /// *Errors*: unknown kind, version or body; the replica must stop.
            pub fn decode(command: &Command) -> Result<Order, UnknownCommand> {
                let Command { kind, version, body } = command;
                let (kind, version) = (*kind, *version);
                let order = match (kind, version) {
                    $(($number, 1) => orders!(@decode $codec $name body).map(Order::$name),)*
                    _ => return Err(UnknownCommand::Kind { kind, version }),
                };
                order.ok_or(UnknownCommand::Body { kind, version })
            }
        }

        $(impl From<$name> for Order {
            fn from(order: $name) -> Order {
                Order::$name(order)
            }
        })*
    };
    (@encode framed $order:ident) => { $order.encode() };
    (@encode serde $order:ident) => { encode_serde($order) };
    (@decode framed $name:ident $body:ident) => { $name::decode($body.clone()) };
    (@decode serde $name:ident $body:ident) => { decode_serde::<$name>($body) };
}

orders! {
    /// Founds the cluster, once.
    1 Genesis serde,
    /// Adds a node, or replaces its record.
    2 RegisterNode serde,
    /// A node came up, or measured itself anew.
    3 UpdateNode serde,
    /// Takes a node out.
    4 RemoveNode serde,
    /// Adds prekeys.
    5 StockPrekeys serde,
    /// A granter is there.
    6 AttachGranter serde,
    /// A granter is gone.
    7 DetachGranter serde,
    /// A client begins, or comes back.
    8 OpenSession serde,
    /// Tasks.
    9 SubmitBatch framed,
    /// Leases tasks to nodes.
    10 Place framed,
    /// Attempts ended, as their node says.
    11 CompleteBatch framed,
    /// Attempts ended, as the leader says.
    12 Return serde,
    /// Somebody asked to stop.
    13 Cancel serde,
    /// Time passed.
    14 Expire serde,
    /// A client has read its results.
    15 AckResults serde,
    /// A key or node is no longer trusted.
    16 Revoke serde,
    /// A sink has taken in what was waiting for it.
    17 AckOutbox serde,
    /// Tasks that can never run.
    18 Refuse serde,
    /// A provider's nodes that must get no more grants.
    19 PublishRevocations serde,
    /// What nodes cost, and from when on.
    20 SetPrices serde,
    /// What a project is due and may hold.
    21 SetProject serde,
    /// Attempts that make way.
    22 Preempt serde,
    /// What audits found of a node.
    25 SetStanding serde,
}

fn encode_serde<T: Serialize>(order: &T) -> Bytes {
    postcard::to_stdvec(order)
        .expect("postcard into a Vec cannot fail for these types")
        .into()
}

fn decode_serde<T: DeserializeOwned>(body: &Bytes) -> Option<T> {
    let (order, left) = postcard::take_from_bytes(body).ok()?;
    left.is_empty().then_some(order)
}
