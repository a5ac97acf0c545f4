//! Single questions about tasks and the network, answered as dictionaries.

use farlane::v1;
use farlane::{Client, Network};
use farlane_model::TaskId;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::native::wait;

/// Why a task is where it is.
pub fn explain(py: Python<'_>, client: Client, task: TaskId) -> PyResult<Bound<'_, PyDict>> {
    let reply = wait(py, async move { client.explain(task).await })?;
    let out = PyDict::new(py);
    out.set_item("phase", reply.phase)?;
    out.set_item("summary", reply.summary)?;
    out.set_item("node_name", reply.node_name)?;
    let classes = PyList::empty(py);
    for class in reply.classes {
        classes.append((class.class, class.nodes, class.reasons))?;
    }
    out.set_item("classes", classes)?;
    let terms = PyList::empty(py);
    for term in reply.terms {
        terms.append((term.name, term.usd_picos as f64 / 1e12, term.detail))?;
    }
    out.set_item("terms", terms)?;
    out.set_item("policy", reply.policy)?;
    let runner_up = reply.runner_up;
    let runner_up = runner_up.map(|o| (o.node_name, o.region, o.usd_picos as f64 / 1e12));
    out.set_item("runner_up", runner_up)?;
    let starts_in = reply.starts_in_ms.map(|ms| ms as f64 / 1000.0);
    out.set_item("starts_in", starts_in)?;
    out.set_item("starts_because", reply.starts_because)?;
    Ok(out)
}

/// What the network says of a task: function, phase, attempt, node, region, times, cost.
pub fn task_view(py: Python<'_>, client: Client, task: TaskId) -> PyResult<Bound<'_, PyDict>> {
    let view = wait(py, async move { client.view(task).await })?;
    let phase = match view.phase() {
        v1::TaskPhase::Placed => "placed",
        v1::TaskPhase::Running => "running",
        v1::TaskPhase::Finished => "finished",
        v1::TaskPhase::Cancelled => "cancelled",
        v1::TaskPhase::Queued | v1::TaskPhase::Unspecified => "queued",
    };
    let out = PyDict::new(py);
    out.set_item("phase", phase)?;
    out.set_item("function", view.function)?;
    out.set_item("attempt", view.attempt)?;
    out.set_item("node_name", view.node_name)?;
    out.set_item("region", view.region)?;
    out.set_item("retries", view.retries)?;
    let gang = (view.gang_rank, view.gang_size);
    out.set_item("gang", (gang.1 > 0).then_some(gang))?;
    out.set_item("cost_usd_micros", view.cost_usd_micros)?;
    Ok(out)
}

/// A node: name, region, online, running, leased.
pub type NodeRow = (String, String, bool, u32, u32);

/// The nodes.
pub fn nodes(py: Python<'_>, network: Network) -> PyResult<Vec<NodeRow>> {
    let reply = wait(py, async move {
        network.list_nodes(v1::ListNodesRequest {}).await
    })?;
    let row = |n: v1::NodeView| (n.name, n.region, n.online, n.running, n.leased);
    Ok(reply.nodes.into_iter().map(row).collect())
}
