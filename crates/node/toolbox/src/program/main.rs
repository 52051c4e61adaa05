//! The toolbox: one program, many names. Uses the standard library only.

mod client;
mod conditions;
mod dns;
mod files;
mod ip;
mod net;
mod processes;
mod regex;
mod serve;
mod sh;
mod signals;
mod small;
mod text;
mod time;

use std::process::ExitCode;

/// What an applet answers: its exit code, or a text for standard error.
pub type Answer = Result<u8, String>;
/// An applet gets its arguments without its name.
pub type Applet = fn(&[String]) -> Answer;

/// All of them.
pub const APPLETS: &[(&str, Applet)] = &[
    ("[", conditions::bracket),
    ("basename", small::basename),
    ("cat", small::cat),
    ("client", client::run),
    ("cp", files::cp),
    ("date", time::date),
    ("dirname", small::dirname),
    ("echo", sh::echo),
    ("env", small::env),
    ("false", |_| Ok(1)),
    ("get", client::get),
    ("grep", text::grep),
    ("head", text::head),
    ("hostname", small::hostname),
    ("id", small::id),
    ("ip", ip::run),
    ("kill", processes::kill),
    ("ln", files::ln),
    ("lookup", dns::run),
    ("ls", small::ls),
    ("mkdir", files::mkdir),
    ("mv", files::mv),
    ("nc", net::nc),
    ("nslookup", dns::nslookup),
    ("pause", small::pause),
    ("printenv", small::printenv),
    ("ps", processes::ps),
    ("pwd", small::pwd),
    ("rm", files::rm),
    ("rmdir", files::rmdir),
    ("seq", text::seq),
    ("serve", serve::run),
    ("sh", sh::run),
    ("sleep", time::sleep),
    ("tail", text::tail),
    ("test", conditions::test),
    ("touch", files::touch),
    ("true", |_| Ok(0)),
    ("uname", small::uname),
    ("wc", text::wc),
    ("wget", client::get),
    ("whoami", small::whoami),
];

/// The applet of a name.
pub fn applet(name: &str) -> Option<Applet> {
    APPLETS.iter().find(|(known, _)| *known == name).map(|(_, applet)| *applet)
}

const HELP: &str = "usage: toolbox [APPLET [ARGUMENTS]]
  serve [--http PORT] [--tcp PORT] [--udp PORT]   servers that tell who asks (the default)
  client http URL | tcp HOST:PORT [TEXT] | udp HOST:PORT [TEXT]
  get URL, wget -qO- URL                          the body of an HTTP answer
  lookup [--tcp] [--server ADDRESS] NAME [A|AAAA|SRV|CNAME|PTR|TXT], nslookup NAME
  ip [addr|route]    nc HOST PORT    sh [-c COMMAND]    pause    sleep SECONDS
  basename cat cp date dirname echo env false grep head hostname id kill ln ls mkdir mv
  printenv ps pwd rm rmdir seq tail test touch true uname wc whoami";

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
    // The first process of a container gets no signal that it does not handle; these handle theirs themselves.
    if std::process::id() == 1 && !["serve", "pause", "sh"].contains(&name.as_str()) {
        signals::end_on_terminate();
    }
    match run(rest) {
        Ok(code) => ExitCode::from(code),
        Err(text) => {
            eprintln!("{name}: {text}");
            ExitCode::FAILURE
        }
    }
}
