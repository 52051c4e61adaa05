//! A container runtime in memory. Containers run until they are stopped, told to end ([`FakeRuntime::exit`]), or at
//! once when their image is called `exit:<code>`. The image `missing` cannot be pulled.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{broadcast, mpsc, oneshot};
use xebec_cri::*;

#[derive(Default)]
struct State {
    next: u32,
    sandboxes: BTreeMap<String, (SandboxStatus, PathBuf)>,
    containers: BTreeMap<String, (ContainerStatus, ContainerConfig)>,
    images: Vec<String>,
    pinned: Vec<String>,
    cgroups: Vec<String>,
    calls: Vec<String>,
    exec_code: i32,
}

#[derive(Clone)]
pub struct FakeRuntime {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<ContainerEvent>,
}

fn has_labels(own: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(k, v)| own.get(k) == Some(v))
}

impl FakeRuntime {
    pub fn new() -> Self {
        Self { state: Arc::default(), events: broadcast::Sender::new(1024) }
    }

    pub fn services(&self) -> Runtime {
        Runtime { runtime: Arc::new(self.clone()), images: Arc::new(self.clone()) }
    }

    /// What was asked of the runtime, in order.
    pub fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    /// Configuration of the newest container of this name.
    pub fn config(&self, name: &str) -> ContainerConfig {
        let state = self.state.lock().unwrap();
        let all = state.containers.values().filter(|(s, _)| s.metadata.name == name);
        all.max_by_key(|(s, _)| s.metadata.attempt).unwrap().1.clone()
    }

    /// Ids of running containers.
    pub fn running(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let all = state.containers.values().filter(|(s, _)| s.state == ContainerState::Running);
        all.map(|(s, _)| s.id.clone()).collect()
    }

    pub fn is_empty(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.containers.is_empty() && state.sandboxes.is_empty() && state.cgroups.is_empty()
    }

    /// Code with which commands in containers end from now on.
    pub fn set_exec_code(&self, code: i32) {
        self.state.lock().unwrap().exec_code = code;
    }

    /// Puts an image there that nobody asked for.
    pub fn add_image(&self, reference: &str, pinned: bool) {
        let mut state = self.state.lock().unwrap();
        state.images.push(reference.into());
        if pinned {
            state.pinned.push(reference.into());
        }
    }

    /// Ends the running container of this name.
    pub fn exit(&self, name: &str, code: i32) {
        let id = {
            let state = self.state.lock().unwrap();
            let mut all = state.containers.values();
            let found = all.find(|(s, _)| s.metadata.name == name && s.state == ContainerState::Running);
            found.unwrap().0.id.clone()
        };
        self.end(&id, code);
    }

    fn end(&self, id: &str, code: i32) {
        let mut state = self.state.lock().unwrap();
        let Some((status, _)) = state.containers.get_mut(id) else { return };
        if status.state != ContainerState::Running {
            return;
        }
        status.state = ContainerState::Exited;
        status.exit_code = Some(code);
        status.finished_at = Some(SystemTime::now());
        status.reason = if code == 0 { "Completed" } else { "Error" }.into();
        let status = status.clone();
        drop(state);
        self.tell(&status, ContainerEventKind::Stopped);
    }

    fn tell(&self, status: &ContainerStatus, kind: ContainerEventKind) {
        let pod_uid = status.labels.get("io.kubernetes.pod.uid").cloned().unwrap_or_default();
        let _ = self.events.send(ContainerEvent {
            container_id: status.id.clone(),
            sandbox_id: status.sandbox_id.clone(),
            pod_uid,
            kind,
            at: SystemTime::now(),
        });
    }

    fn call(&self, text: String) {
        self.state.lock().unwrap().calls.push(text);
    }

    fn not_found(id: &str) -> CriError {
        CriError::NotFound { what: "container", id: id.into() }
    }
}

#[async_trait]
impl RuntimeService for FakeRuntime {
    async fn info(&self) -> Result<RuntimeInfo, CriError> {
        Ok(RuntimeInfo {
            name: "xebec".into(),
            version: "0".into(),
            runtime_ready: Ok(()),
            network_ready: Ok(()),
        })
    }

