//! Messages in and out.

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};

/// The largest UDP message that crosses any path unfragmented (DNS flag day 2020).
pub const UDP_PAYLOAD: u16 = 1232;
/// The largest message over TCP.
pub const TCP_PAYLOAD: u16 = u16::MAX;

/// Reads a request. The error is what to send back, if anything: responses and noise get none.
pub fn read(bytes: &[u8]) -> Result<Message, Option<Box<Message>>> {
    let (Some(id), Some(flags)) = (bytes.first_chunk::<2>(), bytes.get(2)) else { return Err(None) };
    let is_response = flags & 0x80 != 0;
    if is_response || bytes.len() < 12 {
        return Err(None);
    }
    let refuse = |code| Some(Box::new(Message::error_msg(u16::from_be_bytes(*id), OpCode::Query, code)));
    let message = Message::from_vec(bytes).map_err(|_| refuse(ResponseCode::FormErr))?;
    if message.metadata.message_type != MessageType::Query {
        return Err(None);
    }
    Ok(message)
}

/// An empty response to a request: same ID, question and, if it had one, an EDNS record.
pub fn response(request: &Message, code: ResponseCode) -> Message {
    let mut metadata = Metadata::response_from_request(&request.metadata);
    metadata.recursion_available = true;
    metadata.response_code = code;
    let mut message = Message::response(metadata.id, metadata.op_code);
    message.metadata = metadata;
    message.queries.clone_from(&request.queries);
    if let Some(edns) = &request.edns {
        let mut own = Edns::new();
        own.set_max_payload(UDP_PAYLOAD).set_dnssec_ok(edns.flags().dnssec_ok);
        message.set_edns(own);
    }
    message
}

/// The most bytes that an answer over UDP may have: what the client takes, and no more than a path surely carries.
pub fn udp_limit(request: &Message) -> u16 {
    request.max_payload().clamp(512, UDP_PAYLOAD)
}

/// Writes a message of at most `limit` bytes. What is too much is left out: first the records that were not
/// asked for, then answers, with the mark that there are more.
pub fn write(mut message: Message, limit: u16) -> Result<Vec<u8>, ProtoError> {
    let limit = usize::from(limit);
    let mut bytes = message.to_vec()?;
    if bytes.len() > limit {
        message.additionals.clear();
        bytes = message.to_vec()?;
    }
    while bytes.len() > limit && !(message.answers.is_empty() && message.authorities.is_empty()) {
        message.metadata.truncation = true;
        message.authorities.clear();
        // No record is smaller than an address with a compressed name.
        let excess = (bytes.len() - limit).div_ceil(28).max(1);
        message.answers.truncate(message.answers.len().saturating_sub(excess));
        bytes = message.to_vec()?;
    }
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::op::Query;
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, RData, Record, RecordType};

    use super::*;

    fn large() -> Message {
        let name = Name::from_ascii("web.default.svc.cluster.local.").unwrap();
        let mut request = Message::query();
        request.add_query(Query::query(name.clone(), RecordType::A));
        request.set_edns(Edns::new());
        let mut message = response(&request, ResponseCode::NoError);
        message.answers = (0..200)
            .map(|i| Record::from_rdata(name.clone(), 5, RData::A(A(Ipv4Addr::new(10, 0, 0, i)))))
            .collect();
        message
    }

    #[test]
    fn what_does_not_fit_is_cut_and_marked() {
        let bytes = write(large(), 512).unwrap();
        let message = Message::from_vec(&bytes).unwrap();
        assert!(bytes.len() <= 512 && message.metadata.truncation);
        assert!(message.answers.len() > 10 && message.edns.is_some());
        let whole = Message::from_vec(&write(large(), TCP_PAYLOAD).unwrap()).unwrap();
        assert!(!whole.metadata.truncation && whole.answers.len() == 200);
    }

    #[test]
    fn noise_is_ignored_and_broken_requests_are_refused() {
        assert!(matches!(read(b"x"), Err(None)));
        let mut broken = vec![0x12, 0x34, 0x01, 0x00, 0, 9, 0, 0, 0, 0, 0, 0];
        let refusal = read(&broken).unwrap_err().unwrap();
        assert_eq!((refusal.metadata.id, refusal.metadata.response_code), (0x1234, ResponseCode::FormErr));
        broken[2] |= 0x80;
        assert!(matches!(read(&broken), Err(None)), "a response to us would make a loop");
    }
}
