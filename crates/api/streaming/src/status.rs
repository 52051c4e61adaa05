//! How a remote command ended, as the error channel tells it.

use serde::Deserialize;
use serde_json::json;

/// How a remote command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The process ended with this code; 0 is success.
    Exited(i32),
    /// The command could not be run or its streams failed; the text is for a person.
    Failed(String),
}

impl Outcome {
    /// What the error channel carries under this protocol version: a `metav1.Status` from version 4 on, before that
    /// text for failures and nothing for success.
    pub(crate) fn encode(&self, version: u8) -> Vec<u8> {
        let message = match self {
            Self::Exited(0) => String::new(),
            Self::Exited(code) => format!("command terminated with non-zero exit code: exit status {code}"),
            Self::Failed(message) => message.clone(),
        };
        if version < 4 {
            return message.into_bytes();
        }
        let status = match self {
            Self::Exited(0) => json!({"metadata": {}, "status": "Success"}),
            Self::Exited(code) => json!({
                "metadata": {},
                "status": "Failure",
                "message": message,
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failed(_) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("Internal error occurred: {message}"),
                "reason": "InternalError",
                "details": {"causes": [{"message": message}]},
                "code": 500,
            }),
        };
        status.to_string().into_bytes()
    }
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    status: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    causes: Vec<Cause>,
}

#[derive(Deserialize)]
struct Cause {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

/// Reads what the error channel carried. Anything that is not a `Status` is taken for the text of a failure, as
/// protocol versions before 4 send it; nothing at all is success.
pub fn outcome_from_status(bytes: &[u8]) -> Outcome {
    if bytes.is_empty() {
        return Outcome::Exited(0);
    }
    let Ok(status) = serde_json::from_slice::<Status>(bytes) else {
        return Outcome::Failed(String::from_utf8_lossy(bytes).into_owned());
    };
    if status.status == "Success" {
        return Outcome::Exited(0);
    }
    let causes = status.details.map(|d| d.causes).unwrap_or_default();
    let code = causes.iter().find(|c| c.reason == "ExitCode").and_then(|c| c.message.parse().ok());
    code.map_or(Outcome::Failed(status.message), Outcome::Exited)
}

/// The exit code a client should end with: the command's own, or 1 when it could not be run.
pub fn exit_code(outcome: &Outcome) -> i32 {
    match outcome {
        Outcome::Exited(code) => *code,
        Outcome::Failed(_) => 1,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_error_channel_reads_back() {
        for version in [4, 5] {
            for outcome in [Outcome::Exited(0), Outcome::Exited(3)] {
                assert_eq!(outcome_from_status(&outcome.encode(version)), outcome);
            }
        }
        let failed = Outcome::Failed("no such container".to_owned());
        assert_eq!(outcome_from_status(&failed.encode(2)), failed);
        assert_eq!(exit_code(&failed), 1);
    }

    #[test]
    fn a_failing_command_is_a_status() {
        let text = String::from_utf8(Outcome::Exited(3).encode(5)).unwrap();
        let expected = [
            r#"{"details":{"causes":[{"message":"3","reason":"ExitCode"}]},"#,
            r#""message":"command terminated with non-zero exit code: exit status 3","#,
            r#""metadata":{},"reason":"NonZeroExitCode","status":"Failure"}"#,
        ];
        assert_eq!(text, expected.concat());
    }
}
