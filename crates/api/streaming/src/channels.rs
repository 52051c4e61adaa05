//! WebSocket messages whose first byte names a channel (`*.channel.k8s.io`), for servers and clients.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tracing::debug;

use crate::exec::STDIN;
use crate::streams::{Outgoing, QUEUE, QueueWriter};
use crate::{Io, Protocol, Wire};

/// The channel number that stands for "close the channel named by the next byte" (version 5).
const CLOSE_SIGNAL: u8 = 255;
/// How long the other side may take to close after we did.
const LINGER: Duration = Duration::from_secs(10);

/// A connection of numbered channels.
pub(crate) struct Channels {
    out: mpsc::Sender<Outgoing>,
    closing: watch::Sender<bool>,
    flushed: watch::Receiver<bool>,
    gone: watch::Receiver<bool>,
}

impl Channels {
    /// Starts both tasks. `inbound` names the channels that are read; messages for others are thrown away.
    pub(crate) async fn start<T: Io>(
        io: T,
        role: Role,
        protocol: Protocol,
        inbound: &[u8],
    ) -> (Self, HashMap<u8, mpsc::Receiver<Bytes>>) {
        let (sink, stream) = crate::tunnel::websocket(io, role).await.split();
        let mut senders = HashMap::new();
        let mut receivers = HashMap::new();
        for channel in inbound {
            let (sender, receiver) = mpsc::channel(QUEUE);
            senders.insert(*channel, sender);
            receivers.insert(*channel, receiver);
        }
        let (out, queue) = mpsc::channel(QUEUE);
        let closing = watch::Sender::new(false);
        let (gone_sender, gone) = watch::channel(false);
        let (flushed_sender, flushed) = watch::channel(false);
        let (mut stop, reader_closing) = (closing.subscribe(), closing.clone());
        tokio::spawn(async move {
            let lingered = async {
                let _ = stop.wait_for(|c| *c).await;
                tokio::time::sleep(LINGER).await;
            };
            tokio::select! {
                () = read_messages(stream, protocol, senders) => {}
                () = lingered => {}
            }
            gone_sender.send_replace(true);
            reader_closing.send_replace(true);
        });
        let writer_closing = closing.subscribe();
        tokio::spawn(async move {
            if let Err(error) = write_messages(sink, protocol, queue, writer_closing).await {
                debug!(%error, "WebSocket connection broke");
            }
            flushed_sender.send_replace(true);
        });
        (Self { out, closing, flushed, gone }, receivers)
    }

    /// A writer of one channel.
    pub(crate) fn writer(&self, channel: u8) -> QueueWriter {
        QueueWriter::new(channel, self.out.clone())
    }

    /// Puts a piece into the queue; an empty one becomes an empty message.
    pub(crate) async fn send(&self, channel: u8, bytes: Bytes) {
        // The connection may be gone, which the reading side tells.
        let _ = self.out.send(Outgoing { channel, bytes, closes: false }).await;
    }

    /// Tells when the other side has left.
    pub(crate) fn closed(&self) -> watch::Receiver<bool> {
        self.gone.clone()
    }

    /// Sends what is queued and closes the connection. Returns when all is written.
    pub(crate) async fn close(mut self) {
        self.closing.send_replace(true);
        // An error means that the writing task has ended, which is as good.
        let _ = self.flushed.wait_for(|f| *f).await;
    }
}

impl Drop for Channels {
    fn drop(&mut self) {
        self.closing.send_replace(true);
    }
}

