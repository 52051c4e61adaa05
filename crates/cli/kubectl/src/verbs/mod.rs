//! The verbs, one file each.

pub mod api;
pub mod apply;
pub mod auth;
pub mod config;
pub mod create;
pub mod delete;
pub mod describe;
pub mod events;
pub mod exec;
pub mod expose;
pub mod get;
pub mod label;
pub mod logs;
pub mod patch;
pub mod pods;
pub mod port_forward;
pub mod replace;
pub mod rollout;
pub mod run;
pub mod scale;
pub mod set;
pub mod wait;
pub mod write;

use crate::cmdline::Verb;
use crate::error::{Error, Result};
use crate::session::Session;

/// Runs a verb; the result is the exit code.
pub async fn run(session: &Session, verb: Verb) -> Result<i32> {
    match verb {
        Verb::Get(args) => get::run(session, args).await,
        Verb::Describe(args) => describe::run(session, args).await,
        Verb::Apply(args) => apply::run(session, args).await,
        Verb::Create(args) => create::run(session, args).await,
        Verb::Delete(args) => delete::run(session, args).await,
        Verb::Replace(args) => replace::run(session, args).await,
        Verb::Logs(args) => logs::run(session, args).await,
        Verb::Exec(args) => exec::run(session, args).await,
        Verb::PortForward(args) => port_forward::run(session, args).await,
        Verb::Scale(args) => scale::run(session, args).await,
        Verb::Rollout(args) => rollout::run(session, args).await,
        Verb::Expose(args) => expose::run(session, args).await,
        Verb::Run(args) => run::run(session, args).await,
        Verb::Label(args) => label::run(session, args, label::LABELS).await,
        Verb::Annotate(args) => label::run(session, args, label::ANNOTATIONS).await,
        Verb::Patch(args) => patch::run(session, args).await,
        Verb::Set(args) => set::run(session, args).await,
        Verb::Wait(args) => wait::run(session, args).await,
        Verb::Events(args) => events::run(session, args).await,
        Verb::Auth(args) => auth::run(session, args).await,
        Verb::ApiResources(args) => api::resources(session, args).await,
        Verb::ApiVersions => api::versions(session).await,
        Verb::ClusterInfo => api::cluster_info(session),
        Verb::Version(args) => api::version(session, args).await,
        Verb::Config(_) => Err(Error::client("config works on files, not on a session")),
    }
}
