//! What the runtime holds for a pod, with the last words of ended containers.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use xebec_cri::{ContainerFilter, ContainerState, ContainerStatus, CriError, RuntimeService, SandboxFilter};

use crate::labels;
use crate::machine::{Observed, ObservedContainer};

/// Longest termination message (upstream).
const MAX_MESSAGE: u64 = 4096;
/// Longest message taken from the log.
const MAX_LOG_MESSAGE: u64 = 2048;
/// Most lines taken from the log.
const MAX_LOG_LINES: usize = 80;

/// Lists a pod's sandboxes (newest first) and containers (highest attempt first).
pub async fn observe(
    runtime: &dyn RuntimeService,
    uid: &str,
    message_dir: &Path,
    messages: &mut BTreeMap<String, Option<String>>,
) -> Result<Observed, CriError> {
    let of_pod = BTreeMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]);
    let filter = SandboxFilter { labels: of_pod.clone(), ..SandboxFilter::default() };
    let mut sandboxes = runtime.list_pod_sandboxes(&filter).await?;
    sandboxes.sort_by_key(|s| std::cmp::Reverse((s.metadata.attempt, s.created_at)));
    let filter = ContainerFilter { labels: of_pod, ..ContainerFilter::default() };
    let mut containers = runtime.list_containers(&filter).await?;
    containers.sort_by_key(|c| std::cmp::Reverse((c.metadata.attempt, c.created_at)));
    messages.retain(|id, _| containers.iter().any(|c| c.id == *id));
    let containers = containers
        .into_iter()
        .map(|status| {
            let ended = status.state == ContainerState::Exited;
            let message = ended.then(|| {
                let known = messages.entry(status.id.clone());
                known.or_insert_with(|| last_words(&status, message_dir)).clone()
            });
            ObservedContainer { message: message.flatten(), status }
        })
        .collect();
    Ok(Observed { sandboxes, containers })
}

/// File into which an attempt of a container writes its termination message.
pub fn message_file(dir: &Path, container: &str, attempt: u32) -> std::path::PathBuf {
    dir.join(container).join(attempt.to_string())
}

fn last_words(status: &ContainerStatus, dir: &Path) -> Option<String> {
    let path = message_file(dir, &status.metadata.name, status.metadata.attempt);
    let mut text = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        // An unreadable message is no message.
        let _ = file.take(MAX_MESSAGE).read_to_end(&mut text);
    }
    let fallback =
        status.annotations.get(labels::MESSAGE_POLICY).is_some_and(|p| p == "FallbackToLogsOnError");
    if text.is_empty() && fallback && status.exit_code != Some(0) {
        return log_tail(&status.log_path);
    }
    (!text.is_empty()).then(|| String::from_utf8_lossy(&text).into_owned())
}

fn log_tail(path: &Path) -> Option<String> {
    let mut file = std::fs::File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    // CRI adds about 50 bytes to every line.
    let window = MAX_LOG_MESSAGE + 64 * MAX_LOG_LINES as u64;
    file.seek(SeekFrom::Start(size.saturating_sub(window))).ok()?;
    let mut raw = Vec::new();
    file.take(window).read_to_end(&mut raw).ok()?;
    let text = String::from_utf8_lossy(&raw);
    let lines = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3));
    let lines: Vec<_> = lines.collect();
    let mut tail = lines[lines.len().saturating_sub(MAX_LOG_LINES)..].join("\n");
    if !tail.is_empty() {
        tail.push('\n');
    }
    let cut = tail.len().saturating_sub(MAX_LOG_MESSAGE as usize);
    let cut = (cut..=tail.len()).find(|at| tail.is_char_boundary(*at)).unwrap_or(0);
    Some(tail.split_off(cut)).filter(|t| !t.is_empty())
}
