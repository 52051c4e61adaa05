//! Beginning actions and taking in their results.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Preconditions};

use super::{Done, Shared, Worker, hooks, killing, start};
use crate::build;
use crate::machine::{Action, Busy, Failure, Observed, RestartBackoff, Retry};
use crate::spec::{self, Qos};

/// Pause before volumes or sandbox are tried again.
const POD_RETRY: SignedDuration = SignedDuration::from_secs(3);
/// Pause before volumes that are there are rendered again after a failure.
const VOLUME_RETRY: std::time::Duration = std::time::Duration::from_secs(10);
/// Pause before the end of a pod is tried again.
const END_RETRY: std::time::Duration = std::time::Duration::from_secs(1);

impl Worker {
    /// Begins an action; its result comes back through `done`.
    pub(super) fn begin(&mut self, pod: &Arc<Pod>, observed: &Observed, action: Action, gone: bool) {
        let shared = self.shared.clone();
        match action {
            Action::SetupVolumes => {
                self.memory.pod_busy = true;
                let pod = pod.clone();
                self.tasks.spawn(async move {
                    Done::Volumes(shared.volumes.setup(&pod, shared.objects.as_ref(), &shared.facts).await)
                });
            }
            Action::CreateSandbox { attempt } => {
                self.memory.pod_busy = true;
                let pod = pod.clone();
                self.tasks.spawn(async move { Done::Sandbox(create_sandbox(&shared, &pod, attempt).await) });
            }
            Action::StopSandbox { id } => {
                self.memory.pod_busy = true;
                self.shared.events.pod(
                    pod,
                    None,
                    false,
                    "SandboxChanged",
                    "Pod sandbox changed, it will be killed and re-created.",
                );
                let runtime = shared.runtime.runtime.clone();
                self.tasks
                    .spawn(async move { Done::SandboxStopped(paced(runtime.stop_pod_sandbox(&id)).await) });
            }
            Action::Start { name, attempt, sandbox } => self.start(pod, observed, name, attempt, sandbox),
            Action::BackOff { name } => self.back_off(pod, &name),
            Action::Kill { id, name, grace, why } => {
                self.shared.events.pod(pod, Some(&name), false, "Killing", killing(&name, &why));
                self.memory.of_mut(&name).busy = Some(Busy::Killing(grace));
                let (pod, ip) = (pod.clone(), self.pod_ip(pod, observed));
                self.tasks.spawn(async move {
                    let result = paced(hooks::kill(&shared, &pod, &name, &id, ip, grace)).await;
                    Done::Killed { name, grace, result }
                });
            }
            Action::CleanUp { remove } => {
                self.memory.pod_busy = true;
                self.watchdogs.clear();
                let (uid, qos) =
                    (spec::uid(pod).to_owned(), pod.spec.as_ref().map_or(Qos::BestEffort, spec::qos));
                let sandboxes: Vec<_> = observed.sandboxes.iter().map(|s| s.id.clone()).collect();
                let left: Vec<_> = observed.containers.iter().map(|c| c.status.id.clone()).collect();
                self.tasks.spawn(async move {
                    {
                        let cgroup = qos.cgroup(&uid);
                        Done::Cleaned(
                            paced(clean_up(&shared, &uid, &cgroup, &sandboxes, &left, remove)).await,
                        )
                    }
                });
            }
            Action::Delete if gone => self.finished = true,
            Action::Delete => self.delete(pod),
        }
    }

    fn start(&mut self, pod: &Arc<Pod>, observed: &Observed, name: String, attempt: u32, sandbox: String) {
        let now = Timestamp::now();
        let dead = observed.latest(&name).map(|c| {
            let at = c.status.finished_at.unwrap_or(c.status.created_at);
            Timestamp::try_from(at).unwrap_or(now)
        });
        let memory = self.memory.of_mut(&name);
        memory.busy = Some(Busy::Starting);
        // A try that follows a start without a container belongs to the restart that was counted before.
        if let Some(ended) = dead.filter(|_| memory.failure.as_ref().is_none_or(|failure| failure.crashed)) {
            memory.restart = Some(RestartBackoff::next(memory.restart, ended, now));
        }
        self.backing_off.remove(&name);
        let job = start::Job {
            shared: self.shared.clone(),
            pod: self.with_status(pod),
            name: name.clone(),
            attempt,
            sandbox,
            volumes: self.mounted.paths.clone(),
            ip: self.pod_ip(pod, observed),
            ips: observed.ready_sandbox().map(|s| s.ips.clone()).unwrap_or_default(),
        };
        self.tasks.spawn(async move { Done::Started { name, attempt, result: job.run().await } });
    }

