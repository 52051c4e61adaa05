//! A server on loopback between a mocked API, a fake upstream and a client.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Edns, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tokio_util::sync::DropGuard;

use super::*;

/// An API with these Services and slices, whose watches stay silent.
fn api(services: Value, slices: Value) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let (services, slices) = (services.clone(), slices.clone());
        async move {
            if request.uri().query().is_some_and(|q| q.contains("watch=")) {
                return std::future::pending().await;
            }
            let items = if request.uri().path().ends_with("/services") { services } else { slices };
            let list = json!({"metadata": {"resourceVersion": "1"}, "items": items}).to_string();
            Ok::<_, Infallible>(Response::new(Body::from(list.into_bytes())))
        }
    });
    Client::new(service, "default")
}

/// A resolver that knows `many.example` (too much for UDP), and that every other name of `example` is 9.9.9.9.
async fn upstream() -> (SocketAddr, Arc<AtomicUsize>, DropGuard) {
    let (udp, tcp) = open((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let (address, asked, token) =
        (udp.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)), CancellationToken::new());
    let count = asked.clone();
    let over_udp = async move {
        let mut buffer = vec![0; 4096];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            let answer = known(&Message::from_vec(&buffer[..length]).unwrap());
            udp.send_to(&message::write(answer, 1232).unwrap(), from).await.unwrap();
        }
    };
    let over_tcp = async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let mut buffer = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut buffer).await.unwrap();
            let bytes = known(&Message::from_vec(&buffer).unwrap()).to_vec().unwrap();
            stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
        }
    };
    tokio::spawn(token.clone().run_until_cancelled_owned(over_udp));
    tokio::spawn(token.clone().run_until_cancelled_owned(over_tcp));
    (address, asked, token.drop_guard())
}

fn known(request: &Message) -> Message {
    let name = request.queries[0].name().clone();
    let record = |i: u8| Record::from_rdata(name.clone(), 300, RData::A(A(Ipv4Addr::new(9, 9, 9, i))));
    let mut answer = message::response(request, ResponseCode::NoError);
    match name.to_string().to_ascii_lowercase().as_str() {
        "many.example." => answer.answers = (0..200).map(record).collect(),
        text if text.ends_with("example.") => answer.answers = vec![record(9)],
        _ => {
            answer.metadata.response_code = ResponseCode::NXDomain;
            let soa = SOA::new(Name::root(), Name::root(), 1, 1, 1, 1, 60);
            answer.authorities = vec![Record::from_rdata(Name::root(), 60, RData::SOA(soa))];
        }
    }
    answer
}

struct Lab {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    stats: Box<dyn Fn() -> StatsSnapshot>,
    _running: [DropGuard; 2],
}

async fn lab() -> Lab {
    let (resolver, asked, guard) = upstream().await;
    let mut lab = serve(Upstream::Servers(vec![resolver])).await;
    (lab.asked, lab._running[0]) = (asked, guard);
    lab
}

async fn serve(upstream: Upstream) -> Lab {
    let endpoints: Vec<Value> = (0..100).map(|i| json!({"addresses": [format!("10.1.0.{i}")]})).collect();
    let labels = json!({"kubernetes.io/service-name": "big"});
    let meta = |name: &str| json!({"name": name, "namespace": "default", "resourceVersion": "1"});
    let mut slice = meta("big-1");
    slice["labels"] = labels;
    let client = api(
        json!([
            {"metadata": meta("web"), "spec": {"clusterIP": "10.0.0.1"}},
            {"metadata": meta("big"), "spec": {"clusterIP": "None"}},
            {"metadata": meta("out"), "spec": {"type": "ExternalName", "externalName": "www.example"}},
            {"metadata": meta("in"), "spec": {"type": "ExternalName", "externalName": "web.default.svc.cluster.local"}}
        ]),
        json!([{"metadata": slice, "addressType": "IPv4", "endpoints": endpoints, "ports": []}]),
    );
    let config =
        Config { domain: "cluster.local".into(), upstream, listen: vec![(Ipv4Addr::LOCALHOST, 0).into()] };
    let server = Server::new(config, client).unwrap();
    let (address, stats, mut readiness) =
        (server.sockets[0].0.local_addr().unwrap(), Box::new(server.stats()), server.readiness());
    let token = CancellationToken::new();
    tokio::spawn(server.run(token.clone()));
    assert!(readiness.wait().await);
    let spare = CancellationToken::new().drop_guard();
    Lab { address, asked: Arc::default(), stats, _running: [spare, token.drop_guard()] }
}

