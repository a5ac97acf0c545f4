//! A trace out, a page at a time: the next is read once this one is taken.

use farlane_controller::TraceExport;
use farlane_wire::v1;
use tonic::Status;

use crate::{Replies, status};

/// Streams a trace to its end.
pub(crate) fn read(export: TraceExport) -> Replies<v1::TraceChunk> {
    Box::pin(futures_util::stream::unfold(Some(export), next))
}

async fn next(
    export: Option<TraceExport>,
) -> Option<(Result<v1::TraceChunk, Status>, Option<TraceExport>)> {
    let mut export = export?;
    match export.next().await {
        Ok(Some(chunk)) => Some((Ok(chunk), Some(export))),
        Ok(None) => None,
        Err(error) => Some((Err(status(error)), None)),
    }
}
