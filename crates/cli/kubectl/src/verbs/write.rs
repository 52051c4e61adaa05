//! What verbs that write have in common: dry runs, and how they tell what they did.

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::error::Result;
use crate::output::Format;
use crate::session::{Call, Session};
use crate::targets::Found;

/// Media type of merge patches (RFC 7386).
pub const MERGE: &str = "application/merge-patch+json";
/// Media type of strategic merge patches.
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// Media type of JSON patches (RFC 6902).
pub const JSON: &str = "application/json-patch+json";

/// How far a write goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    /// All the way.
    #[default]
    None,
    /// Not even to the server.
    Client,
    /// Through the server, but not into its store.
    Server,
}

/// Flags of verbs that write.
#[derive(Clone, Debug, Default, Args)]
pub struct WriteArgs {
    /// Only tell what would be done.
    #[arg(long, value_enum, default_value = "none")]
    pub dry_run: DryRun,
    /// Print the result: yaml, json, name, jsonpath=, custom-columns=.
    #[arg(short = 'o', long)]
    pub output: Option<String>,
    /// Who is recorded as owner of the fields.
    #[arg(long)]
    pub field_manager: Option<String>,
}

impl WriteArgs {
    /// Adds the parameters of a write to a request.
    pub fn call(&self, call: Call, default_manager: &str) -> Call {
        let call = call.query("fieldManager", self.field_manager.as_deref().unwrap_or(default_manager));
        if self.dry_run == DryRun::Server { call.query("dryRun", "All") } else { call }
    }

    /// Whether the server is left alone.
    pub fn client_only(&self) -> bool {
        self.dry_run == DryRun::Client
    }

    /// Prints what was done to an object: `pod/web created`, or the object in the format that was asked for.
    pub fn tell(&self, session: &Session, found: &Found, done: &str) -> Result<()> {
        self.tell_object(session, &found.label(), &found.object, done)
    }

    /// As [`Self::tell`], for an object by its label.
    pub fn tell_object(&self, session: &Session, label: &str, object: &Value, done: &str) -> Result<()> {
        if let Some(format) = Format::optional(self.output.as_deref())? {
            return session.print(format.render(object)?);
        }
        let suffix = match self.dry_run {
            DryRun::None => "",
            DryRun::Client => " (dry run)",
            DryRun::Server => " (server dry run)",
        };
        session.line(format!("{label} {done}{suffix}"))
    }
}