    /// The pod with the status as it is now, for fields such as `status.podIP`.
    fn with_status(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        let mut pod = Pod::clone(pod);
        pod.status = Some(self.status.clone());
        Arc::new(pod)
    }

    /// Says once per wait that a container waits.
    fn back_off(&mut self, pod: &Pod, name: &str) {
        let now = Timestamp::now();
        let memory = self.memory.of_mut(name);
        let failure = memory.failure.as_mut().filter(|failure| failure.holds(now));
        if failure.as_ref().is_some_and(|failure| failure.crashed) {
            return;
        }
        let until = failure.as_ref().map_or(now, |f| f.retry_at);
        if self.backing_off.insert(name.to_owned(), until).is_some() {
            return;
        }
        if let Some(failure) = failure {
            if failure.reason == "ErrImagePull" {
                let image = spec::container(pod, name).and_then(|(_, c)| c.image.clone()).unwrap_or_default();
                let message = format!("Back-off pulling image \"{image}\"");
                self.shared.events.pod(pod, Some(name), false, "BackOff", message.clone());
                self.shared.events.pod(pod, Some(name), true, "Failed", "Error: ImagePullBackOff");
                failure.backoff_message = Some(format!("{message}: ErrImagePull: {}", failure.message));
                failure.backoff_reason = Some("ImagePullBackOff".into());
            }
            return;
        }
        let message = format!("Back-off restarting failed container {name} in pod {}", spec::display(pod));
        self.shared.events.pod(pod, Some(name), true, "BackOff", message);
    }

    fn delete(&mut self, pod: &Pod) {
        if std::mem::replace(&mut self.deleting, true) {
            return;
        }
        let api: Api<Pod> = Api::namespaced(self.shared.client.clone(), spec::namespace(pod));
        let (name, uid) = (spec::name(pod).to_owned(), spec::uid(pod).to_owned());
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(uid), resource_version: None }),
            ..DeleteParams::default()
        };
        self.tasks.spawn(async move { Done::Deleted(api.delete(&name, &params).await.map(drop)) });
    }

    /// Takes in the result of an action.
    pub(super) fn done(&mut self, done: Done) {
        let pod = self.orders.borrow().pod.clone();
        let now = Timestamp::now();
        match done {
            Done::Volumes(result) => self.volumes_done(&pod, result),
            Done::Sandbox(result) => {
                self.memory.pod_busy = false;
                if let Err(error) = result {
                    self.memory.sandbox_retry = Some(now + POD_RETRY);
                    let message = format!("Failed to create pod sandbox: {error}");
                    self.shared.events.pod(&pod, None, true, "FailedCreatePodSandBox", message);
                }
            }
            Done::SandboxStopped(result) => {
                self.memory.pod_busy = false;
                if let Err(error) = result {
                    let message = format!("error killing pod: {error}");
                    self.shared.events.pod(&pod, None, true, "FailedKillPod", message);
                }
            }
            Done::Started { name, attempt, result } => self.started(&pod, &name, attempt, result),
            Done::Killed { name, grace, result } => {
                let memory = self.memory.of_mut(&name);
                if memory.busy == Some(Busy::Killing(grace)) {
                    memory.busy = None;
                }
                if let Err(error) = result {
                    tracing::warn!(%error, container = name, "container does not stop");
                }
            }
            Done::Cleaned(Ok(())) => {
                self.memory.pod_busy = false;
                self.memory.cleaned = true;
                let objects = self.shared.objects.clone();
                self.tasks.spawn(async move {
                    objects.forget_tokens(spec::uid(&pod)).await;
                    Done::Housekeeping
                });
            }
            Done::Cleaned(Err(message)) => {
                tracing::warn!(pod = spec::name(&pod), message, "cannot clean up after a pod yet");
                self.memory.pod_busy = false;
            }
            Done::Reported { status, result } => self.reported(*status, result),
            Done::Deleted(result) => {
                let gone =
                    |e: &kube::Error| matches!(e, kube::Error::Api(s) if s.code == 404 || s.code == 409);
                match result {
                    Ok(()) => self.finished = true,
                    Err(e) if gone(&e) => self.finished = true,
                    Err(error) => {
                        tracing::debug!(%error, "final delete of a pod");
                        self.deleting = false;
                        self.report_retry = SignedDuration::try_from(END_RETRY).ok().map(|d| now + d);
                    }
                }
            }
            Done::Housekeeping => {}
        }
    }

    fn volumes_done(
        &mut self,
        pod: &Pod,
        result: Result<xebec_volumes::Mounted, (String, xebec_volumes::VolumeError)>,
    ) {
        self.memory.pod_busy = false;
        match result {
            Ok(mounted) => {
                self.mounted = mounted;
                self.memory.volumes_ready = true;
            }
            Err((volume, error)) => {
                // A pod whose volumes were there goes on with them; the next change or retry renders again.
                self.memory.volumes_ready = !self.mounted.paths.is_empty();
                self.memory.volumes_retry = Some(Timestamp::now() + POD_RETRY);
                if self.memory.volumes_ready {
                    self.mounted.refresh_at = Some(std::time::SystemTime::now() + VOLUME_RETRY);
                }
                let message = format!("MountVolume.SetUp failed for volume \"{volume}\" : {error}");
                self.shared.events.pod(pod, None, true, "FailedMount", message);
            }
        }
    }

    fn started(&mut self, pod: &Pod, name: &str, attempt: u32, result: Result<(), start::StartError>) {
        let memory = self.memory.of_mut(name);
        memory.busy = None;
        match result {
            Ok(()) => memory.failure = None,
            Err(error) => {
                if error.event {
                    let message = format!("Error: {}", error.message);
                    self.shared.events.pod(pod, Some(name), true, "Failed", message);
                }
                let previous = memory.failure.take();
                let retry = match error.reason {
                    "ErrImagePull" => Retry::Doubling,
                    "RunContainerError" => Retry::Crash,
                    _ => Retry::Steady,
                };
                let now = Timestamp::now();
                let failure =
                    Failure::new(previous.as_ref(), error.reason, error.message, retry, attempt, now);
                // A hook's failure has killed a container that did start: crash back-off applies, not this one.
                memory.failure = (error.reason != "PostStartHookError").then_some(failure);
            }
        }
    }
}

