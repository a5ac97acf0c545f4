//! The connection to the control plane: made, kept, and made again.
//!
//! ```text
//! connect ─▶ hello out ─▶ ControlHello in ─(leader named: go there)─▶ Up ─ frames … ─▶ Down ─ wait ─┐
//!  ▲  ▲                                                                                             │
//!  │  └─ Renew without a certificate ◀─ yes ─ has it ended, or was it not taken? ◀──────────────────┤
//!  └────────────────────── 0.1 s doubling to 5 s, with jitter ◀── no ───────────────────────────────┘
//! ```
//! A node that was removed, or that no server knows time and again, is not connected any more: its agent ends.
//! Owns TLS, backoff and the renewal of the certificate. Leaves every frame's meaning to `engine`, but for
//! pings, which it answers at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use farlane_runtime::{Clock, Entropy, SystemClock, SystemEntropy};
use farlane_wire::v1::fleet_client::FleetClient;
use farlane_wire::{Class, ErrorCode, channel, v1};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::AgentError;
use crate::clock::ClusterClock;
use crate::folder::{Folder, NetworkFile, Transport};
use crate::join::{self, Proof, Unrenewed};
use crate::way::{LOOK_EVERY, Way};

/// First wait before a new try. Source: a restarted server is back in about that time.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Longest wait.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// After a refusal that only a person can lift: a wrong clock, an enrolment that has ended. Source: a
/// server lets one address in once a second, so that sixty such machines behind one hold no other up.
const REFUSED_WAIT: Duration = Duration::from_secs(60);
/// Tries in a row that may end with a server that does not know this node: then the network does not.
/// Source: with the waits between them 1.5 s, in which servers that were just started catch up.
const UNKNOWN_TRIES: u32 = 5;
/// Frames under way to the server beyond what HTTP/2 buffers; completions are held to two batches.
const OUTGOING: usize = 1024;
/// Before the first look at the other servers: whoever connects has other things to do first.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// A certificate is renewed when less than this is left, or less than a third of its life. Source: they
/// live 24 h; a third leaves 8 h in which a server may be away.
const RENEW_BEFORE_MS: u64 = 8 * 3_600_000;
/// Between two renewals, and between two tries, where the certificate lives long enough. Source: a thousandth
/// of a day, so that a server that gives short ones by mistake is not asked without end.
const RENEWAL_PAUSE: Duration = Duration::from_secs(60);
/// And where it does not.
const LEAST_PAUSE: Duration = Duration::from_millis(200);

/// What the engine hears of the connection.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// The first frame is wanted.
    WantHello(oneshot::Sender<v1::AgentHello>),
    /// Connected; frames go out by `out`. `sent` is when the hello left, on the steady clock.
    Up {
        out: mpsc::Sender<v1::AgentFrame>,
        hello: v1::ControlHello,
        sent: u64,
    },
    /// A frame came.
    Frame(v1::ControlFrame),
    /// Disconnected; `Up` may follow.
    Down,
    /// The network does not take this node, and will not.
    Over(AgentError),
}

/// What the link is made with.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) folder: Folder,
    pub(crate) network: NetworkFile,
    pub(crate) transport: Transport,
    pub(crate) proof: Proof,
    pub(crate) events: mpsc::Sender<LinkEvent>,
    /// The live connection, for blobs and logs.
    pub(crate) channel: watch::Sender<Option<Channel>>,
    /// The last try ended without a word of the server's: it may not take the certificate, whatever
    /// this machine's clock says of it.
    pub(crate) doubted: bool,
    /// When a certificate last came without the old one.
    pub(crate) proved: Option<Instant>,
    pub(crate) way: Arc<Way>,
}

enum Ended {
    /// Go there instead, at once.
    Leader(String),
    /// Try again; `true` where it was up.
    Lost(bool, String),
    /// Try again when a person may have seen to it.
    Refused(String),
    Removed(String),
    /// This server does not know the node.
    Unknown(String),
    /// Nobody listens any more.
    Unwanted,
}

