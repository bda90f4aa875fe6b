//! Reading and writing control messages and stream kinds on a live connection.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use quinn::{Connection, RecvStream, SendStream};
use tokio::time::timeout;

use crate::control::{self, ControlError, LENGTH_LEN, Message, StreamKind};
use crate::error::{LinkError, OnStream, Role};
use crate::handshake::Refusal;
use crate::protocol::{Protocol, RELEASE, presentable};

const CONTROL: &str = "control";
/// How long the peer may take for a message that needs no disk.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a refused peer may take to read why.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(1);
/// Most bytes of a text that is sent to the peer.
const TEXT_MAX: usize = 400;

/// The control stream of a connection. Both ends keep it open while the connection lives.
pub(crate) struct Control {
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    pub(crate) role: Role,
}

impl Control {
    pub(crate) async fn send(&mut self, message: &Message) -> Result<(), LinkError> {
        self.send.write_all(&control::encode(message)).await.on(CONTROL)
    }

    /// The next message, within `limit`; a refusal of the peer is an error.
    pub(crate) async fn receive(&mut self, limit: Duration) -> Result<Message, LinkError> {
        let message = timeout(limit, async {
            let mut length = [0; LENGTH_LEN];
            self.recv.read_exact(&mut length).await.on(CONTROL)?;
            let mut bytes = vec![0; control::length(length)?];
            self.recv.read_exact(&mut bytes).await.on(CONTROL)?;
            Ok::<_, LinkError>(control::decode(&bytes)?)
        });
        let by = match self.role {
            Role::Primary => Role::Secondary,
            Role::Secondary => Role::Primary,
        };
        match message.await.map_err(|_| LinkError::Stream { stream: CONTROL })?? {
            Message::Refused(refusal) => Err(LinkError::Refused { by, refusal }),
            message => Ok(message),
        }
    }

    /// Says this node's release, where that is part of what was agreed.
    pub(crate) async fn send_release(&mut self, protocol: Protocol) -> Result<(), LinkError> {
        if protocol.has_release() {
            self.send(&Message::Release(RELEASE.into())).await?;
        }
        Ok(())
    }

    /// The peer's release, where that is part of what was agreed.
    pub(crate) async fn receive_release(
        &mut self,
        protocol: Protocol,
    ) -> Result<Option<String>, LinkError> {
        if !protocol.has_release() {
            return Ok(None);
        }
        match self.receive(ANSWER_TIMEOUT).await? {
            Message::Release(release) => Ok(Some(presentable(&release))),
            _ => Err(unexpected("its release")),
        }
    }

    /// Tells the peer why there will be no link, and waits until it has read that.
    pub(crate) async fn refuse(&mut self, connection: &Connection, refusal: Refusal) -> LinkError {
        let refusal = match refusal {
            Refusal::CannotResync { why } => {
                Refusal::CannotResync { why: shortened(&why).to_owned() }
            }
            Refusal::NotCut { at, why } => Refusal::NotCut { at, why: shortened(&why).to_owned() },
            refusal => refusal,
        };
        let told = self.send(&Message::Refused(refusal.clone())).await;
        if told.is_ok() && self.send.finish().is_ok() {
            // A peer that does not close in time is closed on; it then learns less.
            timeout(REFUSED_TIMEOUT, connection.closed()).await.ok();
        }
        LinkError::Refused { by: self.role, refusal }
    }
}

pub(crate) fn unexpected(expected: &'static str) -> LinkError {
    ControlError::Unexpected { expected }.into()
}

/// Opens the stream of that kind.
pub(crate) async fn open(
    connection: &Connection,
    kind: StreamKind,
) -> Result<SendStream, LinkError> {
    let mut stream = connection.open_uni().await?;
    stream.write_all(&[kind.byte()]).await.on(name(kind))?;
    Ok(stream)
}

/// Accepts the stream of that kind.
pub(crate) async fn accept(
    connection: &Connection,
    kind: StreamKind,
) -> Result<RecvStream, LinkError> {
    let stream = timeout(ANSWER_TIMEOUT, async {
        let mut stream = connection.accept_uni().await?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await.on(name(kind))?;
        if byte[0] == kind.byte() {
            Ok(stream)
        } else {
            Err(ControlError::Stream { got: byte[0], expected: kind }.into())
        }
    });
    stream.await.map_err(|_| LinkError::Stream { stream: name(kind) })?
}

/// Opens the stream of a resynchronisation, which goes both ways.
pub(crate) async fn open_both(
    connection: &Connection,
) -> Result<(SendStream, RecvStream), LinkError> {
    let (mut send, recv) = connection.open_bi().await?;
    send.write_all(&[StreamKind::Resync.byte()]).await.on(name(StreamKind::Resync))?;
    Ok((send, recv))
}

/// Accepts the stream of a resynchronisation.
pub(crate) async fn accept_both(
    connection: &Connection,
) -> Result<(SendStream, RecvStream), LinkError> {
    let stream = timeout(ANSWER_TIMEOUT, async {
        let (send, mut recv) = connection.accept_bi().await?;
        let mut byte = [0];
        recv.read_exact(&mut byte).await.on(name(StreamKind::Resync))?;
        let expected = StreamKind::Resync;
        if byte[0] == expected.byte() {
            Ok((send, recv))
        } else {
            Err(ControlError::Stream { got: byte[0], expected }.into())
        }
    });
    stream.await.map_err(|_| LinkError::Stream { stream: name(StreamKind::Resync) })?
}

pub(crate) const fn name(kind: StreamKind) -> &'static str {
    match kind {
        StreamKind::Log => "log",
        StreamKind::Acks => "acknowledgements'",
        StreamKind::Resync => "resynchronisation's",
        StreamKind::Bulk => "question's",
    }
}

/// Ends a connection and says why.
pub(crate) fn close(connection: &Connection, why: &LinkError) {
    connection.close(why.close_code().code(), shortened(&why.line()).as_bytes());
}

fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_MAX)]
}

/// What the future gives without waiting, if anything. For futures that may be dropped.
pub(crate) async fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        })
    })
    .await
}