    async fn run_pod_sandbox(&self, config: SandboxConfig) -> Result<String, CriError> {
        self.call(format!("sandbox {}", config.metadata.name));
        let mut state = self.state.lock().unwrap();
        state.next += 1;
        let id = format!("s{}", state.next);
        let ip = format!("10.244.0.{}", state.next + 1).parse().unwrap();
        let host = config.namespaces.network == NamespaceMode::Node;
        let status = SandboxStatus {
            id: id.clone(),
            metadata: config.metadata,
            state: SandboxState::Ready,
            created_at: SystemTime::now(),
            ips: if host { vec![] } else { vec![ip] },
            netns: None,
            namespaces: config.namespaces,
            labels: config.labels,
            annotations: config.annotations,
        };
        state.sandboxes.insert(id.clone(), (status, config.log_directory));
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        let inside: Vec<_> = {
            let mut state = self.state.lock().unwrap();
            if let Some((s, _)) = state.sandboxes.get_mut(id) {
                s.state = SandboxState::NotReady;
            }
            let inside = state.containers.values().filter(|(c, _)| c.sandbox_id == id);
            inside.map(|(c, _)| c.id.clone()).collect()
        };
        inside.iter().for_each(|c| self.end(c, 137));
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), CriError> {
        let mut state = self.state.lock().unwrap();
        state.containers.retain(|_, (c, _)| c.sandbox_id != id);
        state.sandboxes.remove(id);
        Ok(())
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<SandboxStatus, CriError> {
        let state = self.state.lock().unwrap();
        state.sandboxes.get(id).map(|(s, _)| s.clone()).ok_or_else(|| Self::not_found(id))
    }

    async fn list_pod_sandboxes(&self, filter: &SandboxFilter) -> Result<Vec<SandboxStatus>, CriError> {
        let state = self.state.lock().unwrap();
        let all = state.sandboxes.values().map(|(s, _)| s);
        Ok(all.filter(|s| has_labels(&s.labels, &filter.labels)).cloned().collect())
    }

    async fn create_container(&self, sandbox_id: &str, config: ContainerConfig) -> Result<String, CriError> {
        let mut state = self.state.lock().unwrap();
        let log = state.sandboxes.get(sandbox_id).ok_or_else(|| Self::not_found(sandbox_id))?.1.clone();
        state.next += 1;
        let id = format!("c{}", state.next);
        let status = ContainerStatus {
            id: id.clone(),
            sandbox_id: sandbox_id.into(),
            metadata: config.metadata.clone(),
            state: ContainerState::Created,
            created_at: SystemTime::now(),
            started_at: None,
            finished_at: None,
            exit_code: None,
            signal: None,
            reason: String::new(),
            message: String::new(),
            pid: None,
            image: config.user_image.clone(),
            image_id: config.image.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            log_path: log.join(&config.log_path),
            resources: config.resources.clone(),
            user: None,
        };
        state.containers.insert(id.clone(), (status, config));
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<(), CriError> {
        let (status, image) = {
            let mut state = self.state.lock().unwrap();
            let (status, config) = state.containers.get_mut(id).ok_or_else(|| Self::not_found(id))?;
            status.state = ContainerState::Running;
            status.started_at = Some(SystemTime::now());
            let text = format!("start {} {}", status.metadata.name, status.metadata.attempt);
            let answer = (status.clone(), config.user_image.clone());
            state.calls.push(text);
            answer
        };
        std::fs::write(&status.log_path, "2026-01-01T00:00:00.000000001Z stdout F hello\n").unwrap();
        self.tell(&status, ContainerEventKind::Started);
        if let Some(code) = image.strip_prefix("exit:") {
            self.end(id, code.parse().unwrap());
        }
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), CriError> {
        let name = {
            let state = self.state.lock().unwrap();
            state.containers.get(id).ok_or_else(|| Self::not_found(id))?.0.metadata.name.clone()
        };
        self.call(format!("stop {name} {}", grace.as_secs()));
        self.end(id, 143);
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<(), CriError> {
        self.state.lock().unwrap().containers.remove(id);
        Ok(())
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus, CriError> {
        let state = self.state.lock().unwrap();
        state.containers.get(id).map(|(s, _)| s.clone()).ok_or_else(|| Self::not_found(id))
    }

    async fn list_containers(&self, filter: &ContainerFilter) -> Result<Vec<ContainerStatus>, CriError> {
        let state = self.state.lock().unwrap();
        let all = state.containers.values().map(|(s, _)| s);
        Ok(all.filter(|s| has_labels(&s.labels, &filter.labels)).cloned().collect())
    }

    async fn update_container_resources(&self, _: &str, _: &LinuxResources) -> Result<(), CriError> {
        Ok(())
    }

    async fn ensure_pod_cgroup(&self, cgroup: &str, _: &LinuxResources) -> Result<(), CriError> {
        let mut state = self.state.lock().unwrap();
        if !state.cgroups.iter().any(|c| c == cgroup) {
            state.cgroups.push(cgroup.into());
        }
        Ok(())
    }

    async fn remove_pod_cgroup(&self, cgroup: &str) -> Result<(), CriError> {
        self.state.lock().unwrap().cgroups.retain(|c| c != cgroup);
        Ok(())
    }

    async fn reopen_container_log(&self, _: &str) -> Result<(), CriError> {
        Ok(())
    }

    async fn exec_sync(&self, _: &str, command: &[String], _: Duration) -> Result<ExecOutput, CriError> {
        self.call(format!("exec {}", command.join(" ")));
        let code = self.state.lock().unwrap().exec_code;
        Ok(ExecOutput { stdout: b"out".to_vec(), stderr: vec![], code })
    }

    async fn exec(&self, request: ExecRequest) -> Result<StreamSession, CriError> {
        self.call(format!("exec {}", request.command.join(" ")));
        let (resize, _sizes) = mpsc::channel(1);
        let (done, exit) = oneshot::channel();
        let (ours, theirs) = tokio::io::duplex(1024);
        let (mut read, mut write) = tokio::io::split(ours);
        let (stdout, stdin) = tokio::io::split(theirs);
        // `cat`: what comes in goes out, then code 7.
        let wants_stdin = request.stdin;
        tokio::spawn(async move {
            let mut all = b"> ".to_vec();
            if wants_stdin {
                read.read_to_end(&mut all).await.unwrap();
            }
            write.write_all(&all).await.unwrap();
            write.shutdown().await.unwrap();
            let _ = done.send(Ok(ExitStatus { code: 7 }));
        });
        Ok(StreamSession {
            stdin: request.stdin.then(|| Box::new(stdin) as InputStream),
            stdout: Some(Box::new(stdout)),
            stderr: None,
            resize,
            exit,
        })
    }

    async fn attach(&self, _: AttachRequest) -> Result<StreamSession, CriError> {
        Err(CriError::State("no attach here".into()))
    }

    async fn port_forward(&self, _: &str, _: u16) -> Result<Box<dyn DuplexStream>, CriError> {
        let (ours, theirs) = tokio::io::duplex(1024);
        // An echo that ends when it is told to.
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(ours);
            let mut piece = [0; 64];
            while let n @ 1.. = read.read(&mut piece).await.unwrap() {
                write.write_all(&piece[..n]).await.unwrap();
                if &piece[..n] == b"quit" {
                    break;
                }
            }
            write.shutdown().await.unwrap();
        });
        Ok(Box::new(theirs))
    }

    async fn container_stats(&self, id: &str) -> Result<ResourceUsage, CriError> {
        Err(Self::not_found(id))
    }

    async fn events(&self) -> Result<BoxStream<'static, ContainerEvent>, CriError> {
        let receiver = self.events.subscribe();
        Ok(futures::stream::unfold(receiver, |mut r| async move { r.recv().await.ok().map(|e| (e, r)) })
            .boxed())
    }
}

#[async_trait]
impl ImageService for FakeRuntime {
    async fn list_images(&self) -> Result<Vec<Image>, CriError> {
        let state = self.state.lock().unwrap();
        let pinned = |i: &String| state.pinned.contains(i);
        Ok(state.images.iter().map(|i| Image { pinned: pinned(i), ..image(i) }).collect())
    }

