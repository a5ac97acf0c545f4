//! A stream whose first frame asks for something, and whose last frame may say why it ended.
//!
//! Owns that shape, which a client's session and an agent's control stream share. Leaves what the
//! frames mean to `farlane-controller`.
//!
//! ```text
//! first frame ─▶ opened ─▶ frames both ways ─▶ either side ends it
//!             └▶ refused: one frame that says why, or where to go instead
//! ```

use std::future::Future;

use farlane_controller::{ControlError, Outbound};
use farlane_wire::v1;
use futures_util::{StreamExt, stream};
use tonic::{Status, Streaming};

use crate::{Replies, status};

/// One end of such a stream, once it is open.
pub(crate) trait Attached: Send + Sync + Sized + 'static {
    /// What comes.
    type In: Send + 'static;
    /// What goes.
    type Out: Send + 'static;

    /// Does what a frame asks.
    fn receive(&self, frame: Self::In) -> impl Future<Output = Result<(), ControlError>> + Send;
    /// Says why, and ends the stream after it.
    fn refuse(&self, error: &ControlError);
    /// Resolves when the server wants the stream to end.
    fn ended(&self) -> impl Future<Output = ()> + Send + 'static;
    /// The frame that names the server to go to.
    fn elsewhere(leader: String) -> Self::Out;
    /// The frame that says why not.
    fn refusal(refusal: v1::Refusal) -> Self::Out;
}

/// Opens a stream by its first frame. The reply starts before that frame is there: a peer may wait
/// for it to send one.
pub(crate) fn attach<A, Opening>(
    mut inbound: Streaming<A::In>,
    open: impl FnOnce(A::In) -> Opening + Send + 'static,
) -> Replies<A::Out>
where
    A: Attached,
    Opening: Future<Output = Result<(A, Outbound<A::Out>), ControlError>> + Send,
{
    let opening = async move {
        let first = match inbound.message().await {
            Ok(Some(first)) => first,
            Ok(None) => {
                return one(Err(status(ControlError::invalid(
                    "the stream has no frame",
                ))));
            }
            Err(status) => return one(Err(status)),
        };
        match open(first).await {
            Ok((attached, outbound)) => {
                tokio::spawn(receive(attached, inbound));
                Box::pin(outbound.map(Ok))
            }
            Err(error) => {
                let frame = match &error {
                    ControlError::NotLeader { leader } if !leader.is_empty() => {
                        A::elsewhere(leader.clone())
                    }
                    other => A::refusal(other.refusal()),
                };
                // Private detail stays here.
                drop(status(error));
                one(Ok(frame))
            }
        }
    };
    Box::pin(stream::once(opening).flatten())
}

fn one<T: Send + 'static>(frame: Result<T, Status>) -> Replies<T> {
    Box::pin(stream::once(async { frame }))
}

/// Takes a stream's frames until either side ends it.
async fn receive<A: Attached>(attached: A, mut inbound: Streaming<A::In>) {
    let ended = attached.ended();
    tokio::pin!(ended);
    loop {
        tokio::select! {
            biased;
            () = &mut ended => return,
            frame = inbound.message() => match frame {
                Ok(Some(frame)) => {
                    if let Err(error) = attached.receive(frame).await {
                        attached.refuse(&error);
                        drop(status(error));
                        return;
                    }
                }
                Ok(None) | Err(_) => return,
            },
        }
    }
}