fn request(name: &str, kind: RecordType, edns: bool) -> Message {
    let mut request = Message::query();
    request.metadata.id = 77;
    request.metadata.recursion_desired = true;
    request.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    if edns {
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        request.set_edns(edns);
    }
    request
}

async fn over_udp(lab: &Lab, request: &Message) -> Message {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.send_to(&request.to_vec().unwrap(), lab.address).await.unwrap();
    let mut buffer = vec![0; 4096];
    let (length, _) = timeout(Duration::from_secs(20), socket.recv_from(&mut buffer)).await.unwrap().unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn over_tcp(lab: &Lab, request: &Message) -> Message {
    let mut stream = TcpStream::connect(lab.address).await.unwrap();
    let bytes = request.to_vec().unwrap();
    stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut buffer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut buffer).await.unwrap();
    Message::from_vec(&buffer).unwrap()
}

async fn ask(lab: &Lab, name: &str) -> Message {
    over_udp(lab, &request(name, RecordType::A, true)).await
}

#[tokio::test]
async fn names_of_the_cluster() {
    let lab = lab().await;
    let answer = ask(&lab, "wEb.default.svc.cluster.local.").await;
    assert_eq!(answer.metadata.id, 77);
    assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
    assert_eq!(answer.queries[0].name().to_ascii(), "wEb.default.svc.cluster.local.");
    assert_eq!(answer.answers[0].data.to_string(), "10.0.0.1");
    let missing = ask(&lab, "no.default.svc.cluster.local.").await;
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(missing.authorities[0].record_type(), RecordType::SOA);
    assert_eq!(lab.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn long_answers_are_cut_over_udp_and_whole_over_tcp() {
    let lab = lab().await;
    let name = "big.default.svc.cluster.local.";
    let cut = over_udp(&lab, &request(name, RecordType::A, false)).await;
    assert!(cut.metadata.truncation && cut.answers.len() < 100 && cut.edns.is_none());
    let whole = over_tcp(&lab, &request(name, RecordType::A, false)).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 100);
}

#[tokio::test]
async fn other_names_go_upstream_and_are_kept() {
    let lab = lab().await;
    assert_eq!(ask(&lab, "www.example.").await.answers[0].data.to_string(), "9.9.9.9");
    let again = ask(&lab, "WWW.example.").await;
    assert_eq!(again.queries[0].name().to_ascii(), "WWW.example.");
    assert_eq!(again.answers.len(), 1);
    assert_eq!(ask(&lab, "nowhere.test.").await.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(ask(&lab, "nowhere.test.").await.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(lab.asked.load(Ordering::Relaxed), 2);
    let stats = (lab.stats)();
    assert_eq!((stats.requests, stats.forwarded, stats.cached, stats.failed), (4, 2, 2, 0));
    let many = over_tcp(&lab, &request("many.example.", RecordType::A, false)).await;
    assert_eq!(many.answers.len(), 200, "asked again over TCP when cut over UDP");
}

#[tokio::test]
async fn external_names_are_followed() {
    let lab = lab().await;
    let out = ask(&lab, "out.default.svc.cluster.local.").await;
    let data: Vec<String> = out.answers.iter().map(|r| r.data.to_string()).collect();
    assert_eq!(data, ["www.example.", "9.9.9.9"]);
    let inner = ask(&lab, "in.default.svc.cluster.local.").await;
    let data: Vec<String> = inner.answers.iter().map(|r| r.data.to_string()).collect();
    assert_eq!(data, ["web.default.svc.cluster.local.", "10.0.0.1"]);
}

#[tokio::test]
async fn without_upstream_only_the_world_fails() {
    let lab = serve(Upstream::File("/nonexistent/resolv.conf".into())).await;
    assert_eq!(ask(&lab, "www.example.").await.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(ask(&lab, "web.default.svc.cluster.local.").await.answers.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused() {
    let lab = lab().await;
    let mut update = request("cluster.local.", RecordType::A, false);
    update.metadata.op_code = OpCode::Notify;
    assert_eq!(over_udp(&lab, &update).await.metadata.response_code, ResponseCode::NotImp);
    let transfer = request("cluster.local.", RecordType::AXFR, false);
    assert_eq!(over_tcp(&lab, &transfer).await.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn an_address_may_come_later() {
    // TEST-NET-1 is on no interface here.
    assert!(open("192.0.2.53:0".parse().unwrap()).is_ok());
}
