//! `/containerLogs/{namespace}/{pod}/{container}`.

use std::sync::Arc;

use futures::StreamExt as _;
use http::{Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use xebec_cri::{ContainerEventKind, ContainerState};

use super::Door;
use super::routes::{Body, Params, text};
use crate::logs::read::{Options, read};
use crate::spec;

/// Chunks that may wait for a slow reader.
const QUEUE: usize = 16;

fn options(params: &Params) -> Result<Options, String> {
    let number = |name: &str| -> Result<Option<u64>, String> {
        match params.one(name) {
            None => Ok(None),
            Some(value) => {
                value.parse().map(Some).map_err(|_| format!("{name} must be a number that is not negative"))
            }
        }
    };
    let since = match (number("sinceSeconds")?, params.one("sinceTime")) {
        (Some(seconds), _) => {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX / 2_000_000_000);
            Timestamp::now().checked_sub(SignedDuration::from_secs(seconds)).ok()
        }
        (None, Some(time)) => Some(time.parse().map_err(|_| "sinceTime must be RFC 3339".to_owned())?),
        (None, None) => None,
    };
    let stream = match params.one("stream") {
        None | Some("All") => None,
        Some("Stdout") => Some("stdout".to_owned()),
        Some("Stderr") => Some("stderr".to_owned()),
        Some(_) => return Err("stream must be All, Stdout or Stderr".into()),
    };
    Ok(Options {
        follow: params.is_true(&["follow"]),
        tail: number("tailLines")?,
        since,
        timestamps: params.is_true(&["timestamps"]),
        limit: number("limitBytes")?,
        stream,
    })
}

/// Streams a container's log.
pub(super) async fn logs(
    door: &Arc<Door>,
    namespace: &str,
    name: &str,
    container: &str,
    params: &Params,
) -> Response<Body> {
    let options = match options(params) {
        Ok(options) => options,
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let Some(pod) = door.pod(namespace, name) else {
        return text(StatusCode::NOT_FOUND, format!("pod \"{name}\" does not exist\n"));
    };
    if spec::container(&pod, container).is_none() {
        let message = format!("container \"{container}\" not found in pod \"{name}\"\n");
        return text(StatusCode::NOT_FOUND, message);
    }
    let attempts = match door.attempts(&pod, container).await {
        Ok(attempts) => attempts,
        Err(response) => return response,
    };
    let previous = params.is_true(&["previous"]);
    let chosen = if previous {
        // The last one that ended before the one that runs or is about to.
        let latest_ended = attempts.first().is_some_and(|c| c.state == ContainerState::Exited);
        let restarting = latest_ended && waits(door, &pod, container);
        attempts.get(usize::from(!restarting))
    } else {
        attempts.first()
    };
    let Some(status) = chosen else {
        let message = match previous {
            true => format!("previous terminated container \"{container}\" in pod \"{name}\" not found"),
            false => format!(
                "container \"{container}\" in pod \"{name}\" is waiting to start: {}",
                reason(&pod, container)
            ),
        };
        return text(StatusCode::BAD_REQUEST, message);
    };
    let ended = CancellationToken::new();
    if options.follow {
        watch_end(door, &status.id, ended.clone()).await;
    }
    let (out, chunks) = mpsc::channel(QUEUE);
    let path = status.log_path.clone();
    tokio::spawn(async move {
        if let Err(error) = read(path, options, ended, out.clone()).await {
            let _ = out.send(Err(error)).await;
        }
    });
    let stream = futures::stream::unfold(chunks, |mut chunks| async move {
        let chunk = chunks.recv().await?;
        Some((chunk.map(Frame::data), chunks))
    });
    let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
    let kind = header::HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn state(pod: &k8s_openapi::api::core::v1::Pod, container: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let mut all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    all.find(|s| s.name == container)?.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

fn reason(pod: &k8s_openapi::api::core::v1::Pod, container: &str) -> String {
    state(pod, container).unwrap_or_else(|| "ContainerCreating".into())
}

fn waits(door: &Door, pod: &k8s_openapi::api::core::v1::Pod, container: &str) -> bool {
    let current = door.pod(spec::namespace(pod), spec::name(pod));
    current.is_some_and(|pod| state(&pod, container).is_some())
}

/// Cancels the token when the container has ended.
async fn watch_end(door: &Arc<Door>, id: &str, ended: CancellationToken) {
    let runtime = door.shared.runtime.runtime.clone();
    // Subscribed before the state is asked for, so that an end in between is not missed.
    let events = runtime.events().await;
    let runs = runtime.container_status(id).await.is_ok_and(|s| s.state == ContainerState::Running);
    let (Ok(mut events), true) = (events, runs) else {
        ended.cancel();
        return;
    };
    let id = id.to_owned();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            let over = matches!(event.kind, ContainerEventKind::Stopped | ContainerEventKind::Deleted);
            if event.container_id == id && over {
                break;
            }
        }
        ended.cancel();
    });
}