    async fn image_status(&self, reference: &str) -> Result<Option<Image>, CriError> {
        let state = self.state.lock().unwrap();
        Ok(state.images.iter().find(|i| *i == reference).map(|i| image(i)))
    }

    async fn pull_image(&self, reference: &str, _: Option<&AuthConfig>) -> Result<Image, CriError> {
        if reference.starts_with("missing") {
            return Err(CriError::Pull { reason: "ErrImagePull", message: "no such image".into() });
        }
        let mut state = self.state.lock().unwrap();
        state.calls.push(format!("pull {reference}"));
        state.images.push(reference.into());
        Ok(image(reference))
    }

    async fn remove_image(&self, id: &str) -> Result<(), CriError> {
        let mut state = self.state.lock().unwrap();
        state.images.retain(|reference| image(reference).id != id);
        state.calls.push(format!("remove {id}"));
        Ok(())
    }

    async fn image_fs_info(&self) -> Result<FilesystemUsage, CriError> {
        let mountpoint = "/".into();
        Ok(FilesystemUsage { mountpoint, at: SystemTime::now(), used_bytes: 0, inodes_used: 0 })
    }
}

fn image(reference: &str) -> Image {
    Image {
        id: format!("sha256:{reference}"),
        repo_tags: vec![reference.into()],
        repo_digests: vec![],
        size: 1,
        uid: None,
        username: String::new(),
        pinned: false,
        config: ImageConfig::default(),
    }
}
