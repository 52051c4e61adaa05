//! A runtime in a temporary directory, with busybox as image and no network, cleaned up even on panic.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use xebec_cri::*;
use xebec_runtime::{
    EmbeddedRuntime, Rootfs, RootfsProvider, RuntimeConfig, SupervisorClient, SupervisorOptions,
};

/// One layer: busybox with its applets, and accounts.
pub struct Busybox(PathBuf);

impl Busybox {
    fn new(root: &Path) -> Self {
        let layer = root.join("image");
        for dir in ["bin", "etc", "tmp", "root"] {
            std::fs::create_dir_all(layer.join(dir)).unwrap();
        }
        // Copied by another process: what tests beside this one fork would inherit the descriptor written to, and a
        // program that is being written cannot be run (ETXTBSY).
        let copied = Command::new("cp").arg("/bin/busybox").arg(layer.join("bin/busybox")).status().unwrap();
        assert!(copied.success(), "these tests need /bin/busybox from Debian's package busybox-static");
        for applet in
            Command::new("/bin/busybox").arg("--list").output().unwrap().stdout.split(|b| *b == b'\n')
        {
            let name = String::from_utf8_lossy(applet);
            if !name.is_empty() && name != "busybox" {
                std::os::unix::fs::symlink("busybox", layer.join("bin").join(&*name)).unwrap();
            }
        }
        std::fs::write(layer.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/tmp:/bin/sh\n")
            .unwrap();
        std::fs::write(layer.join("etc/group"), "root:x:0:\nwww:x:34:\nlogs:x:40:web\n").unwrap();
        Self(layer)
    }
}

#[async_trait]
impl RootfsProvider for Busybox {
    async fn prepare(&self, _: &str, _: &str) -> Result<Rootfs, CriError> {
        let config = ImageConfig {
            cmd: vec!["sh".into()],
            env: vec!["PATH=/bin".into(), "FROM_IMAGE=yes".into()],
            ..ImageConfig::default()
        };
        Ok(Rootfs { lowerdirs: vec![self.0.clone()], config })
    }

    async fn release(&self, _: &str) -> Result<(), CriError> {
        Ok(())
    }
}

pub struct NoNetwork;

#[async_trait]
impl PodNetwork for NoNetwork {
    async fn add(&self, request: &NetworkRequest) -> Result<Vec<IpAddr>, CriError> {
        assert!(request.netns.exists());
        Ok(vec!["10.9.8.7".parse().unwrap()])
    }

    async fn delete(&self, _: &str) -> Result<(), CriError> {
        Ok(())
    }

    async fn retain(&self, _: &[String]) -> Result<(), CriError> {
        Ok(())
    }
}

pub struct Bed {
    pub runtime: EmbeddedRuntime,
    pub client: SupervisorClient,
    pub options: SupervisorOptions,
    image: Arc<Busybox>,
    /// Last: the client, dropped before it, would start the supervisor again.
    cleanup: Cleanup,
    pub dir: tempfile::TempDir,
}

pub struct Cleanup(SupervisorOptions, Vec<SupervisorClient>);

/// The example binary `supervisor`, beside the test's own.
pub fn supervisor_exe() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let exe = own.parent().unwrap().parent().unwrap().join("examples/supervisor");
    assert!(exe.exists(), "{} is missing: build the example `supervisor`", exe.display());
    exe
}

pub async fn bed() -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().file_name().unwrap().to_string_lossy().replace('.', "");
    let options = SupervisorOptions {
        state_dir: dir.path().join("state"),
        cgroup_root: format!("xebec-runtime-tests/{name}"),
        exe: supervisor_exe(),
    };
    let image = Arc::new(Busybox::new(dir.path()));
    let mut cleanup = Cleanup(options.clone(), vec![]);
    let (runtime, client) = connect(&options, &image).await;
    cleanup.1.push(client.clone());
    Bed { runtime, client, options, dir, image, cleanup }
}

async fn connect(options: &SupervisorOptions, image: &Arc<Busybox>) -> (EmbeddedRuntime, SupervisorClient) {
    let client = SupervisorClient::connect_or_start(options.clone()).await.unwrap();
    let config = RuntimeConfig { name: "xebec".into(), version: "test".into() };
    let image: Arc<dyn RootfsProvider> = Arc::<Busybox>::clone(image);
    let runtime = EmbeddedRuntime::new(config, client.clone(), image, Arc::new(NoNetwork)).await.unwrap();
    (runtime, client)
}

pub fn sandbox_config(name: &str) -> SandboxConfig {
    SandboxConfig {
        metadata: SandboxMetadata {
            name: name.into(),
            uid: format!("uid-{name}"),
            namespace: "default".into(),
            attempt: 0,
        },
        hostname: name.into(),
        log_directory: PathBuf::new(),
        dns: None,
        port_mappings: vec![],
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        cgroup_parent: format!("pods/besteffort/pod{name}"),
        namespaces: NamespaceOptions::default(),
        sysctls: BTreeMap::new(),
        privileged: false,
    }
}

