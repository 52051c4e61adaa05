//! Exec, attach and port-forward: from upgraded connections to the runtime's streams.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;
use xebec_cri::{AttachRequest, ContainerState, CriError, ExecRequest, RuntimeService, StreamSession};
use xebec_streaming::exec::{Options, RemoteStreams};
use xebec_streaming::{Endpoint, Outcome, Protocol};

use super::Door;
use super::relay::relay;
use super::routes::{Body, Params, switching, text};
use crate::machine::Observed;
use crate::spec;

/// Output still in flight when the process has ended may take this long.
const FLUSH: Duration = Duration::from_secs(10);

fn options(params: &Params) -> Options {
    Options {
        stdin: params.is_true(&["input", "stdin"]),
        stdout: params.is_true(&["output", "stdout"]),
        stderr: params.is_true(&["error", "stderr"]),
        tty: params.is_true(&["tty"]),
    }
}

/// What a stream is opened to.
enum What {
    Exec(ExecRequest),
    Attach(AttachRequest),
}

/// `/exec/{namespace}/{pod}/{container}`.
pub(super) async fn exec(
    door: &Arc<Door>,
    namespace: &str,
    pod: &str,
    container: &str,
    params: &Params,
    request: Request<Incoming>,
) -> Response<Body> {
    let command = params.all("command").to_vec();
    if command.is_empty() {
        return text(StatusCode::BAD_REQUEST, "you must specify at least 1 command");
    }
    let options = options(params);
    if !(options.stdin || options.stdout || options.stderr) {
        return text(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr");
    }
    let container_id = match running(door, namespace, pod, container).await {
        Ok(id) => id,
        Err(response) => return response,
    };
    let what = What::Exec(ExecRequest {
        container_id,
        command,
        tty: options.tty,
        stdin: options.stdin,
        stdout: options.stdout,
        stderr: options.stderr && !options.tty,
    });
    upgrade(door, request, options, what)
}

/// `/attach/{namespace}/{pod}/{container}`.
pub(super) async fn attach(
    door: &Arc<Door>,
    namespace: &str,
    pod: &str,
    container: &str,
    params: &Params,
    request: Request<Incoming>,
) -> Response<Body> {
    let mut options = options(params);
    // The terminal is the container's own: what the client says of it must not differ.
    let found = door.pod(namespace, pod);
    let tty = found.and_then(|p| spec::container(&p, container).and_then(|(_, c)| c.tty)).unwrap_or(false);
    options.tty = tty;
    let container_id = match running(door, namespace, pod, container).await {
        Ok(id) => id,
        Err(response) => return response,
    };
    let what = What::Attach(AttachRequest {
        container_id,
        stdin: options.stdin,
        stdout: options.stdout,
        stderr: options.stderr && !tty,
    });
    upgrade(door, request, options, what)
}

/// Id of a running container.
async fn running(door: &Door, namespace: &str, pod: &str, container: &str) -> Result<String, Response<Body>> {
    let Some(found) = door.pod(namespace, pod) else {
        return Err(text(StatusCode::NOT_FOUND, format!("pod does not exist: {pod}_{namespace}")));
    };
    let attempts = door.attempts(&found, container).await?;
    let first = attempts.into_iter().find(|c| c.state == ContainerState::Running);
    first
        .map(|c| c.id)
        .ok_or_else(|| text(StatusCode::NOT_FOUND, format!("container not found (\"{container}\")")))
}

fn upgrade(door: &Arc<Door>, mut request: Request<Incoming>, options: Options, what: What) -> Response<Body> {
    let handshake = match xebec_streaming::negotiate(Endpoint::Exec, request.headers()) {
        Ok(handshake) => handshake,
        Err(error) => return refused(&error),
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let runtime = door.shared.runtime.runtime.clone();
    let protocol = handshake.protocol;
    tokio::spawn(async move {
        match upgraded.await {
            Ok(io) => remote_command(TokioIo::new(io), protocol, options, runtime, what).await,
            Err(error) => tracing::debug!(%error, "upgrade"),
        }
    });
    switching(handshake.headers)
}

fn refused(error: &xebec_streaming::NegotiateError) -> Response<Body> {
    let mut response = text(error.status, error.message.clone());
    response.headers_mut().extend(error.headers());
    response
}

async fn remote_command<T: xebec_streaming::Io>(
    io: T,
    protocol: Protocol,
    options: Options,
    runtime: Arc<dyn RuntimeService>,
    what: What,
) {
    let streams = match xebec_streaming::exec::serve(io, protocol, options).await {
        Ok(streams) => streams,
        Err(error) => {
            tracing::debug!(%error, "streams of a remote command");
            return;
        }
    };
    // How the process ended is told to who started it; who only watched has seen the streams end, and all is well.
    let (session, tells_code) = match what {
        What::Exec(request) => (runtime.exec(request).await, true),
        What::Attach(request) => (runtime.attach(request).await, false),
    };
    match session {
        Ok(session) => bridge(streams, session, tells_code).await,
        Err(error) => streams.status.finish(&Outcome::Failed(error.to_string())).await,
    }
}

/// Copies until the process has ended or the client has left. `tells_code`: the client is told the exit code.
async fn bridge(streams: RemoteStreams, session: StreamSession, tells_code: bool) {
    let RemoteStreams { stdin, stdout, stderr, mut resize, status, mut closed } = streams;
    let mut outputs = JoinSet::new();
    for (from, to) in [(session.stdout, stdout), (session.stderr, stderr)] {
        if let (Some(mut from), Some(mut to)) = (from, to) {
            outputs.spawn(async move {
                // A client that has left is noticed below.
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    }
    let mut inputs = JoinSet::new();
    if let (Some(mut from), Some(mut to)) = (stdin, session.stdin) {
        inputs.spawn(async move {
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        });
    }
    let sizes = session.resize;
    inputs.spawn(async move {
        while let Some(size) = resize.recv().await {
            let size = xebec_cri::TerminalSize { width: size.width, height: size.height };
            if sizes.send(size).await.is_err() {
                return;
            }
        }
    });
    let exit = tokio::select! {
        exit = session.exit => exit,
        _ = closed.wait_for(|c| *c) => return,
    };
    let flushed = async { while outputs.join_next().await.is_some() {} };
    // A process that left its output to others must not hold the client.
    let _ = tokio::time::timeout(FLUSH, flushed).await;
    let outcome = match exit {
        Ok(Ok(exit)) => Outcome::Exited(if tells_code { exit.code } else { 0 }),
        Ok(Err(error)) => Outcome::Failed(error.to_string()),
        Err(_) => Outcome::Failed("the runtime went away".into()),
    };
    status.finish(&outcome).await;
}

/// `/portForward/{namespace}/{pod}`.
pub(super) async fn port_forward(
    door: &Arc<Door>,
    namespace: &str,
    name: &str,
    params: &Params,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let Some(pod) = door.pod(namespace, name) else {
        return text(StatusCode::NOT_FOUND, format!("pod does not exist: {name}_{namespace}"));
    };
    let runtime = door.shared.runtime.runtime.clone();
    let sandbox = match sandbox(door, spec::uid(&pod)).await {
        Ok(Some(id)) => id,
        Ok(None) => return text(StatusCode::NOT_FOUND, format!("pod {name} has no running sandbox")),
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let listed = params.all("port").iter().chain(params.all("ports")).flat_map(|p| p.split(','));
    let mut ports = Vec::new();
    for port in listed {
        match port.parse::<u16>() {
            Ok(port) if port > 0 => ports.push(port),
            _ => return text(StatusCode::BAD_REQUEST, format!("invalid port \"{port}\"")),
        }
    }
    let handshake = match xebec_streaming::negotiate(Endpoint::PortForward, request.headers()) {
        Ok(handshake) => handshake,
        Err(error) => return refused(&error),
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let protocol = handshake.protocol;
    tokio::spawn(async move {
        match upgraded.await {
            Ok(io) => forward(TokioIo::new(io), protocol, &ports, runtime, sandbox).await,
            Err(error) => tracing::debug!(%error, "upgrade"),
        }
    });
    switching(handshake.headers)
}

async fn sandbox(door: &Door, uid: &str) -> Result<Option<String>, CriError> {
    let dir = door.shared.message_dir(uid);
    let runtime = door.shared.runtime.runtime.as_ref();
    let observed: Observed =
        crate::worker::observe::observe(runtime, uid, &dir, &mut Default::default()).await?;
    Ok(observed.ready_sandbox().map(|s| s.id.clone()))
}

async fn forward<T: xebec_streaming::Io>(
    io: T,
    protocol: Protocol,
    ports: &[u16],
    runtime: Arc<dyn RuntimeService>,
    sandbox: String,
) {
    let mut forwards = match xebec_streaming::portforward::serve(io, protocol, ports).await {
        Ok(forwards) => forwards,
        Err(error) => {
            tracing::debug!(%error, "port-forward");
            return;
        }
    };
    let mut connections = JoinSet::new();
    loop {
        let forward = tokio::select! {
            forward = forwards.accept() => forward,
            Some(_) = connections.join_next(), if !connections.is_empty() => {
                if connections.is_empty() && forwards.is_exhausted() {
                    break;
                }
                continue;
            }
        };
        let Some(forward) = forward else { break };
        connections.spawn(forward_one(forward, runtime.clone(), sandbox.clone()));
    }
    forwards.close().await;
}

async fn forward_one(
    forward: xebec_streaming::portforward::Forward,
    runtime: Arc<dyn RuntimeService>,
    sandbox: String,
) {
    let xebec_streaming::portforward::Forward { port, mut data, mut error } = forward;
    let failure = match runtime.port_forward(&sandbox, port).await {
        Ok(mut pod) => relay(&mut data, &mut pod).await.err().map(|e| e.to_string()),
        Err(e) => Some(e.to_string()),
    };
    if let Some(message) = failure {
        let message = format!("error forwarding port {port} to pod {sandbox}: {message}");
        // The client may have left.
        let _ = error.write_all(message.as_bytes()).await;
    }
    let _ = error.shutdown().await;
    let _ = data.shutdown().await;
}
