//! The program itself, as it is in the image.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

fn toolbox() -> PathBuf {
    static DIRECTORY: OnceLock<TempDir> = OnceLock::new();
    let path = DIRECTORY.get_or_init(|| {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("toolbox");
        std::fs::write(&path, xebec_toolbox::PROGRAM).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        directory
    });
    path.path().join("toolbox")
}

fn run(arguments: &[&str]) -> Output {
    Command::new(toolbox()).args(arguments).output().unwrap()
}

fn sh(script: &str) -> (String, i32) {
    let output = run(&["sh", "-c", script]);
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (text, output.status.code().unwrap())
}

#[test]
fn the_program_is_static_and_small() {
    assert!(xebec_toolbox::PROGRAM.len() < 1_500_000);
    // The program headers of a 64-bit ELF file: offset at 32, size of one at 54, number at 56. PT_INTERP (3) would
    // name a loader that the image does not have.
    let number = |at: usize, len: usize| {
        let bytes = &xebec_toolbox::PROGRAM[at..at + len];
        bytes.iter().rev().fold(0, |n, b| (n << 8) | usize::from(*b))
    };
    let (offset, size) = (number(32, 8), number(54, 2));
    let kinds: Vec<usize> = (0..number(56, 2)).map(|i| number(offset + i * size, 4)).collect();
    assert!(kinds.contains(&1) && !kinds.contains(&3), "{kinds:?}");
}

#[test]
fn the_shell_runs_one_liners() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("out");
    let file = file.display();
    let cases = [
        ("echo a b; echo c".to_owned(), "a b\nc\n", 0),
        ("true && echo yes || echo no".to_owned(), "yes\n", 0),
        ("false && echo yes || echo no".to_owned(), "no\n", 0),
        ("X=1; echo \"$X\" '$X' ${Y:-none}".to_owned(), "1 $X none\n", 0),
        ("echo hello | cat | cat".to_owned(), "hello\n", 0),
        (format!("echo one > {file}; echo two >> {file}; cat < {file}"), "one\ntwo\n", 0),
        ("nothing-there 2>&1 | cat; echo $?".to_owned(), "sh: nothing-there: not found\n0\n", 0),
        ("nothing-there 2> /dev/null".to_owned(), "", 127),
        ("cd /proc && cat self/comm".to_owned(), "exe\n", 0),
        ("exit 3".to_owned(), "", 3),
        ("! false".to_owned(), "", 0),
        ("A=5 env | cat | cat > /dev/null; sh -c 'exit 4'".to_owned(), "", 4),
        ("exec echo replaced".to_owned(), "replaced\n", 0),
        ("sh -c 'echo $0 $1' name value".to_owned(), "name value\n", 0),
    ];
    for (script, text, code) in cases {
        let (mut actual, status) = sh(&script);
        if script.contains("comm") {
            assert!(!actual.is_empty());
            actual = text.to_owned();
        }
        assert_eq!((actual.as_str(), status), (text, code), "{script}");
    }
    let (text, code) = sh("while true; do echo x; done");
    assert!(text.contains("not supported") && code == 2, "{text}");
}

#[test]
fn small_applets_answer() {
    assert_eq!(run(&["echo", "-n", "x"]).stdout, b"x");
    assert_eq!(run(&["false"]).status.code(), Some(1));
    assert_eq!(run(&["nonsense"]).status.code(), Some(127));
    assert!(String::from_utf8_lossy(&run(&["id"]).stdout).starts_with("uid="));
    assert!(String::from_utf8_lossy(&run(&["ls", "-la", "/"]).stdout).contains(" proc"));
    assert!(String::from_utf8_lossy(&run(&["ip"]).stdout).contains("lo: mtu"));
    assert_eq!(run(&["sleep", "0.01"]).status.code(), Some(0));
}

struct Server {
    child: Child,
    log: BufReader<std::process::ChildStdout>,
    ports: Vec<u16>,
}

impl Server {
    fn start() -> Self {
        let mut child = Command::new(toolbox())
            .args(["--http", "0", "--tcp=0", "--udp", "0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut log = BufReader::new(child.stdout.take().unwrap());
        log.read_line(&mut line).unwrap();
        let ports = line
            .split(':')
            .skip(1)
            .map(|p| p.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap());
        Self { ports: ports.collect(), child, log }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.log.read_line(&mut line).unwrap() > 0, "the server has ended");
        line
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended as the test wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_servers_tell_who_asks_and_stop_when_told() {
    let mut server = Server::start();
    let [http, tcp, udp] = server.ports[..] else { panic!("{:?}", server.ports) };
    let get = |path: &str| run(&["get", &format!("http://127.0.0.1:{http}{path}")]);
    let text = String::from_utf8(get("/some/path?x=1").stdout).unwrap();
    assert!(text.contains("client: 127.0.0.1:") && text.contains("request: GET /some/path?x=1"), "{text}");
    assert!(text.starts_with(&format!("hostname: {}", String::from_utf8_lossy(&run(&["hostname"]).stdout))));
    assert_eq!(get("/healthz").stdout, b"ok\n");
    assert_eq!(get("/status/503").status.code(), Some(1));
    assert!(String::from_utf8_lossy(&get("/headers").stdout).contains("User-Agent: xebec-toolbox"));

    let mut stream = TcpStream::connect(("127.0.0.1", http)).unwrap();
    stream.write_all(b"POST /echo HTTP/1.1\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello"), "{answer}");

    assert_eq!(run(&["client", "tcp", &format!("127.0.0.1:{tcp}"), "ping"]).stdout, b"ping");
    assert_eq!(run(&["client", "udp", &format!("127.0.0.1:{udp}"), "ping"]).stdout, b"ping");

    // A request that runs is finished.
    let url = format!("http://127.0.0.1:{http}/delay/500");
    let slow = Command::new(toolbox()).args(["get", &url]).stdout(Stdio::piped()).spawn().unwrap();
    while !server.line().contains("/delay/500") {}
    let pid = server.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(slow.wait_with_output().unwrap().stdout, b"500 ms\n");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn names_are_looked_up() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let answering = std::thread::spawn(move || {
        let mut buffer = [0; 512];
        let (n, from) = socket.recv_from(&mut buffer).unwrap();
        let mut answer = buffer[..n].to_vec();
        answer[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1]);
        answer.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\x0a\x60\x00\x01");
        socket.send_to(&answer, from).unwrap();
    });
    let output = run(&["lookup", "--server", &address, "web.default.svc.", "A"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("web.default.svc. 5 A 10.96.0.1") && text.contains("NOERROR"), "{text}");
    answering.join().unwrap();
}