impl Link {
    /// Runs until the engine is gone, or the network does not take the node.
    pub(crate) async fn run(mut self) {
        let mut wait = FIRST_WAIT;
        let mut leader: Option<String> = None;
        let (mut hops, mut unknown) = (0, 0);
        loop {
            let ended = self.connect(leader.take()).await;
            self.channel.send_replace(None);
            unknown = match &ended {
                Ended::Unknown(_) => unknown + 1,
                Ended::Leader(_) => unknown,
                _ => 0,
            };
            match ended {
                Ended::Unwanted => return,
                Ended::Removed(why) => {
                    let over = LinkEvent::Over(AgentError::Removed(why));
                    return drop(self.events.send(over).await);
                }
                Ended::Unknown(why) if unknown >= UNKNOWN_TRIES => {
                    let over = LinkEvent::Over(AgentError::Unknown(why));
                    return drop(self.events.send(over).await);
                }
                Ended::Unknown(why) => {
                    tracing::warn!(%why, "the control plane does not know this machine; asking again");
                }
                Ended::Leader(url) if hops < 4 => {
                    hops += 1;
                    leader = Some(url);
                    continue;
                }
                Ended::Leader(_) => {}
                Ended::Lost(was_up, why) => {
                    if was_up {
                        wait = FIRST_WAIT;
                    }
                    tracing::info!(%why, "the connection to the control plane is down");
                }
                Ended::Refused(why) => {
                    wait = REFUSED_WAIT;
                    tracing::warn!(%why, "the control plane does not renew this machine's certificate");
                }
            }
            hops = 0;
            if self.events.send(LinkEvent::Down).await.is_err() {
                return;
            }
            let jitter = SystemEntropy.below(wait.as_micros() as u64 / 2);
            tokio::time::sleep(wait / 2 + Duration::from_micros(jitter)).await;
            wait = (wait * 2).min(LAST_WAIT);
        }
    }

