//! The program itself, as it is in the image.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::process::{Child, Command, Output, Stdio};

mod program_file;

use program_file::toolbox;

fn run(arguments: &[&str]) -> Output {
    Command::new(toolbox()).args(arguments).output().unwrap()
}

#[test]
fn the_program_is_static_and_small() {
    assert!(xebec_toolbox::PROGRAM.len() < 2_000_000);
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
fn small_applets_answer() {
    assert_eq!(run(&["echo", "-n", "x"]).stdout, b"x");
    assert_eq!(run(&["false"]).status.code(), Some(1));
    assert_eq!(run(&["nonsense"]).status.code(), Some(127));
    assert!(String::from_utf8_lossy(&run(&["id"]).stdout).starts_with("uid="));
    assert!(String::from_utf8_lossy(&run(&["ls", "-la", "/"]).stdout).contains(" proc"));
    assert!(String::from_utf8_lossy(&run(&["ip"]).stdout).contains("lo: mtu"));
    assert_eq!(run(&["sleep", "0.01"]).status.code(), Some(0));
    assert_eq!(run(&["seq", "1", "2", "5"]).stdout, b"1\n3\n5\n");
    assert_eq!(run(&["date", "-u", "-d", "@0", "+%F %T"]).stdout, b"1970-01-01 00:00:00\n");
    assert_eq!(run(&["env", "-i", "A=1", "printenv", "A"]).stdout, b"1\n");
    assert!(String::from_utf8_lossy(&run(&["ps"]).stdout).contains(" ps\n"));
    let directory = tempfile::TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let (file, copy) = (path("file"), path("deep/copy"));
    std::fs::write(&file, "one\ntwo\nthree\n").unwrap();
    for (arguments, text) in [
        (&["head", "-n", "1", &file][..], "one\n"),
        (&["tail", "-n", "2", &file], "two\nthree\n"),
        (&["tail", "-n", "+2", &file], "two\nthree\n"),
        (&["grep", "-n", "^t", &file], "2:two\n3:three\n"),
        (&["grep", "-Eo", "t.*(o|e)$", &file], "two\nthree\n"),
        (&["grep", "-c", "-v", "o", &file], "1\n"),
        (&["wc", "-l", &file], &format!("3 {file}\n")),
        (&["mkdir", "-p", &path("deep/er")], ""),
        (&["cp", &file, &copy], ""),
        (&["cat", &copy], "one\ntwo\nthree\n"),
        (&["rm", "-r", &path("deep")], ""),
        (&["touch", &path("new")], ""),
        (&["ls", &path("")], "file\nnew\n"),
        (&["test", "-f", &file], ""),
        (&["[", "-d", &file, "]"], ""),
    ] {
        let output = run(arguments);
        assert_eq!(String::from_utf8_lossy(&output.stdout), text, "{arguments:?}: {output:?}");
        assert_eq!(output.status.success(), arguments[0] != "[", "{arguments:?}");
    }
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

    // What is older than HTTP/1.1 expects one answer, and the end.
    for (request, close) in [
        ("GET /healthz HTTP/1.0\r\n\r\n", true),
        ("GET /healthz HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\nGET / HTTP/1.0\r\n\r\n", false),
        ("GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: x, close\r\n\r\n", true),
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", http)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), if close { 1 } else { 2 }, "{answer}");
    }

    assert_eq!(run(&["client", "tcp", &format!("127.0.0.1:{tcp}"), "ping"]).stdout, b"ping");
    assert!(run(&["nc", "-z", "127.0.0.1", &tcp.to_string()]).status.success());
    let mut talking = Command::new(toolbox())
        .args(["nc", "127.0.0.1", &tcp.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    talking.stdin.take().unwrap().write_all(b"over nc").unwrap();
    assert_eq!(talking.wait_with_output().unwrap().stdout, b"over nc");
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
