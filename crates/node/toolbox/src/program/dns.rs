//! Names to addresses, and a look at what the cluster's DNS answers (RFC 1035).

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::Answer;

const TIMEOUT: Duration = Duration::from_secs(3);
const KINDS: &[(&str, u16)] = &[("A", 1), ("CNAME", 5), ("PTR", 12), ("TXT", 16), ("AAAA", 28), ("SRV", 33)];
const MAX_JUMPS: usize = 64;
const NXDOMAIN: u8 = 3;

/// `lookup [--tcp] [--server ADDRESS] NAME [KIND]`
pub fn run(arguments: &[String]) -> Answer {
    let mut config = Resolver::of_system();
    let (mut name, mut kinds) = (None, vec![]);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--tcp" => config.tcp = true,
            "--server" => {
                let text = rest.next().ok_or("--server wants an address")?;
                let ip = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
                config.servers =
                    vec![ip.or_else(|_| text.parse()).map_err(|_| format!("{text:?} is no address"))?];
            }
            option if option.starts_with('-') => return Err(format!("unknown option {option:?}")),
            text if name.is_none() => name = Some(text.to_owned()),
            text => kinds.push(kind_number(text)?),
        }
    }
    let name = name.ok_or("usage: lookup [--tcp] [--server ADDRESS] NAME [A|AAAA|SRV|CNAME|PTR|TXT]")?;
    let name = match name.parse::<IpAddr>() {
        Ok(ip) => {
            kinds = vec![12];
            reverse(ip)
        }
        Err(_) => name,
    };
    if kinds.is_empty() {
        kinds = vec![1, 28];
    }
    let mut found = false;
    for (server, name, kind, answer, took) in config.search(&name, &kinds)? {
        let (took, kind) = (took.as_micros() as f64 / 1000.0, kind_name(kind));
        println!(";; {name} {kind} from {server} in {took:.1} ms: {}", code_name(answer.code));
        for record in &answer.records {
            println!("{} {} {} {}", record.name, record.ttl, kind_name(record.kind), record.data);
            found = true;
        }
    }
    Ok(u8::from(!found))
}

/// `nslookup NAME [SERVER]`, as scripts that wait for a Service use it: 0 if the name has an address.
pub fn nslookup(arguments: &[String]) -> Answer {
    let mut names = arguments.iter().filter(|argument| !argument.starts_with('-'));
    let name = names.next().ok_or("usage: nslookup NAME [SERVER]")?;
    let mut config = Resolver::of_system();
    if let Some(server) = names.next() {
        let ip = *resolve(server)?.first().ok_or("the server has no address")?;
        config.servers = vec![SocketAddr::new(ip, 53)];
    }
    let (name, kinds) = match name.parse::<IpAddr>() {
        Ok(ip) => (reverse(ip), vec![12]),
        Err(_) => (name.clone(), vec![1, 28]),
    };
    let mut found = false;
    for (number, (server, asked, _, answer, _)) in config.search(&name, &kinds)?.into_iter().enumerate() {
        if number == 0 {
            println!("Server:\t\t{}\nAddress:\t{server}\n", server.ip());
        }
        if answer.code != 0 {
            println!("** server can't find {asked}: {}", code_name(answer.code));
            continue;
        }
        for record in &answer.records {
            match record.kind {
                1 | 28 => println!("Name:\t{}\nAddress: {}", record.name.trim_end_matches('.'), record.data),
                _ => println!(
                    "{}\t{} = {}",
                    record.name.trim_end_matches('.'),
                    kind_name(record.kind),
                    record.data
                ),
            }
            found = true;
        }
    }
    Ok(u8::from(!found))
}

/// The addresses of a host, IPv4 first.
pub fn resolve(host: &str) -> Result<Vec<IpAddr>, String> {
    if let Ok(ip) = host.trim_matches(['[', ']']).parse() {
        return Ok(vec![ip]);
    }
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let mut found = in_hosts(&hosts, host);
    if found.is_empty() {
        let config = Resolver::of_system();
        for (_, _, _, answer, _) in config.search(host, &[1, 28])? {
            found.extend(answer.records.iter().filter_map(|r| r.data.parse::<IpAddr>().ok()));
        }
    }
    if found.is_empty() { Err(format!("{host}: no such host")) } else { Ok(found) }
}

fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let fields = |line: &str| -> Option<IpAddr> {
        let mut fields = line.split('#').next()?.split_whitespace();
        let ip = fields.next()?.parse().ok()?;
        fields.any(|name| name.eq_ignore_ascii_case(host)).then_some(ip)
    };
    text.lines().filter_map(fields).collect()
}

struct Resolver {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
    tcp: bool,
}

/// Who answered about which name and kind, what, and after what time.
type Found = (SocketAddr, String, u16, Message, Duration);

struct Message {
    code: u8,
    truncated: bool,
    records: Vec<Record>,
}

struct Record {
    name: String,
    kind: u16,
    ttl: u32,
    data: String,
}

impl Resolver {
    fn of_system() -> Self {
        Self::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let mut config = Self { servers: Vec::new(), search: Vec::new(), ndots: 1, tcp: false };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let ip = words.next().and_then(|w| w.parse().ok());
                    config.servers.extend(ip.map(|ip: IpAddr| SocketAddr::new(ip, 53)));
                }
                Some("search") => config.search = words.map(|w| w.trim_end_matches('.').to_owned()).collect(),
                Some("options") => {
                    let ndots = words.filter_map(|w| w.strip_prefix("ndots:")).find_map(|n| n.parse().ok());
                    config.ndots = ndots.unwrap_or(config.ndots);
                }
                _ => {}
            }
        }
        if config.servers.is_empty() {
            config.servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, 53)));
        }
        config
    }

    /// The names to try, in the order of resolv.conf(5).
    fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let mut names: Vec<String> = self.search.iter().map(|domain| format!("{name}.{domain}")).collect();
        let at = if name.matches('.').count() >= self.ndots { 0 } else { names.len() };
        names.insert(at, name.to_owned());
        names
    }

    /// Asks for one name after the other until one exists, as resolvers of C libraries do: also a name that has
    /// nothing of what was asked for is found, and only one that does not exist at all makes the next one be tried.
    fn search(&self, name: &str, kinds: &[u16]) -> Result<Vec<Found>, String> {
        let mut all = Vec::new();
        for candidate in self.candidates(name) {
            all.clear();
            let mut failed = None;
            for kind in kinds {
                let start = Instant::now();
                match self.ask(&candidate, *kind) {
                    Ok((server, answer)) => {
                        all.push((server, candidate.clone(), *kind, answer, start.elapsed()))
                    }
                    Err(error) => failed = Some(error),
                }
            }
            match failed {
                // An answer of one kind is an answer.
                Some(error) if all.iter().all(|(_, _, _, answer, _)| answer.records.is_empty()) => {
                    return Err(error);
                }
                None if all.iter().all(|(_, _, _, answer, _)| answer.code == NXDOMAIN) => {}
                _ => break,
            }
        }
        if all.is_empty() { Err(format!("{name}: nothing to ask for")) } else { Ok(all) }
    }

    fn ask(&self, name: &str, kind: u16) -> Result<(SocketAddr, Message), String> {
        let mut last = String::new();
        for server in &self.servers {
            let answer = match self.tcp {
                true => over_tcp(*server, name, kind),
                false => over_udp(*server, name, kind).and_then(|answer| match answer.truncated {
                    true => over_tcp(*server, name, kind),
                    false => Ok(answer),
                }),
            };
            match answer {
                Ok(answer) => return Ok((*server, answer)),
                Err(error) => last = format!("{name}: {server}: {error}"),
            }
        }
        Err(last)
    }
}

fn question(name: &str, kind: u16) -> Result<(u16, Vec<u8>), String> {
    // Unpredictable enough for a tool: a hasher of the standard library has random keys.
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), name);
    let id = random as u16;
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|l| !l.is_empty()) {
        let len = u8::try_from(label.len())
            .ok()
            .filter(|l| *l < 64)
            .ok_or_else(|| format!("{label:?} is too long"))?;
        bytes.push(len);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    Ok((id, bytes))
}