    async fn connect(&mut self, leader: Option<String>) -> Ended {
        let urls: Vec<String> = leader
            .into_iter()
            .chain(self.network.urls.clone())
            .collect();
        if self.must_prove()
            && let Err(ended) = self.prove(&urls).await
        {
            return ended;
        }
        let identity = (
            self.transport.certificate_pem.as_str(),
            self.transport.key_pem.as_str(),
        );
        let channel = match channel::connect(&urls, &self.network.ca_pem, Some(identity)).await {
            Ok(channel) => channel,
            Err(error) => return Ended::Lost(false, error.to_string()),
        };
        let (ask, answer) = oneshot::channel();
        if self.events.send(LinkEvent::WantHello(ask)).await.is_err() {
            return Ended::Unwanted;
        }
        let Ok(hello) = answer.await else {
            return Ended::Unwanted;
        };
        let (out, frames) = mpsc::channel(OUTGOING);
        let sent = ClusterClock::steady();
        let _ = out.try_send(frame(v1::agent_frame::Body::Hello(hello)));
        let mut client = FleetClient::new(channel.clone())
            .max_decoding_message_size(channel::MAX_MESSAGE)
            .max_encoding_message_size(channel::MAX_MESSAGE);
        let mut stream = match client.control(ReceiverStream::new(frames)).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => return self.unheard(&status),
        };
        let hello = match stream.message().await {
            Ok(Some(v1::ControlFrame {
                body: Some(v1::control_frame::Body::Hello(hello)),
            })) => hello,
            Ok(Some(v1::ControlFrame {
                body: Some(v1::control_frame::Body::Refused(no)),
            })) => {
                return refusal(false, &no);
            }
            Ok(_) => return Ended::Lost(false, "the server did not say hello".into()),
            Err(status) => return self.unheard(&status),
        };
        self.doubted = false;
        if !hello.leader.is_empty() {
            return Ended::Leader(hello.leader);
        }
        if let Err(refused) = farlane_wire::hello::negotiate(hello.hello.as_ref()) {
            return Ended::Lost(false, refused.message);
        }
        self.channel.send_replace(Some(channel.clone()));
        // The engine gives a connection up by letting go of this.
        let answers = out.downgrade();
        let others = hello.others.clone();
        let up = LinkEvent::Up { out, hello, sent };
        if self.events.send(up).await.is_err() {
            return Ended::Unwanted;
        }
        self.serve(&mut stream, channel, &answers, others).await
    }

    async fn serve(
        &mut self,
        stream: &mut tonic::Streaming<v1::ControlFrame>,
        channel: Channel,
        answers: &mpsc::WeakSender<v1::AgentFrame>,
        others: Vec<v1::ServerAt>,
    ) -> Ended {
        let mut look = Box::pin(tokio::time::sleep(FIRST_LOOK));
        let mut renewal = Box::pin(tokio::time::sleep(self.until_renewal()));
        loop {
            tokio::select! {
                message = stream.message() => match message {
                    Ok(Some(v1::ControlFrame { body: Some(v1::control_frame::Body::Refused(no)) })) => {
                        return refusal(true, &no);
                    }
                    // Here, and not in its turn among the engine's events: the server measures the way.
                    Ok(Some(v1::ControlFrame { body: Some(v1::control_frame::Body::Ping(ping)) })) => {
                        let pong = v1::Pong { nonce: ping.nonce };
                        if let Some(out) = answers.upgrade() {
                            let _ = out.try_send(frame(v1::agent_frame::Body::Pong(pong)));
                        }
                    }
                    Ok(Some(frame)) => {
                        if self.events.send(LinkEvent::Frame(frame)).await.is_err() {
                            return Ended::Unwanted;
                        }
                    }
                    Ok(None) => return Ended::Lost(true, "the server ended it".into()),
                    Err(status) => return refused(true, &status),
                },
                () = self.events.closed() => return Ended::Unwanted,
                () = &mut look, if !others.is_empty() => {
                    self.look(others.clone());
                    look = Box::pin(tokio::time::sleep(LOOK_EVERY));
                }
                () = &mut renewal => {
                    let wait = self.renew(channel.clone()).await;
                    renewal = Box::pin(tokio::time::sleep(wait));
                }
            }
        }
    }

    /// Looks how far the other servers are, beside; each is given up after a while.
    fn look(&self, others: Vec<v1::ServerAt>) {
        let identity = (
            self.transport.certificate_pem.clone(),
            self.transport.key_pem.clone(),
        );
        let ca_pem = self.network.ca_pem.clone();
        tokio::spawn(self.way.clone().look(others, ca_pem, identity));
    }

    /// The stream ended before the server's hello.
    fn unheard(&mut self, status: &tonic::Status) -> Ended {
        // A server that does not take a certificate ends the connection; its own refusals have codes.
        self.doubted = ErrorCode::of(status).is_none();
        refused(false, status)
    }

    /// Whether the certificate cannot open a connection, as far as is known here.
    fn must_prove(&self) -> bool {
        let ended = self.transport.not_after_ms <= SystemClock.wall().0;
        let tried = self.proved.is_some_and(|at| at.elapsed() < RENEWAL_PAUSE);
        ended || (self.doubted && !tried)
    }

    /// Has a new key certified by the identity key alone.
    async fn prove(&mut self, urls: &[String]) -> Result<(), Ended> {
        // Whether or not that was it, the next try is one with what is there.
        self.doubted = false;
        let lost = |why: String| Ended::Lost(false, why);
        let channel = channel::connect(urls, &self.network.ca_pem, None).await;
        let channel = channel.map_err(|error| lost(error.to_string()))?;
        let renewed = join::renew(channel, &self.proof).await;
        let new = renewed.map_err(|error| match error {
            Unrenewed::Status(status) => match ErrorCode::of(&status).map(ErrorCode::class) {
                Some(Class::Caller) => match refused(false, &status) {
                    Ended::Lost(_, why) => Ended::Refused(why),
                    removed => removed,
                },
                _ => refused(false, &status),
            },
            Unrenewed::Here(error) => Ended::Refused(error.to_string()),
        })?;
        let kept = self.folder.keep_transport(&new);
        kept.map_err(|error| lost(error.to_string()))?;
        tracing::info!("the identity key brought a new transport certificate");
        self.transport = new;
        self.proved = Some(Instant::now());
        Ok(())
    }

    fn until_renewal(&self) -> Duration {
        let life = &self.transport;
        let margin = life.not_after_ms.saturating_sub(life.issued_ms) / 3;
        let at = life.not_after_ms - margin.min(RENEW_BEFORE_MS).min(life.not_after_ms);
        Duration::from_millis(at.saturating_sub(SystemClock.wall().0))
    }

    /// How long to wait until the next renewal.
    async fn renew(&mut self, channel: Channel) -> Duration {
        let renewed = join::renew(channel, &self.proof).await;
        match renewed.and_then(|new| Ok(self.folder.keep_transport(&new).map(|()| new)?)) {
            Ok(new) => self.transport = new,
            Err(error) => {
                tracing::warn!(%error, "the transport certificate could not be renewed; trying again");
            }
        }
        let left = self.transport.not_after_ms;
        let left = Duration::from_millis(left.saturating_sub(SystemClock.wall().0));
        let pause = (left / 10).clamp(LEAST_PAUSE, RENEWAL_PAUSE);
        self.until_renewal().max(pause)
    }
}

fn refused(was_up: bool, status: &tonic::Status) -> Ended {
    end(was_up, ErrorCode::of(status), status.message())
}

fn refusal(was_up: bool, no: &v1::Refusal) -> Ended {
    end(was_up, no.code.parse().ok(), &no.message)
}

fn end(was_up: bool, code: Option<ErrorCode>, why: &str) -> Ended {
    let why = why.to_owned();
    match code {
        Some(ErrorCode::NodeRevoked) => Ended::Removed(why),
        Some(ErrorCode::UnknownNode) => Ended::Unknown(why),
        _ => Ended::Lost(was_up, why),
    }
}

/// A frame with this body.
pub(crate) fn frame(body: v1::agent_frame::Body) -> v1::AgentFrame {
    v1::AgentFrame { body: Some(body) }
}