pub fn container_config(name: &str, script: &str) -> ContainerConfig {
    ContainerConfig {
        metadata: ContainerMetadata { name: name.into(), attempt: 0 },
        image: "sha256:0".into(),
        user_image: "busybox".into(),
        command: vec!["sh".into(), "-c".into(), script.into()],
        args: vec![],
        working_dir: String::new(),
        envs: vec![],
        mounts: vec![],
        devices: vec![],
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        log_path: format!("{name}/0.log").into(),
        stdin: false,
        stdin_once: false,
        tty: false,
        resources: LinuxResources::default(),
        security: SecurityContext::default(),
        stop_signal: None,
    }
}

impl Bed {
    pub async fn sandbox(&self, name: &str) -> String {
        self.sandbox_with(name, |_| {}).await
    }

    pub async fn sandbox_with(&self, name: &str, change: impl FnOnce(&mut SandboxConfig)) -> String {
        let mut config = sandbox_config(name);
        config.log_directory = self.dir.path().join("logs").join(name);
        change(&mut config);
        self.runtime.ensure_pod_cgroup(&config.cgroup_parent, &LinuxResources::default()).await.unwrap();
        self.runtime.run_pod_sandbox(config).await.unwrap()
    }

    pub async fn start(&self, sandbox: &str, name: &str, script: &str) -> String {
        self.start_with(sandbox, name, script, |_| {}).await
    }

    pub async fn start_with(
        &self,
        sandbox: &str,
        name: &str,
        script: &str,
        change: impl FnOnce(&mut ContainerConfig),
    ) -> String {
        let mut config = container_config(name, script);
        change(&mut config);
        let id = self.runtime.create_container(sandbox, config).await.unwrap();
        self.runtime.start_container(&id).await.unwrap();
        id
    }

    /// Runs a script to its end: how it ended and what it wrote.
    pub async fn run_with(
        &self,
        sandbox: &str,
        name: &str,
        script: &str,
        change: impl FnOnce(&mut ContainerConfig),
    ) -> (ContainerStatus, String) {
        let id = self.start_with(sandbox, name, script, change).await;
        let status = self.exited(&id).await;
        let log = std::fs::read_to_string(&status.log_path).unwrap();
        let text = |line: &str| line.splitn(4, ' ').nth(3).unwrap_or("").to_owned() + "\n";
        (status, log.lines().map(text).collect())
    }

    pub async fn exited(&self, id: &str) -> ContainerStatus {
        self.until(|| async {
            let status = self.runtime.container_status(id).await.unwrap();
            (status.state == ContainerState::Exited).then_some(status)
        })
        .await
    }

    /// Waits for a condition.
    pub async fn until<T, F: Future<Output = Option<T>>>(&self, condition: impl Fn() -> F) -> T {
        let wait = async {
            loop {
                if let Some(value) = condition().await {
                    return value;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("condition did not come true")
    }

    pub async fn exec(&self, id: &str, script: &str) -> ExecOutput {
        let command = ["sh", "-c", script].map(str::to_owned);
        self.runtime.exec_sync(id, &command, Duration::from_secs(20)).await.unwrap()
    }

    /// Another agent on the same state, after this one is gone.
    pub async fn reconnect(self) -> Bed {
        let mut bed = self;
        // The earlier agent is gone; its connection must not outlive it here either.
        bed.cleanup.1.iter().for_each(SupervisorClient::stop_reconnecting);
        let (runtime, client) = connect(&bed.options, &bed.image).await;
        bed.runtime = runtime;
        bed.cleanup.1 = vec![client.clone()];
        bed.client = client;
        bed
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        self.1.iter().for_each(SupervisorClient::stop_reconnecting);
        // Whatever a failed test left: processes by their groups, then mounts, then groups.
        let root = self.0.cgroup_root.clone();
        let hierarchies: Vec<PathBuf> = std::fs::read_dir("/sys/fs/cgroup")
            .unwrap()
            .filter_map(|e| Some(e.ok()?.path()))
            .chain(["/sys/fs/cgroup".into()])
            .map(|p: PathBuf| p.join(&root))
            .filter(|p| p.is_dir())
            .collect();
        for path in &hierarchies {
            kill_tree(path);
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let state = self.0.state_dir.to_string_lossy().into_owned();
        for line in mounts.lines().rev() {
            if let Some(point) = line.split(' ').nth(4).filter(|p| p.starts_with(&state)) {
                rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH).ok();
            }
        }
        for path in &hierarchies {
            for _ in 0..200 {
                remove_tree(path);
                if !path.exists() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            drop(std::fs::remove_dir(path.parent().unwrap()));
        }
    }
}

fn subdirs(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

fn kill_tree(path: &Path) {
    subdirs(path).iter().for_each(|p| kill_tree(p));
    for pid in std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default().lines() {
        let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
    }
}

fn remove_tree(path: &Path) {
    subdirs(path).iter().for_each(|p| remove_tree(p));
    drop(std::fs::remove_dir(path));
}
