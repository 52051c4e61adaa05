//! Client and server against each other in memory, for every protocol.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use xebec_streaming::exec::{self, Options};
use xebec_streaming::{Outcome, Protocol, TerminalSize, Wire, client, portforward};

const BIG: usize = 8 << 20;

fn protocols() -> Vec<Protocol> {
    let p = |wire, version| Protocol { wire, version };
    vec![
        p(Wire::Spdy, 1),
        p(Wire::Spdy, 3),
        p(Wire::Spdy, 4),
        p(Wire::WebSocket, 0),
        p(Wire::WebSocket, 4),
        p(Wire::WebSocket, 5),
        p(Wire::WebSocketBase64, 4),
    ]
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("finishes in time")
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 253) as u8).collect()
}

#[tokio::test]
async fn a_command_echoes_and_ends() {
    for protocol in protocols() {
        let (a, b) = tokio::io::duplex(4096);
        let options = Options { stdin: true, stdout: true, stderr: true, tty: false };
        let server = tokio::spawn(async move {
            let mut streams = exec::serve(a, protocol, options).await.unwrap();
            let mut stdin = streams.stdin.take().unwrap();
            let mut line = [0; 5];
            stdin.read_exact(&mut line).await.unwrap();
            streams.stdout.as_mut().unwrap().write_all(&line).await.unwrap();
            streams.stderr.as_mut().unwrap().write_all(b"oops").await.unwrap();
            streams.status.finish(&Outcome::Exited(3)).await;
        });
        let mut command = within(client::exec(b, protocol, options)).await.unwrap();
        command.stdin.as_mut().unwrap().write_all(b"hello").await.unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let (mut stdout, mut stderr) = (command.stdout.take().unwrap(), command.stderr.take().unwrap());
        within(async { tokio::try_join!(stdout.read_to_end(&mut out), stderr.read_to_end(&mut err)) })
            .await
            .unwrap();
        assert_eq!((out.as_slice(), err.as_slice()), (&b"hello"[..], &b"oops"[..]), "{protocol:?}");
        let outcome = within(command.wait()).await.unwrap();
        match protocol.version {
            4.. => assert_eq!(outcome, Outcome::Exited(3), "{protocol:?}"),
            _ => assert!(
                matches!(outcome, Outcome::Failed(text) if text.ends_with("exit status 3")),
                "{protocol:?}"
            ),
        }
        within(server).await.unwrap();
    }
}

#[tokio::test]
async fn half_close_ends_stdin_only() {
    for protocol in
        [Protocol { wire: Wire::Spdy, version: 4 }, Protocol { wire: Wire::WebSocket, version: 5 }]
    {
        let (a, b) = tokio::io::duplex(64 * 1024);
        let options = Options { stdin: true, stdout: true, ..Options::default() };
        let server = tokio::spawn(async move {
            let mut streams = exec::serve(a, protocol, options).await.unwrap();
            let mut all = Vec::new();
            streams.stdin.take().unwrap().read_to_end(&mut all).await.unwrap();
            let mut stdout = streams.stdout.take().unwrap();
            stdout.write_all(&all).await.unwrap();
            stdout.shutdown().await.unwrap();
            streams.status.finish(&Outcome::Exited(0)).await;
        });
        let mut command = within(client::exec(b, protocol, options)).await.unwrap();
        let sent = pattern(BIG);
        let mut stdin = command.stdin.take().unwrap();
        let copy = sent.clone();
        let writing = tokio::spawn(async move {
            stdin.write_all(&copy).await.unwrap();
            stdin.shutdown().await.unwrap();
        });
        let mut out = Vec::new();
        within(command.stdout.take().unwrap().read_to_end(&mut out)).await.unwrap();
        assert!(out == sent, "{protocol:?}: {} bytes", out.len());
        assert_eq!(within(command.wait()).await.unwrap(), Outcome::Exited(0));
        within(writing).await.unwrap();
        within(server).await.unwrap();
    }
}