fn over_udp(server: SocketAddr, name: &str, kind: u16) -> Result<Message, String> {
    let text = |e: std::io::Error| e.to_string();
    let (id, bytes) = question(name, kind)?;
    let any =
        if server.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).map_err(text)?;
    socket.connect(server).map_err(text)?;
    socket.set_read_timeout(Some(TIMEOUT)).map_err(text)?;
    let mut buffer = [0; 4096];
    for _ in 0..2 {
        socket.send(&bytes).map_err(text)?;
        match socket.recv(&mut buffer) {
            Ok(n) if n >= 2 && buffer[..2] == id.to_be_bytes() => return parse(&buffer[..n]),
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(text(e)),
        }
    }
    Err("no answer".to_owned())
}

fn over_tcp(server: SocketAddr, name: &str, kind: u16) -> Result<Message, String> {
    let text = |e: std::io::Error| e.to_string();
    let (_, bytes) = question(name, kind)?;
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT).map_err(text)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(text)?;
    let mut framed = (bytes.len() as u16).to_be_bytes().to_vec();
    framed.extend(bytes);
    stream.write_all(&framed).map_err(text)?;
    let mut len = [0; 2];
    stream.read_exact(&mut len).map_err(text)?;
    let mut answer = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut answer).map_err(text)?;
    parse(&answer)
}

fn parse(bytes: &[u8]) -> Result<Message, String> {
    read_message(bytes).ok_or_else(|| "malformed answer".to_owned())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn read_message(bytes: &[u8]) -> Option<Message> {
    let (questions, answers) = (u16_at(bytes, 4)?, u16_at(bytes, 6)?);
    let mut at = 12;
    for _ in 0..questions {
        at = read_name(bytes, at)?.1 + 4;
    }
    let mut records = Vec::new();
    for _ in 0..answers {
        let (name, next) = read_name(bytes, at)?;
        let kind = u16_at(bytes, next)?;
        let ttl = u32::from_be_bytes(bytes.get(next + 4..next + 8)?.try_into().ok()?);
        let len = usize::from(u16_at(bytes, next + 8)?);
        let start = next + 10;
        let data = read_data(bytes, kind, start, bytes.get(start..start + len)?)?;
        records.push(Record { name, kind, ttl, data });
        at = start + len;
    }
    Some(Message { code: bytes[3] & 15, truncated: bytes[2] & 2 != 0, records })
}

fn read_data(bytes: &[u8], kind: u16, at: usize, data: &[u8]) -> Option<String> {
    Some(match kind {
        1 => Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).to_string(),
        28 => Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).to_string(),
        5 | 12 => read_name(bytes, at)?.0,
        33 => {
            let (priority, weight, port) = (u16_at(data, 0)?, u16_at(data, 2)?, u16_at(data, 4)?);
            format!("{priority} {weight} {port} {}", read_name(bytes, at + 6)?.0)
        }
        16 => {
            let mut text = String::new();
            let mut rest = data;
            while let Some((len, tail)) = rest.split_first() {
                let (piece, next) = tail.split_at_checked((*len).into())?;
                text += &format!("{:?} ", String::from_utf8_lossy(piece));
                rest = next;
            }
            text.trim_end().to_owned()
        }
        _ => format!("{} bytes", data.len()),
    })
}

/// A name, with compression, and where what follows it begins.
fn read_name(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut name, mut end) = (String::new(), None);
    for _ in 0..MAX_JUMPS + 128 {
        let len = usize::from(*bytes.get(at)?);
        match len {
            0 => {
                if name.is_empty() {
                    name.push('.');
                }
                return Some((name, end.unwrap_or(at + 1)));
            }
            1..64 => {
                name += &String::from_utf8_lossy(bytes.get(at + 1..at + 1 + len)?);
                name.push('.');
                at += 1 + len;
            }
            192.. => {
                end.get_or_insert(at + 2);
                at = usize::from(u16_at(bytes, at)? & 0x3fff);
            }
            _ => return None,
        }
    }
    None
}

