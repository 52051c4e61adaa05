//! The toolbox: one program, many names. Uses the standard library only.

mod client;
mod dns;
mod ip;
mod serve;
mod sh;
mod signals;
mod small;

use std::process::ExitCode;

/// What an applet answers: its exit code, or a text for standard error.
pub type Answer = Result<u8, String>;
/// An applet gets its arguments without its name.
pub type Applet = fn(&[String]) -> Answer;

/// The applet of a name.
pub fn applet(name: &str) -> Option<Applet> {
    Some(match name {
        "serve" => serve::run,
        "client" => client::run,
        "get" | "wget" => client::get,
        "lookup" => dns::run,
        "ip" => ip::run,
        "sh" => sh::run,
        "pause" => small::pause,
        "sleep" => small::sleep,
        "echo" => small::echo,
        "cat" => small::cat,
        "env" => small::env,
        "hostname" => small::hostname,
        "ls" => small::ls,
        "id" => small::id,
        "true" => |_| Ok(0),
        "false" => |_| Ok(1),
        _ => return None,
    })
}

const HELP: &str = "usage: toolbox [APPLET [ARGUMENTS]]
  serve [--http PORT] [--tcp PORT] [--udp PORT]   servers that tell who asks (the default)
  client http URL | tcp HOST:PORT [TEXT] | udp HOST:PORT [TEXT]
  get URL                                         the body of an HTTP answer
  lookup [--tcp] [--server ADDRESS] NAME [A|AAAA|SRV|CNAME|PTR|TXT]
  ip [addr|route]    sh [-c COMMAND]    pause    sleep SECONDS
  echo    cat    env    hostname    ls    id    true    false";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().map(|a| a.to_string_lossy().into_owned());
    let called = arguments.next().unwrap_or_default();
    let called = called.rsplit('/').next().unwrap_or_default().trim_start_matches('-').to_owned();
    let arguments: Vec<String> = arguments.collect();
    let (name, rest) = match (applet(&called), arguments.split_first()) {
        (Some(_), _) => (called, arguments.as_slice()),
        (None, None) => ("serve".to_owned(), arguments.as_slice()),
        (None, Some((first, rest))) if !first.starts_with("--") || first == "--help" => (first.clone(), rest),
        // Options without an applet are those of the server.
        (None, Some(_)) => ("serve".to_owned(), arguments.as_slice()),
    };
    if matches!(name.as_str(), "help" | "--help" | "-h") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let Some(run) = applet(&name) else {
        eprintln!("toolbox: no applet {name:?}\n{HELP}");
        return ExitCode::from(127);
    };
    match run(rest) {
        Ok(code) => ExitCode::from(code),
        Err(text) => {
            eprintln!("{name}: {text}");
            ExitCode::FAILURE
        }
    }
}