#[tokio::test]
async fn terminals_have_sizes_and_no_stderr() {
    for protocol in
        [Protocol { wire: Wire::Spdy, version: 4 }, Protocol { wire: Wire::WebSocket, version: 5 }]
    {
        let (a, b) = tokio::io::duplex(4096);
        let options = Options { stdin: true, stdout: true, stderr: true, tty: true };
        let server = tokio::spawn(async move {
            let mut streams = exec::serve(a, protocol, options).await.unwrap();
            assert!(streams.stderr.is_none());
            let first = streams.resize.recv().await.unwrap();
            let second = streams.resize.recv().await.unwrap();
            streams.status.finish(&Outcome::Failed("no shell".to_owned())).await;
            (first, second)
        });
        let mut command = within(client::exec(b, protocol, options)).await.unwrap();
        let size = |width, height| TerminalSize { width, height };
        command.resize(size(80, 24)).await.unwrap();
        command.resize(size(132, 50)).await.unwrap();
        assert_eq!(within(server).await.unwrap(), (size(80, 24), size(132, 50)));
        let outcome = within(command.wait()).await.unwrap();
        assert_eq!(outcome, Outcome::Failed("Internal error occurred: no shell".to_owned()));
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed() {
    for protocol in protocols() {
        let (a, b) = tokio::io::duplex(4096);
        let options = Options { stdin: true, stdout: true, ..Options::default() };
        let server = tokio::spawn(async move {
            let mut streams = exec::serve(a, protocol, options).await.unwrap();
            streams.closed.wait_for(|c| *c).await.unwrap();
            let mut stdout = streams.stdout.take().unwrap();
            // Queues are bounded, so that it is noticed after some writes at the latest.
            while stdout.write_all(&[0; 4096]).await.is_ok() {}
        });
        let command = within(client::exec(b, protocol, options)).await.unwrap();
        drop(command);
        within(server).await.unwrap();
    }
}

async fn forward_echo(mut forwards: portforward::Forwards) {
    while let Some(mut forward) = forwards.accept().await {
        tokio::spawn(async move {
            if forward.port == 81 {
                forward.error.write_all(b"connection refused").await.unwrap();
                return;
            }
            let (mut read, mut write) = tokio::io::split(&mut forward.data);
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
        });
    }
}

#[tokio::test]
async fn ports_are_forwarded_both_ways_at_once() {
    for wire in [Wire::Spdy, Wire::WebSocketTunnel] {
        let protocol = Protocol { wire, version: 1 };
        let (a, b) = tokio::io::duplex(16 * 1024);
        let server = tokio::spawn(async move {
            forward_echo(portforward::serve(a, protocol, &[]).await.unwrap()).await;
        });
        let mut forwarder = client::PortForwarder::start(b, protocol).await.unwrap();
        let mut running = Vec::new();
        for i in 0..4 {
            let mut forwarded = within(forwarder.connect(80)).await.unwrap();
            running.push(tokio::spawn(async move {
                let sent = pattern(BIG / 4 + i);
                let (mut read, mut write) = tokio::io::split(&mut forwarded.data);
                let mut got = Vec::new();
                let send = async {
                    write.write_all(&sent).await.unwrap();
                    write.shutdown().await.unwrap();
                };
                let (_, received) = tokio::join!(send, read.read_to_end(&mut got));
                received.unwrap();
                assert!(got == sent);
                forwarded.failure().await.unwrap()
            }));
        }
        let refused = within(forwarder.connect(81)).await.unwrap();
        assert_eq!(within(refused.failure()).await.unwrap().as_deref(), Some("connection refused"));
        for task in running {
            assert_eq!(within(task).await.unwrap(), None);
        }
        within(forwarder.close()).await;
        within(server).await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_nobody_reads_does_not_stop_others() {
    let protocol = Protocol { wire: Wire::Spdy, version: 1 };
    let (a, b) = tokio::io::duplex(16 * 1024);
    // The server announces a window too small to fill the queue of the stream that nobody reads.
    let mut server = xebec_streaming::spdy::Session::start(a, xebec_streaming::spdy::Role::Server, 16 * 1024);
    let mut forwarder = client::PortForwarder::start(b, protocol).await.unwrap();
    let connecting = tokio::spawn(async move {
        let idle = forwarder.connect(1).await.unwrap();
        let busy = forwarder.connect(2).await.unwrap();
        (forwarder, idle, busy)
    });
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(within(server.accept()).await.unwrap().accept());
    }
    let (_forwarder, mut idle, mut busy) = within(connecting).await.unwrap();
    let mut queued = 0;
    while let Ok(n) = tokio::time::timeout(Duration::from_millis(100), idle.data.write(&[7; 4096])).await {
        queued += n.unwrap();
    }
    assert_eq!(queued, 16 * 1024, "the window holds");
    let mut busy_server = streams.pop().unwrap();
    let text = pattern(1 << 20);
    let sent = text.clone();
    let writing = tokio::spawn(async move { busy.data.write_all(&sent).await.map(|()| busy) });
    let mut got = vec![0; text.len()];
    within(busy_server.read_exact(&mut got)).await.unwrap();
    assert!(got == text);
    within(writing).await.unwrap().unwrap();
}

#[tokio::test]
async fn garbage_ends_the_session() {
    for protocol in protocols() {
        let (a, mut b) = tokio::io::duplex(4096);
        let server = tokio::spawn(async move {
            let options = Options { stdin: true, ..Options::default() };
            match exec::serve(a, protocol, options).await {
                Ok(mut streams) => streams.closed.wait_for(|c| *c).await.map(|_| ()).unwrap(),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        });
        // It may be closed before all of it is written.
        let _ = b.write_all(&[0xff; 64]).await;
        drop(b);
        within(server).await.unwrap();
    }
}
