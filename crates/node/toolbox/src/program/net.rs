//! `nc`, `nslookup`.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use super::{Answer, client};

/// `nc [-u] [-z] [-v] [-w SECONDS] HOST PORT`, or `nc [-u] -l -p PORT`: standard input goes out, what comes is
/// printed.
pub fn nc(arguments: &[String]) -> Answer {
    let (mut letters, mut names, mut port, mut patience) = (String::new(), Vec::new(), None, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.strip_prefix('-').filter(|rest| !rest.is_empty()) {
            Some(option) => {
                for letter in option.chars() {
                    match letter {
                        'w' | 'p' => {
                            let number: u16 =
                                rest.next().and_then(|n| n.parse().ok()).ok_or("a number is missing")?;
                            if letter == 'p' { port = Some(number) } else { patience = Some(number) }
                        }
                        'u' | 'z' | 'v' | 'l' | 'n' => letters.push(letter),
                        other => {
                            return Err(format!(
                                "unknown option -{other}: -l, -n, -p, -u, -v, -w, -z are known"
                            ));
                        }
                    }
                }
            }
            None => names.push(argument.as_str()),
        }
    }
    let has = |letter: char| letters.contains(letter);
    let patience = patience.map(|seconds| Duration::from_secs(u64::from(seconds.max(1))));
    if has('l') {
        let given = names.last().and_then(|name| name.parse().ok());
        return listen(port.or(given).ok_or("-l wants a port")?, has('u'));
    }
    let [host, port] = names[..] else { return Err("usage: nc [-u] [-z] [-w SECONDS] HOST PORT".to_owned()) };
    let host =
        if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
    let target = format!("{host}:{port}");
    if has('u') {
        return talk_udp(&client::udp_socket(&target)?, patience);
    }
    let stream = client::connect_within(&target, 0, patience.unwrap_or(client::TIMEOUT))?;
    if has('v') {
        eprintln!("{host} ({port}) open");
    }
    if has('z') {
        return Ok(0);
    }
    stream.set_read_timeout(patience).map_err(text)?;
    talk(stream)
}

fn listen(port: u16, udp: bool) -> Answer {
    if udp {
        let socket =
            UdpSocket::bind(("::", port)).or_else(|_| UdpSocket::bind(("0.0.0.0", port))).map_err(text)?;
        let mut buffer = [0; 65536];
        let (len, peer) = socket.recv_from(&mut buffer).map_err(text)?;
        super::small::write_out(&buffer[..len])?;
        socket.connect(peer).map_err(text)?;
        return talk_udp(&socket, None);
    }
    let listener =
        TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port))).map_err(text)?;
    let (stream, _) = listener.accept().map_err(text)?;
    talk(stream)
}

/// Until the other side ends.
fn talk(mut stream: TcpStream) -> Answer {
    let mut sending = stream.try_clone().map_err(text)?;
    thread::spawn(move || {
        // The other side may have ended first.
        let _ = io::copy(&mut io::stdin(), &mut sending);
        let _ = sending.shutdown(Shutdown::Write);
    });
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(0),
            Ok(len) => super::small::write_out(&buffer[..len])?,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(1);
            }
            Err(error) => return Err(text(error)),
        };
    }
}

fn talk_udp(socket: &UdpSocket, patience: Option<Duration>) -> Answer {
    let receiving = socket.try_clone().map_err(text)?;
    receiving.set_read_timeout(patience).map_err(text)?;
    let answers = thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok(len) = receiving.recv(&mut buffer) {
            let mut out = io::stdout().lock();
            let _ = out.write_all(&buffer[..len]).and_then(|()| out.flush());
        }
    });
    let mut buffer = [0; 16 * 1024];
    while let Ok(len @ 1..) = io::stdin().read(&mut buffer) {
        socket.send(&buffer[..len]).map_err(text)?;
    }
    // A panic of the printing thread is no answer either.
    let _ = answers.join();
    Ok(0)
}

fn text(error: io::Error) -> String {
    error.to_string()
}
