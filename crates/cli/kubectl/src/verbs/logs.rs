//! `logs`.

use clap::Args;
use futures::io::AsyncReadExt;
use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};

use super::pods;
use crate::discovery::items;
use crate::duration;
use crate::error::{Error, Result};
use crate::session::{Call, Session};
use crate::targets::Found;

/// Flags of `logs`.
#[derive(Clone, Debug, Default, Args)]
pub struct LogsArgs {
    /// POD, TYPE/NAME, or neither with -l; then perhaps CONTAINER.
    pub words: Vec<String>,
    /// Follow.
    #[arg(short = 'f', long)]
    pub follow: bool,
    /// Container.
    #[arg(short = 'c', long)]
    pub container: Option<String>,
    /// All containers of the pods.
    #[arg(long)]
    pub all_containers: bool,
    /// All pods of the object.
    #[arg(long)]
    pub all_pods: bool,
    /// The last lines only; -1 for all.
    #[arg(long, allow_negative_numbers = true)]
    pub tail: Option<i64>,
    /// Lines younger than, such as 5m.
    #[arg(long)]
    pub since: Option<String>,
    /// Lines since a time (RFC 3339).
    #[arg(long)]
    pub since_time: Option<String>,
    /// The instance before the last restart.
    #[arg(short = 'p', long)]
    pub previous: bool,
    /// Times before the lines.
    #[arg(long)]
    pub timestamps: bool,
    /// Pods that match.
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Pod and container before the lines.
    #[arg(long)]
    pub prefix: bool,
    /// At most so many bytes.
    #[arg(long)]
    pub limit_bytes: Option<u64>,
    /// Streams at once.
    #[arg(long, default_value_t = 5)]
    pub max_log_requests: usize,
}

/// Runs `logs`.
pub async fn run(session: &Session, args: LogsArgs) -> Result<i32> {
    let (pods, asked) = find(session, &args).await?;
    let mut sources = Vec::new();
    for pod in &pods {
        if args.all_containers {
            sources.extend(pods::containers(&pod.object).into_iter().map(|c| (pod.clone(), c)));
        } else {
            let name = pods::container(&pod.object, asked.as_deref())?;
            if asked.is_none() && items(&pod.object["spec"]["containers"]).count() > 1 {
                let all = pods::containers(&pod.object).join(", ");
                session.warn(format!("Defaulted container {name:?} out of: {all}"))?;
            }
            sources.push((pod.clone(), name));
        }
    }
    if args.follow && sources.len() > args.max_log_requests {
        return Err(Error::client(format!(
            "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use \
             --max-log-requests to increase the limit",
            sources.len(),
            args.max_log_requests
        )));
    }
    let prefix = args.prefix || args.all_pods;
    if args.follow && sources.len() > 1 {
        let streams = sources.iter().map(|(pod, container)| print(session, &args, pod, container, prefix));
        futures::stream::iter(streams)
            .buffer_unordered(args.max_log_requests)
            .try_collect::<Vec<_>>()
            .await?;
        return Ok(0);
    }
    for (pod, container) in &sources {
        print(session, &args, pod, container, prefix).await?;
    }
    Ok(0)
}

async fn find(session: &Session, args: &LogsArgs) -> Result<(Vec<Found>, Option<String>)> {
    if let Some(selector) = &args.selector {
        if !args.words.is_empty() {
            return Err(Error::client("only a selector (-l) or a POD name is allowed"));
        }
        let pods = pods::selected(session, selector).await?;
        if pods.is_empty() {
            session.warn(format!("No resources found in {} namespace.", session.namespace))?;
        }
        return Ok((pods, args.container.clone()));
    }
    let (word, second) = match args.words.as_slice() {
        [word] => (word, None),
        [word, container] if args.container.is_none() => (word, Some(container.clone())),
        _ => {
            return Err(Error::client(
                "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required \
                 argument for the logs command",
            ));
        }
    };
    let target = pods::named(session, word).await?;
    let mut pods = pods::of(session, &target).await?;
    if pods.is_empty() {
        return Err(Error::client(format!("no pods found for {}", target.label())));
    }
    if pods.len() > 1 && !args.all_pods {
        session.warn(format!("Found {} pods, using pod/{}", pods.len(), pods[0].name))?;
        pods.truncate(1);
    }
    Ok((pods, args.container.clone().or(second)))
}

async fn print(session: &Session, args: &LogsArgs, pod: &Found, container: &str, prefix: bool) -> Result<()> {
    let since = match &args.since {
        Some(text) => duration::parse(text).map_err(|e| Error::client(format!("--since: {e}")))?,
        None => None,
    };
    // With a selector there may be many pods: the last lines of each by default.
    let tail = args.tail.or(args.selector.as_ref().map(|_| 10)).filter(|lines| *lines >= 0);
    let flag = |on: bool| on.then_some("true");
    let call = Call::get(format!("{}/log", pod.path()))
        .query("container", container)
        .maybe("follow", flag(args.follow))
        .maybe("previous", flag(args.previous))
        .maybe("timestamps", flag(args.timestamps))
        .maybe("tailLines", tail.map(|n| n.to_string()).as_deref())
        .maybe("sinceSeconds", since.map(|d| d.as_secs().max(1).to_string()).as_deref())
        .maybe("sinceTime", args.since_time.as_deref())
        .maybe("limitBytes", args.limit_bytes.map(|n| n.to_string()).as_deref());
    let mut stream = Box::pin(session.stream(call.accept("application/json, */*")).await?);
    if prefix {
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).await? > 0 {
            let mut out = format!("[pod/{}/{container}] ", pod.name).into_bytes();
            out.append(&mut line);
            session.print(out)?;
        }
        return Ok(());
    }
    let mut buffer = vec![0; 32 << 10];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            n => session.print(&buffer[..n])?,
        }
    }
}