async fn read_messages<T: Io>(
    mut stream: SplitStream<WebSocketStream<T>>,
    protocol: Protocol,
    mut senders: HashMap<u8, mpsc::Sender<Bytes>>,
) {
    while let Some(message) = stream.next().await {
        let decoded = match message {
            Ok(Message::Binary(bytes)) if protocol.wire != Wire::WebSocketBase64 => split_binary(bytes),
            Ok(Message::Text(text)) if protocol.wire == Wire::WebSocketBase64 => {
                split_base64(text.as_bytes())
            }
            // Some clients send text where binary was agreed; the bytes are the same.
            Ok(Message::Text(text)) => split_binary(text.into()),
            Ok(_) => continue,
            Err(error) => {
                debug!(%error, "WebSocket connection ended");
                return;
            }
        };
        let Some((channel, bytes)) = decoded else { continue };
        if channel == CLOSE_SIGNAL && protocol.version >= 5 {
            if let Some(closed) = bytes.first() {
                senders.remove(closed);
            }
        } else if let Some(sender) = senders.get(&channel)
            && !bytes.is_empty()
            && sender.send(bytes).await.is_err()
        {
            senders.remove(&channel);
        }
    }
}

fn split_binary(mut bytes: Bytes) -> Option<(u8, Bytes)> {
    if bytes.is_empty() {
        return None;
    }
    let channel = bytes.split_to(1);
    Some((channel[0], bytes))
}

fn split_base64(text: &[u8]) -> Option<(u8, Bytes)> {
    let (digit, rest) = text.split_first()?;
    let channel = digit.checked_sub(b'0')?;
    Some((channel, STANDARD.decode(rest).ok()?.into()))
}

async fn write_messages<T: Io>(
    mut sink: SplitSink<WebSocketStream<T>, Message>,
    protocol: Protocol,
    mut queue: mpsc::Receiver<Outgoing>,
    mut closing: watch::Receiver<bool>,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    loop {
        let piece = tokio::select! {
            biased;
            piece = queue.recv() => piece,
            _ = closing.wait_for(|c| *c) => queue.try_recv().ok(),
        };
        let Some(piece) = piece else {
            // kubectl takes any other end than this code for a failure.
            sink.send(Message::Close(Some(crate::tunnel::normal_closure()))).await?;
            return sink.close().await;
        };
        let Some(message) = encode(protocol, &piece) else { continue };
        sink.feed(message).await?;
        while let Ok(piece) = queue.try_recv() {
            if let Some(message) = encode(protocol, &piece) {
                sink.feed(message).await?;
            }
        }
        sink.flush().await?;
    }
}

fn encode(protocol: Protocol, piece: &Outgoing) -> Option<Message> {
    if protocol.wire == Wire::WebSocketBase64 {
        // No base64 protocol has a close signal.
        let text = format!("{}{}", char::from(b'0' + piece.channel), STANDARD.encode(&piece.bytes));
        return (!piece.closes).then(|| Message::text(text));
    }
    if piece.closes {
        // Only stdin has an end of its own (KEP-4006); clients complain about the signal on other channels.
        let signals = protocol.version >= 5 && piece.channel == STDIN;
        return signals.then(|| Message::binary(vec![CLOSE_SIGNAL, piece.channel]));
    }
    let mut bytes = BytesMut::with_capacity(1 + piece.bytes.len());
    bytes.put_u8(piece.channel);
    bytes.put_slice(&piece.bytes);
    Some(Message::Binary(bytes.freeze()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_documented() {
        let piece = |channel, text: &'static str, closes| Outgoing { channel, bytes: text.into(), closes };
        let v5 = Protocol { wire: Wire::WebSocket, version: 5 };
        let base64 = Protocol { wire: Wire::WebSocketBase64, version: 4 };
        assert_eq!(encode(v5, &piece(1, "hi", false)).unwrap(), Message::binary(b"\x01hi".to_vec()));
        assert_eq!(encode(v5, &piece(0, "", true)).unwrap(), Message::binary(vec![255, 0]));
        assert_eq!(encode(v5, &piece(1, "", true)), None);
        assert_eq!(encode(base64, &piece(3, "hi", false)).unwrap(), Message::text("3aGk="));
        assert_eq!(encode(base64, &piece(0, "", true)), None);
        assert_eq!(split_binary(Bytes::from_static(b"\x00x")), Some((0, Bytes::from_static(b"x"))));
        assert_eq!(split_base64(b"4aGk="), Some((4, Bytes::from_static(b"hi"))));
        assert_eq!(split_binary(Bytes::new()), None);
        assert_eq!(split_base64(b"0*"), None);
    }
}