/// Holds back a failure for a moment: the plan asks for the same again as soon as it is known.
async fn paced<E>(work: impl Future<Output = Result<(), E>>) -> Result<(), E> {
    let result = work.await;
    if result.is_err() {
        tokio::time::sleep(END_RETRY).await;
    }
    result
}

async fn create_sandbox(shared: &Shared, pod: &Pod, attempt: u32) -> Result<(), xebec_cri::CriError> {
    let config = &shared.config;
    let dns = build::resolv::pod_dns(pod, &shared.host_dns, &config.cluster_dns, &config.cluster_domain);
    let input = build::sandbox::SandboxInput {
        attempt,
        log_root: config.log_dir.clone(),
        dns,
        cluster_domain: config.cluster_domain.clone(),
    };
    let sandbox = build::sandbox::sandbox(pod, input);
    let failed = |e| xebec_cri::CriError::failed("create log directory", e);
    tokio::fs::create_dir_all(&sandbox.log_directory).await.map_err(failed)?;
    let resources = pod.spec.as_ref().map(build::resources::pod).unwrap_or_default();
    shared.runtime.runtime.ensure_pod_cgroup(&sandbox.cgroup_parent, &resources).await?;
    shared.runtime.runtime.run_pod_sandbox(sandbox).await.map(drop)
}

/// Stops sandboxes and, with `remove`, removes them with containers and logs; then volumes and cgroup.
pub(crate) async fn clean_up(
    shared: &Shared,
    uid: &str,
    cgroup: &str,
    sandboxes: &[String],
    containers: &[String],
    remove: bool,
) -> Result<(), String> {
    let runtime = &shared.runtime.runtime;
    let text = |e: xebec_cri::CriError| e.to_string();
    for id in sandboxes {
        runtime.stop_pod_sandbox(id).await.map_err(text)?;
    }
    if remove {
        for id in containers {
            runtime.remove_container(id).await.map_err(text)?;
        }
        for id in sandboxes {
            runtime.remove_pod_sandbox(id).await.map_err(text)?;
        }
        remove_logs(&shared.config.log_dir, uid).await;
        shared.volumes.teardown(uid).await.map_err(|e| e.to_string())?;
        runtime.remove_pod_cgroup(cgroup).await.map_err(text)?;
    }
    Ok(())
}

async fn remove_logs(root: &std::path::Path, uid: &str) {
    let Ok(mut entries) = tokio::fs::read_dir(root).await else { return };
    let suffix = format!("_{uid}");
    while let Ok(Some(entry)) = entries.next_entry().await {
        if entry.file_name().to_string_lossy().ends_with(&suffix) {
            // What cannot be removed now is removed with the node.
            let _ = tokio::fs::remove_dir_all(entry.path()).await;
        }
    }
}