fn reverse(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
        }
        IpAddr::V6(ip) => {
            let digits = ip.octets().into_iter().rev().map(|b| format!("{:x}.{:x}.", b & 15, b >> 4));
            digits.collect::<String>() + "ip6.arpa."
        }
    }
}

fn kind_number(text: &str) -> Result<u16, String> {
    let upper = text.to_ascii_uppercase();
    let found = KINDS.iter().find(|(name, _)| *name == upper).map(|(_, number)| *number);
    found.ok_or_else(|| format!("unknown record type {text:?}: A, AAAA, SRV, CNAME, PTR and TXT are known"))
}

fn kind_name(number: u16) -> String {
    KINDS
        .iter()
        .find(|(_, n)| *n == number)
        .map_or_else(|| format!("TYPE{number}"), |(name, _)| (*name).to_owned())
}

fn code_name(code: u8) -> String {
    match code {
        0 => "NOERROR".to_owned(),
        2 => "SERVFAIL".to_owned(),
        3 => "NXDOMAIN".to_owned(),
        5 => "REFUSED".to_owned(),
        other => format!("RCODE{other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let mut bytes = vec![0, 1, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0];
        bytes.extend(b"\x03web\x04test\x00\x00\x01\x00\x01");
        bytes.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x1e\x00\x04\x0a\x00\x00\x07");
        bytes.extend(
            b"\xc0\x0c\x00\x21\x00\x01\x00\x00\x00\x1e\x00\x0c\x00\x00\x00\x64\x00\x50\x03pod\xc0\x0c",
        );
        let message = read_message(&bytes).unwrap();
        assert_eq!(
            (message.records[0].name.as_str(), message.records[0].data.as_str()),
            ("web.test.", "10.0.0.7")
        );
        assert_eq!(message.records[1].data, "0 100 80 pod.web.test.");
        for end in 0..bytes.len() {
            assert!(read_message(&bytes[..end]).is_none());
        }
        assert!(read_name(&[0xc0, 0], 0).is_none(), "a loop");
    }

    #[test]
    fn the_search_list_is_used_as_documented() {
        let config = Resolver::parse("search a.b c\nnameserver 10.96.0.10\noptions ndots:5\n");
        assert_eq!(config.candidates("x.y"), ["x.y.a.b", "x.y.c", "x.y"]);
        assert_eq!(config.candidates("x.y."), ["x.y"]);
        assert_eq!(Resolver::parse("search a").candidates("x.y"), ["x.y", "x.y.a"]);
        assert_eq!(reverse("10.1.2.3".parse().unwrap()), "3.2.1.10.in-addr.arpa.");
    }

    /// Asks again under the next name only where a name does not exist (also with nothing of that kind it does).
    #[test]
    fn the_search_ends_at_the_first_name_that_exists() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = socket.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let mut asked = Vec::new();
            let mut buffer = [0; 512];
            while asked.len() < 4 {
                let (n, from) = socket.recv_from(&mut buffer).unwrap();
                let name = read_name(&buffer[..n], 12).unwrap().0;
                let code = if name == "web.a." { NXDOMAIN } else { 0 };
                buffer[2..4].copy_from_slice(&[0x81, 0x80 | code]);
                socket.send_to(&buffer[..n], from).unwrap();
                asked.push(name);
            }
            asked
        });
        let mut config = Resolver::parse("search a b c\noptions ndots:5\n");
        config.servers = vec![server];
        let found = config.search("web", &[1, 28]).unwrap();
        assert!(found.iter().all(|(_, name, _, answer, _)| name == "web.b" && answer.code == 0));
        assert_eq!(answering.join().unwrap(), ["web.a.", "web.a.", "web.b.", "web.b."]);
    }

    #[test]
    fn hosts_come_first() {
        let text = "127.0.0.1 localhost\n10.0.0.1 web web.local # gone\n";
        assert_eq!(in_hosts(text, "web.local"), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert!(in_hosts(text, "gone").is_empty());
    }
}
