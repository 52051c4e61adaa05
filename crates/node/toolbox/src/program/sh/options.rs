//! `set -e` and its like.

/// What `set` changes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// `-e`: a failure ends the shell.
    pub end_on_error: bool,
    /// `-u`: variables that are not set are errors.
    pub unset_is_error: bool,
    /// `-x`: commands are shown.
    pub trace: bool,
    /// `-f`: patterns in words are no patterns of file names.
    pub noglob: bool,
    /// `-a`: all variables are exported.
    pub export_all: bool,
    /// `-o pipefail`: the failure of any command of a pipeline is its failure.
    pub pipefail: bool,
}

const NAMES: &[(&str, char)] =
    &[("errexit", 'e'), ("nounset", 'u'), ("xtrace", 'x'), ("noglob", 'f'), ("allexport", 'a')];

impl Options {
    /// Sets an option by its letter.
    pub fn set(&mut self, letter: char, on: bool) -> Result<(), String> {
        match letter {
            'e' => self.end_on_error = on,
            'u' => self.unset_is_error = on,
            'x' => self.trace = on,
            'f' => self.noglob = on,
            'a' => self.export_all = on,
            other => return Err(format!("unknown option -{other}: -a, -e, -f, -u and -x are known")),
        }
        Ok(())
    }

    /// Sets an option by its name.
    pub fn set_long(&mut self, name: &str, on: bool) -> Result<(), String> {
        if name == "pipefail" {
            self.pipefail = on;
            return Ok(());
        }
        match NAMES.iter().find(|(known, _)| *known == name) {
            Some((_, letter)) => self.set(*letter, on),
            None => Err(format!("unknown option {name:?}")),
        }
    }

    /// The letters of what is on.
    pub fn letters(&self) -> String {
        let all = [self.export_all, self.end_on_error, self.noglob, self.unset_is_error, self.trace];
        all.iter().zip("aefux".chars()).filter(|(on, _)| **on).map(|(_, letter)| letter).collect()
    }
}
