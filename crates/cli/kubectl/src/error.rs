//! What goes wrong in a client, in kubectl's words.

use std::path::PathBuf;

use kube::core::Status;
use thiserror::Error;

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command failed. `Display` gives the text that the user sees, with kubectl's prefix.
#[derive(Debug, Error)]
pub enum Error {
    /// The command line, a file or an answer makes no sense.
    #[error("error: {0}")]
    Client(String),
    /// A whole message, without prefix.
    #[error("{0}")]
    Plain(String),
    /// The server refused.
    #[error("{}", server_text(.status, .doing.as_deref()))]
    Server {
        /// What it said.
        status: Box<Status>,
        /// What was tried, as `error when creating "web.yaml"`.
        doing: Option<String>,
    },
    /// The server was not reached, or its answer could not be read.
    #[error("{}", transport_text(.0))]
    Transport(#[source] kube::Error),
    /// The kubeconfig cannot be used.
    #[error("error: kubeconfig: {}", chain(.0))]
    Kubeconfig(#[source] kube::config::KubeconfigError),
    /// A file cannot be read or written.
    #[error("error: {}: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Standard input or output, or a socket.
    #[error("error: {0}")]
    Io(#[from] std::io::Error),
}

impl Error {
    /// An error of the user's making.
    pub fn client(text: impl Into<String>) -> Self {
        Self::Client(text.into())
    }

    /// Names what was tried.
    pub fn doing(self, what: impl Into<String>) -> Self {
        match self {
            Self::Server { status, .. } => Self::Server { status, doing: Some(what.into()) },
            other => other,
        }
    }

    /// Whether the server said that there is no such object.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Server { status, .. } if status.reason == "NotFound")
    }

    /// Whether the server said that the object was changed by someone else.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Server { status, .. } if status.reason == "Conflict")
    }
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(mut status) => {
                if status.reason == NOT_A_STATUS {
                    in_words(&mut status);
                }
                Self::Server { status, doing: None }
            }
            other => Self::Transport(other),
        }
    }
}

/// Reason that the client gives an answer that is no `Status`.
const NOT_A_STATUS: &str = "Failed to parse error data";

/// Says with the words of upstream's client what an answer without a `Status`, as of a path that no server knows or of
/// a proxy, means by its code.
fn in_words(status: &mut Status) {
    let (reason, message) = match status.code {
        400 => ("BadRequest", "the server rejected our request for an unknown reason"),
        401 => ("Unauthorized", "the server has asked for the client to provide credentials"),
        403 => ("Forbidden", status.message.as_str()),
        404 => ("NotFound", "the server could not find the requested resource"),
        405 => ("MethodNotAllowed", "the server does not allow this method on the requested resource"),
        429 => (
            "TooManyRequests",
            "the server has received too many requests and has asked us to try again later",
        ),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
        504 => (
            "Timeout",
            "the server was unable to return a response in the time allotted, but may still be processing the request",
        ),
        code => {
            let reason = if code >= 500 { "InternalError" } else { "" };
            let text = format!(
                "an error on the server ({:?}) has prevented the request from succeeding",
                status.message
            );
            (status.reason, status.message) = (reason.into(), text);
            return;
        }
    };
    (status.message, status.reason) = (message.to_owned(), reason.into());
}

fn server_text(status: &Status, doing: Option<&str>) -> String {
    if status.reason == "Invalid"
        && let Some(details) = &status.details
        && !details.kind.is_empty()
    {
        let causes: Vec<String> =
            details
                .causes
                .iter()
                .map(|c| {
                    if c.field.is_empty() { c.message.clone() } else { format!("{}: {}", c.field, c.message) }
                })
                .collect();
        let what = format!("The {} {:?} is invalid", details.kind, details.name);
        return match causes.as_slice() {
            [] => format!("{what}: {}", status.message),
            [one] => format!("{what}: {one}"),
            many => format!("{what}: \n* {}", many.join("\n* ")),
        };
    }
    let message = match doing {
        Some(doing) => format!("{doing}: {}", status.message),
        None => status.message.clone(),
    };
    match status.reason.as_str() {
        "Unauthorized" => format!("error: You must be logged in to the server ({message})"),
        "" => format!("Error from server: {message}"),
        reason => format!("Error from server ({reason}): {message}"),
    }
}

fn transport_text(error: &kube::Error) -> String {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::ConnectionRefused
        {
            return "The connection to the server was refused - did you specify the right host or port?"
                .into();
        }
        source = cause.source();
    }
    format!("Unable to connect to the server: {}", chain(error))
}

/// An error and its causes on one line, without repeating what a cause already says.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(code: u16, body: &str) -> Error {
        kube::Error::Api(Status::failure(body, NOT_A_STATUS).with_code(code).boxed()).into()
    }

    #[test]
    fn answers_without_a_status_are_put_in_words() {
        let error = told(404, "404 page not found");
        assert!(error.is_not_found());
        assert_eq!(
            error.to_string(),
            "Error from server (NotFound): the server could not find the requested resource"
        );
        assert_eq!(
            told(502, "bad gateway").to_string(),
            "Error from server (InternalError): an error on the server (\"bad gateway\") has prevented the request \
             from succeeding"
        );
        assert_eq!(told(403, "not you").to_string(), "Error from server (Forbidden): not you");
    }
}
