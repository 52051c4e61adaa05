//! A connection: one task that reads, one that writes, streams in between.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::PollSender;
use tracing::debug;

use super::flow::Shared;
use super::frame::{
    Control, Decoder, Encoder, FrameHeader, HEADER_LEN, INVALID_STREAM, PROTOCOL_ERROR, REFUSED_STREAM,
    decode_header,
};
use super::headers::Headers;
use super::stream::{Data, SpdyReader, SpdyStream, SpdyWriter};
use crate::Io;
use crate::streams::{CHUNK, StreamError};

/// Streams that may be open at once.
const MAX_STREAMS: usize = 4096;
/// Largest window that is announced, in bytes.
const MAX_WINDOW: u32 = 256 * 1024;
/// New streams that may wait to be taken.
const BACKLOG: usize = 64;
/// Data pieces of all streams that may wait to be written.
const DATA_QUEUE: usize = 32;
/// How long the other side may take to close after we did.
const LINGER: Duration = Duration::from_secs(10);

/// Which side of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Opens streams with odd numbers.
    Client,
    /// Opens streams with even numbers.
    Server,
}

/// A stream the other side wants to open. Dropping it refuses the stream.
pub struct Incoming {
    stream: Option<SpdyStream>,
}

impl Incoming {
    /// First value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.stream.as_ref().and_then(|s| s.header(name))
    }

    /// Number of the stream.
    pub fn id(&self) -> u32 {
        self.stream.as_ref().map_or(0, SpdyStream::id)
    }

    /// Accepts the stream.
    pub fn accept(mut self) -> SpdyStream {
        let stream = self.stream.take().expect("invariant: only accept and drop take it");
        stream.shared.push(Control::SynReply { stream: stream.id, fin: false, headers: Vec::new() });
        stream
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            stream.shared.push(Control::RstStream { stream: stream.id, status: REFUSED_STREAM });
            stream.shared.reset(stream.id);
        }
    }
}

/// A connection. Streams live on after it is dropped, until [`Session::close`] or the other side ends it.
pub struct Session {
    shared: Arc<Shared>,
    data: mpsc::Sender<Data>,
    incoming: mpsc::Receiver<Incoming>,
    flushed: watch::Receiver<bool>,
}

impl Session {
    /// Starts both tasks. `window` is how many bytes of a stream the other side may send ahead, at most 256 KiB. It is
    /// announced first of all, so that peers that keep to windows do so from their first byte on.
    pub fn start<T: Io>(io: T, role: Role, window: u32) -> Self {
        let window = window.min(MAX_WINDOW);
        let shared = Shared::new(if role == Role::Client { 1 } else { 2 }, window);
        shared.push(Control::Settings { initial_window: Some(window) });
        let (reader, writer) = tokio::io::split(io);
        let (data, data_queue) = mpsc::channel(DATA_QUEUE);
        let (accept, incoming) = mpsc::channel(BACKLOG);
        let (flushed_sender, flushed) = watch::channel(false);
        let input =
            Input { shared: shared.clone(), data: data.downgrade(), accept, role, decoder: Decoder::new() };
        tokio::spawn(async move {
            let shared = input.shared.clone();
            let mut closing = shared.closing.subscribe();
            let lingered = async {
                let _ = closing.wait_for(|c| *c).await;
                tokio::time::sleep(LINGER).await;
            };
            tokio::select! {
                result = input.run(reader) => if let Err(error) = result { debug!(%error, "SPDY connection ended") },
                () = lingered => {}
            }
            shared.disconnected();
        });
        let output = shared.clone();
        tokio::spawn(async move {
            if let Err(error) = write_frames(&output, writer, data_queue).await {
                debug!(%error, "SPDY connection broke");
                output.disconnected();
            }
            output.closing.send_replace(true);
            flushed_sender.send_replace(true);
        });
        Self { shared, data, incoming, flushed }
    }

    /// The next stream the other side opens; `None` when the connection has ended.
    pub async fn accept(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }

