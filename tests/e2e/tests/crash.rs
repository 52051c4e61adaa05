//! `kill -9` of the whole control plane at random moments under write load.
//!
//! Every acknowledged write is there afterwards; every watch goes on where it was, or is told that it cannot (410); a
//! running pod is not restarted. `XEBEC_CRASH_ROUNDS` sets how often (50 if it is not given).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use xebec_e2e::{first, is_ready, pods, ready_pod};
use xebec_testkit::{Cluster, Options, PATIENCE, run, wait_for};

const ROUNDS: usize = 50;
const WRITERS: usize = 4;
/// Names that a writer goes round in.
const NAMES: usize = 25;

/// What a writer knows of one name.
#[derive(Debug, Default, Clone)]
struct Known {
    /// The last state that the server acknowledged: resourceVersion and value, or that there is none.
    acknowledged: Option<(u64, String)>,
    /// A write without an answer: the value it would leave, or `None` for a deletion.
    unanswered: Option<Option<String>>,
}

type Ledger = BTreeMap<String, Known>;

#[test]
fn nothing_acknowledged_is_lost() {
    run(Options::default(), async |cluster| {
        let rounds = std::env::var("XEBEC_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok());
        let mut random = Random::new();
        ready_pod(
            cluster,
            json!({
                "metadata": {"name": "witness"},
                "spec": {"containers": [{"name": "main", "image": "xebec/toolbox"}]},
            }),
        )
        .await?;
        let container = container(cluster).await?;
        let mut ledgers = vec![Ledger::new(); WRITERS];
        let mut replica = Replica::new(&cluster.client()).await?;
        let mut writes = 0;
        for round in 0..rounds.unwrap_or(ROUNDS) {
            let moment = Duration::from_millis(20 + random.below(500));
            let told = format!("round {round} (seed {}), killed after {moment:?}", random.seed);
            writes += load(cluster, &mut ledgers, &mut replica, round, moment).await?;
            cluster.up().await.context(told.clone())?;
            let revision = check(&cluster.client(), &mut ledgers).await.context(told.clone())?;
            replica.follow(&cluster.client(), revision).await.context(told.clone())?;
            replica.compare(&cluster.client()).await.context(told.clone())?;
            let now = self::container(cluster).await.context(told.clone())?;
            ensure!(now == container, "{told}: the pod changed from {container:?} to {now:?}");
        }
        eprintln!(
            "{writes} acknowledged writes, {} watches resumed, {} told 410",
            replica.resumed, replica.gone
        );
        ensure!(writes > 0, "no write was acknowledged at all");
        Ok(())
    });
}

/// Writes and watches until the control plane is killed. Answers how many writes were acknowledged.
async fn load(
    cluster: &mut Cluster,
    ledgers: &mut Vec<Ledger>,
    replica: &mut Replica,
    round: usize,
    moment: Duration,
) -> Result<usize> {
    let client = cluster.client();
    let (stop, stopped) = watch::channel(false);
    let shared = Arc::new(Mutex::new(0));
    let mut writers = Vec::new();
    for (writer, ledger) in std::mem::take(ledgers).into_iter().enumerate() {
        let (api, stopped, count) = (configmaps(&client), stopped.clone(), shared.clone());
        writers.push(tokio::spawn(write(api, ledger, writer, round, stopped, count)));
    }
    {
        // The watch runs while the server dies under it.
        let watching = replica.follow_until_broken(&client);
        let killing = async {
            // The moment is the point of the test, not a condition.
            tokio::time::sleep(moment).await;
            cluster.kill_agent()
        };
        let (watched, killed) = tokio::join!(watching, killing);
        killed?;
        watched?;
    }
    stop.send(true).context("stop the writers")?;
    for writer in writers {
        ledgers.push(writer.await.context("a writer panicked")??);
    }
    let count = *shared.lock().map_err(|_| anyhow::anyhow!("a writer panicked"))?;
    Ok(count)
}

/// One writer: creates, updates and deletes its names in turn until a write gets no answer.
async fn write(
    api: Api<ConfigMap>,
    mut ledger: Ledger,
    writer: usize,
    round: usize,
    stopped: watch::Receiver<bool>,
    count: Arc<Mutex<usize>>,
) -> Result<Ledger> {
    for step in 0.. {
        if *stopped.borrow() {
            break;
        }
        let name = format!("w{writer}-{}", step % NAMES);
        let known = ledger.entry(name.clone()).or_default();
        let value = format!("{round}.{step}");
        let delete = known.acknowledged.is_some() && step % 7 == 3;
        known.unanswered = Some((!delete).then(|| value.clone()));
        let result = if delete {
            api.delete(&name, &DeleteParams::default()).await.map(|_| None)
        } else if known.acknowledged.is_some() {
            let patch = json!({"data": {"value": value}});
            api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map(Some)
        } else {
            let object =
                serde_json::from_value(json!({"metadata": {"name": name}, "data": {"value": value}}))?;
            api.create(&PostParams::default(), &object).await.map(Some)
        };
        match result {
            Ok(object) => {
                known.acknowledged = object.map(|object| (revision_of(&object), value));
                known.unanswered = None;
                *count.lock().map_err(|_| anyhow::anyhow!("a writer panicked"))? += 1;
            }
            // A server that is shutting down or gone has not answered; one that refuses has.
            Err(kube::Error::Api(status)) if status.code < 500 => bail!("{name}: {status}"),
            Err(_) => break,
        }
    }
    Ok(ledger)
}

/// Compares what the server has with what was acknowledged; settles writes without an answer. Answers the revision.
async fn check(client: &Client, ledgers: &mut [Ledger]) -> Result<u64> {
    let list = configmaps(client).list(&ListParams::default()).await?;
    let revision = list.metadata.resource_version.context("the list has no revision")?.parse()?;
    let mut found: BTreeMap<String, (u64, String)> = list
        .items
        .iter()
        .map(|object| (object.name_any(), (revision_of(object), value_of(object))))
        .collect();
    for (name, known) in ledgers.iter_mut().flatten() {
        let now = found.remove(name);
        let value = now.as_ref().map(|(_, value)| value.clone());
        let settled = known.unanswered.take().is_some_and(|outcome| outcome == value);
        ensure!(
            settled || now == known.acknowledged,
            "{name}: acknowledged {:?}, but there is {now:?}",
            known.acknowledged
        );
        known.acknowledged = now;
    }
    found.retain(|name, _| name.starts_with('w'));
    ensure!(found.is_empty(), "nobody wrote {found:?}");
    Ok(revision)
}

/// A copy of all config maps that lives from one LIST and watches alone.
struct Replica {
    objects: BTreeMap<String, u64>,
    revision: String,
    resumed: usize,
    gone: usize,
}

impl Replica {
    async fn new(client: &Client) -> Result<Self> {
        let mut replica = Self { objects: BTreeMap::new(), revision: String::new(), resumed: 0, gone: 0 };
        replica.list(client).await?;
        Ok(replica)
    }

    async fn list(&mut self, client: &Client) -> Result<()> {
        let list = configmaps(client).list(&ListParams::default()).await?;
        self.revision = list.metadata.resource_version.context("the list has no revision")?;
        self.objects = list.items.iter().map(|object| (object.name_any(), revision_of(object))).collect();
        Ok(())
    }

    /// Follows until the connection breaks, in whatever way.
    async fn follow_until_broken(&mut self, client: &Client) -> Result<()> {
        let Ok(events) = configmaps(client).watch(&WatchParams::default(), &self.revision).await else {
            return Ok(());
        };
        let mut events = events.boxed();
        while let Ok(Some(event)) = events.try_next().await {
            self.take(event)?;
        }
        Ok(())
    }

    /// Goes on from the last revision seen until `target`, by watching; lists again only if it is told 410.
    async fn follow(&mut self, client: &Client, target: u64) -> Result<()> {
        let revision: u64 = self.revision.parse()?;
        if revision >= target {
            self.resumed += 1;
            return Ok(());
        }
        let configmaps = configmaps(client);
        let parameters = WatchParams::default().timeout(20);
        let result = configmaps.watch(&parameters, &self.revision).await;
        let mut events = match result {
            Err(kube::Error::Api(status)) if status.code == 410 => return self.relist(client).await,
            result => result.context("resume the watch")?.boxed(),
        };
        let expected = configmaps.list(&ListParams::default()).await?;
        let expected: BTreeMap<_, _> =
            expected.items.iter().map(|object| (object.name_any(), revision_of(object))).collect();
        while self.objects != expected {
            match events.try_next().await.context("the resumed watch")? {
                Some(WatchEvent::Error(status)) if status.code == 410 => return self.relist(client).await,
                Some(event) => self.take(event)?,
                None => bail!("the resumed watch ended at {} without all changes", self.revision),
            }
        }
        self.resumed += 1;
        Ok(())
    }

    async fn relist(&mut self, client: &Client) -> Result<()> {
        self.gone += 1;
        self.list(client).await
    }

    fn take(&mut self, event: WatchEvent<ConfigMap>) -> Result<()> {
        let (object, there) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, true),
            WatchEvent::Deleted(object) => (object, false),
            WatchEvent::Bookmark(bookmark) => {
                self.revision = bookmark.metadata.resource_version;
                return Ok(());
            }
            WatchEvent::Error(status) => bail!("the watch says {status}"),
        };
        let revision = revision_of(&object);
        ensure!(revision > self.revision.parse()?, "{} came twice or late: {revision}", object.name_any());
        self.revision = revision.to_string();
        if there {
            self.objects.insert(object.name_any(), revision);
        } else {
            self.objects.remove(&object.name_any());
        }
        Ok(())
    }

    async fn compare(&self, client: &Client) -> Result<()> {
        let list = configmaps(client).list(&ListParams::default()).await?;
        let there: BTreeMap<_, _> =
            list.items.iter().map(|object| (object.name_any(), revision_of(object))).collect();
        ensure!(self.objects == there, "the watch shows {:?}, the list {there:?}", self.objects);
        Ok(())
    }
}

fn configmaps(client: &Client) -> Api<ConfigMap> {
    Api::default_namespaced(client.clone())
}

fn revision_of(object: &ConfigMap) -> u64 {
    object.resource_version().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn value_of(object: &ConfigMap) -> String {
    object.data.as_ref().and_then(|data| data.get("value")).cloned().unwrap_or_default()
}

/// Container id and restart count of the pod that runs all the time.
async fn container(cluster: &Cluster) -> Result<(String, i32)> {
    let pod = wait_for(&pods(&cluster.client()), "witness", PATIENCE, "is ready", is_ready).await?;
    let status = first(&pod).context("no container status")?;
    Ok((status.container_id.clone().unwrap_or_default(), status.restart_count))
}

/// Xorshift: moments that differ from run to run, with the seed told when a round fails.
struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seed = (now.as_nanos() as u64) | 1;
        Self { seed, state: seed }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % limit
    }
}