    /// Opens a stream. [`SpdyStream::accepted`] tells whether the other side takes it.
    ///
    /// # Errors
    /// [`StreamError::Closed`] when the connection has ended.
    pub fn open(&self, headers: Headers) -> Result<SpdyStream, StreamError> {
        if *self.shared.closing.borrow() {
            return Err(StreamError::Closed);
        }
        let mut state = self.shared.lock();
        let id = state.next_id;
        state.next_id += 2;
        let (queue, reset) = self.shared.open(&mut state, id, false, false);
        let (reply, replied) = oneshot::channel();
        if let Some(entry) = state.streams.get_mut(&id) {
            entry.reply = Some(reply);
        }
        drop(state);
        self.shared.push(Control::SynStream {
            stream: id,
            fin: false,
            unidirectional: false,
            priority: 0,
            headers: headers.clone(),
        });
        let reader = SpdyReader { id, queue, current: Bytes::new(), reset, shared: self.shared.clone() };
        let queue = PollSender::new(self.data.clone());
        let writer = SpdyWriter { id, queue, shared: self.shared.clone(), shut: false };
        Ok(SpdyStream { id, headers, reader, writer, shared: self.shared.clone(), replied: Some(replied) })
    }

    /// Sends what is queued, says good-bye and closes the connection. Returns when all is written.
    pub async fn close(mut self) {
        self.shared.closing.send_replace(true);
        // An error means that the writing task has ended, which is as good.
        let _ = self.flushed.wait_for(|f| *f).await;
    }

    /// Refuses streams that the other side opens from now on.
    pub fn refuse_further(&mut self) {
        self.incoming.close();
        while self.incoming.try_recv().is_ok() {}
    }

    /// Tells when the connection has ended.
    pub fn closed(&self) -> watch::Receiver<bool> {
        self.shared.gone.subscribe()
    }
}

async fn write_frames<W: AsyncWrite + Unpin>(
    shared: &Shared,
    mut io: W,
    mut data: mpsc::Receiver<Data>,
) -> io::Result<()> {
    let mut encoder = Encoder::new();
    let mut out = BytesMut::new();
    let mut closing = shared.closing.subscribe();
    loop {
        let last = *closing.borrow_and_update();
        loop {
            // Control frames first: a stream's opening must come before its data.
            let control = std::mem::take(&mut shared.lock().control);
            control.iter().for_each(|frame| encoder.control(frame, &mut out));
            match data.try_recv() {
                Ok(d) => encoder.data(d.stream, d.fin, &d.bytes, &mut out),
                Err(_) => break,
            }
            if out.len() >= 4 * CHUNK {
                io.write_all(&out.split()).await?;
            }
        }
        if last {
            let (last_stream, open) = {
                let state = shared.lock();
                (state.last_seen, state.half_open())
            };
            // The other side waits for the end of every stream, not only of the connection.
            open.iter().for_each(|id| encoder.data(*id, true, &Bytes::new(), &mut out));
            encoder.control(&Control::GoAway { last_stream, status: 0 }, &mut out);
        }
        if !out.is_empty() {
            io.write_all(&out.split()).await?;
            io.flush().await?;
        }
        if last {
            return io.shutdown().await;
        }
        tokio::select! {
            () = shared.work.notified() => {}
            _ = closing.changed() => {}
            piece = data.recv() => match piece {
                Some(d) => {
                    let control = std::mem::take(&mut shared.lock().control);
                    control.iter().for_each(|frame| encoder.control(frame, &mut out));
                    encoder.data(d.stream, d.fin, &d.bytes, &mut out);
                }
                // No session and no stream is left that could send.
                None => { shared.closing.send_replace(true); }
            },
        }
    }
}

struct Input {
    shared: Arc<Shared>,
    data: mpsc::WeakSender<Data>,
    accept: mpsc::Sender<Incoming>,
    role: Role,
    decoder: Decoder,
}

impl Input {
    async fn run<R: AsyncRead + Unpin>(mut self, io: R) -> Result<(), StreamError> {
        let mut io = BufReader::with_capacity(CHUNK, io);
        loop {
            let mut head = [0; HEADER_LEN];
            match io.read_exact(&mut head).await {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                other => other?,
            };
            match decode_header(head).map_err(protocol)? {
                FrameHeader::Data { stream, fin, len } => self.data(&mut io, stream, fin, len).await?,
                FrameHeader::Control { kind, flags, len } => {
                    let mut payload = vec![0; len];
                    io.read_exact(&mut payload).await?;
                    let frame = self.decoder.decode(kind, flags, &payload).map_err(protocol)?;
                    self.control(frame).await?;
                }
            }
        }
    }

    /// Hands a data frame on piece by piece, so that its length does not matter.
    async fn data<R: AsyncRead + Unpin>(
        &self,
        io: &mut R,
        stream: u32,
        fin: bool,
        mut len: usize,
    ) -> Result<(), StreamError> {
        let entry = self.shared.lock().streams.get(&stream).map(|e| e.inbound.clone());
        if entry.is_none() && len > 0 {
            self.shared.push(Control::RstStream { stream, status: INVALID_STREAM });
        }
        let sender = entry.flatten();
        while len > 0 {
            let mut piece = vec![0; len.min(CHUNK)];
            io.read_exact(&mut piece).await?;
            len -= piece.len();
            let size = piece.len();
            let delivered = match &sender {
                Some(sender) => sender.send(piece.into()).await,
                None => false,
            };
            if !delivered {
                self.shared.consumed(stream, size);
            }
        }
        if fin {
            self.shared.half_closed(stream, false);
        }
        Ok(())
    }

    async fn control(&mut self, frame: Control) -> Result<(), StreamError> {
        match frame {
            Control::SynStream { stream, fin, unidirectional, headers, .. } => {
                self.syn_stream(stream, fin, unidirectional, headers).await?;
            }
            Control::SynReply { stream, fin, .. } => {
                if let Some(reply) = self.shared.lock().streams.get_mut(&stream).and_then(|e| e.reply.take())
                {
                    // Nobody may be waiting for it.
                    let _ = reply.send(());
                }
                if fin {
                    self.shared.half_closed(stream, false);
                }
            }
            Control::Headers { stream, fin: true, .. } => self.shared.half_closed(stream, false),
            Control::RstStream { stream, .. } => self.shared.reset(stream),
            Control::Settings { initial_window } => self.shared.settings(initial_window),
            // An answer to our own ping has our parity and is not echoed.
            Control::Ping(id) if (id % 2 == 1) == (self.role == Role::Server) => {
                self.shared.push(Control::Ping(id))
            }
            Control::WindowUpdate { stream, delta } => self.shared.window_update(stream, delta),
            Control::Headers { .. } | Control::Ping(_) | Control::GoAway { .. } | Control::Unknown(_) => {}
        }
        Ok(())
    }

    async fn syn_stream(
        &self,
        id: u32,
        fin: bool,
        unidirectional: bool,
        headers: Headers,
    ) -> Result<(), StreamError> {
        let (shared, theirs) = (&self.shared, (id % 2 == 1) == (self.role == Role::Server));
        let Some(data) = self.data.upgrade() else { return Err(StreamError::Closed) };
        let opened = {
            let mut state = shared.lock();
            if !theirs || id <= state.last_seen {
                Err(PROTOCOL_ERROR)
            } else if state.streams.len() >= MAX_STREAMS || *shared.closing.borrow() {
                Err(REFUSED_STREAM)
            } else {
                state.last_seen = id;
                Ok(shared.open(&mut state, id, unidirectional, fin))
            }
        };
        let (queue, reset) = match opened {
            Ok(opened) => opened,
            Err(status) => {
                shared.push(Control::RstStream { stream: id, status });
                return Ok(());
            }
        };
        let reader = SpdyReader { id, queue, current: Bytes::new(), reset, shared: shared.clone() };
        let writer =
            SpdyWriter { id, queue: PollSender::new(data), shared: shared.clone(), shut: unidirectional };
        let stream = SpdyStream { id, headers, reader, writer, shared: shared.clone(), replied: None };
        // When nobody takes streams any more the error gives it back and dropping it refuses it.
        let _ = self.accept.send(Incoming { stream: Some(stream) }).await;
        Ok(())
    }
}

fn protocol(error: super::FrameError) -> StreamError {
    StreamError::Protocol(error.to_string())
}
