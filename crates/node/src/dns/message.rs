use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use mesh::{Question, QuestionKind, Resolution};

/// Seconds that an answer may be kept.
const POSITIVE_TTL: u32 = 5;
/// The longest answer by UDP to who announces no more.
const PLAIN_LIMIT: usize = 512;

/// A question as it came, understood as far as this server has to.
pub(super) struct Asked {
    message: Message,
    query: Query,
}

impl Asked {
    /// Reads a question; `None` for what gets no answer at all: an answer, or nothing that is DNS.
    pub(super) fn read(bytes: &[u8]) -> Option<Result<Self, Vec<u8>>> {
        let message = Message::from_vec(bytes).ok()?;
        if message.metadata.message_type != MessageType::Query {
            return None;
        }
        let refuse = |code| Some(Err(encode(&reply(&message, code))?));
        if message.metadata.op_code != OpCode::Query {
            return refuse(ResponseCode::NotImp);
        }
        let [query] = message.queries.as_slice() else { return refuse(ResponseCode::FormErr) };
        let query = query.clone();
        Some(Ok(Self { message, query }))
    }

    /// The question for MagicDNS.
    pub(super) fn question(&self) -> Question {
        let kind = match self.query.query_type() {
            _ if self.query.query_class() != DNSClass::IN => QuestionKind::Other,
            RecordType::A => QuestionKind::A,
            RecordType::AAAA => QuestionKind::Aaaa,
            RecordType::PTR => QuestionKind::Ptr,
            RecordType::ANY => QuestionKind::Any,
            RecordType::NS | RecordType::SOA | RecordType::AXFR | RecordType::HINFO => QuestionKind::Zone,
            _ => QuestionKind::Other,
        };
        Question { name: self.query.name().to_ascii(), kind }
    }

    /// The answer, when MagicDNS has it.
    pub(super) fn answer(&self, resolution: &Resolution) -> Option<Vec<u8>> {
        let mut answer = match resolution {
            Resolution::Addresses(addresses) => {
                let mut answer = reply(&self.message, ResponseCode::NoError);
                answer.add_answers(addresses.iter().map(|address| self.record(address_data(*address))));
                answer
            }
            Resolution::Name(name) => {
                let mut answer = reply(&self.message, ResponseCode::NoError);
                let name = Name::from_ascii(name).ok()?;
                answer.add_answer(self.record(RData::PTR(PTR(name))));
                answer
            }
            Resolution::NoSuchName => reply(&self.message, ResponseCode::NXDomain),
            Resolution::NotImplemented => reply(&self.message, ResponseCode::NotImp),
            Resolution::Forward(_) | Resolution::ForwardToSystem => return None,
        };
        answer.metadata.authoritative = true;
        encode(&answer)
    }

    /// Says that nobody could be asked.
    pub(super) fn failed(&self) -> Option<Vec<u8>> {
        encode(&reply(&self.message, ResponseCode::ServFail))
    }

    /// Whether bytes answer this question: same number, same name, same kind.
    pub(super) fn is_answered_by(&self, bytes: &[u8]) -> bool {
        let Ok(answer) = Message::from_vec(bytes) else { return false };
        answer.metadata.message_type == MessageType::Response
            && answer.metadata.id == self.message.metadata.id
            && answer
                .queries
                .first()
                .is_none_or(|query| query.name() == self.query.name() && query.query_type() == self.query.query_type())
    }

    /// Cuts an answer that is longer than who asked takes by UDP: they ask again by TCP.
    pub(super) fn fit(&self, answer: Vec<u8>) -> Option<Vec<u8>> {
        let announced = self.message.edns.as_ref().map_or(PLAIN_LIMIT, |edns| usize::from(edns.max_payload()));
        if answer.len() <= announced.max(PLAIN_LIMIT) {
            return Some(answer);
        }
        let mut cut = reply(&self.message, ResponseCode::NoError);
        cut.metadata.truncation = true;
        encode(&cut)
    }

    fn record(&self, data: RData) -> Record {
        Record::from_rdata(self.query.name().clone(), POSITIVE_TTL, data)
    }
}

/// Whether an answer was cut.
pub(super) fn is_cut(answer: &[u8]) -> bool {
    answer.get(2).is_some_and(|flags| flags & 2 != 0)
}

fn reply(message: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::response(message.metadata.id, message.metadata.op_code);
    reply.metadata.recursion_desired = message.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = code;
    reply.add_queries(message.queries.iter().take(1).cloned());
    reply
}

fn encode(message: &Message) -> Option<Vec<u8>> {
    message.to_vec().ok()
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::query();
        message.metadata.id = 7;
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message.to_vec().unwrap()
    }

    fn asked(name: &str, kind: RecordType) -> Asked {
        Asked::read(&question(name, kind)).unwrap().ok().unwrap()
    }

    #[test]
    fn a_question_is_understood_and_its_answer_repeats_it() {
        let asked = asked("Db.example.ts.net.", RecordType::A);
        assert_eq!(asked.question(), Question { name: "Db.example.ts.net.".to_owned(), kind: QuestionKind::A });
        let addresses = vec!["100.64.0.2".parse().unwrap()];
        let answer = asked.answer(&Resolution::Addresses(addresses)).unwrap();
        assert!(asked.is_answered_by(&answer));
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.answers[0].data, RData::A(A::new(100, 64, 0, 2)));
        assert!(answer.metadata.authoritative && answer.metadata.recursion_desired);
    }

    #[test]
    fn what_nobody_has_is_told_by_code() {
        let asked = asked("no.example.ts.net.", RecordType::A);
        for (resolution, code) in [
            (Resolution::NoSuchName, ResponseCode::NXDomain),
            (Resolution::NotImplemented, ResponseCode::NotImp),
            (Resolution::Addresses(Vec::new()), ResponseCode::NoError),
        ] {
            let answer = Message::from_vec(&asked.answer(&resolution).unwrap()).unwrap();
            assert_eq!((answer.metadata.response_code, answer.answers.len()), (code, 0));
        }
        assert_eq!(asked.answer(&Resolution::ForwardToSystem), None);
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let first = asked("a.example.", RecordType::A);
        let answer = |name: &str, kind| asked(name, kind).failed().unwrap();
        assert!(first.is_answered_by(&answer("a.example.", RecordType::A)));
        assert!(!first.is_answered_by(&answer("b.example.", RecordType::A)));
        assert!(!first.is_answered_by(&answer("a.example.", RecordType::AAAA)));
        let mut other_number = answer("a.example.", RecordType::A);
        other_number[1] ^= 1;
        assert!(!first.is_answered_by(&other_number));
        assert!(!first.is_answered_by(&question("a.example.", RecordType::A)));
    }

    #[test]
    fn a_long_answer_by_udp_is_cut() {
        let asked = asked("many.example.", RecordType::A);
        let many = (0..100).map(|last| IpAddr::from([10, 0, 0, last])).collect();
        let answer = asked.answer(&Resolution::Addresses(many)).unwrap();
        assert!(answer.len() > PLAIN_LIMIT && !is_cut(&answer));
        let cut = asked.fit(answer).unwrap();
        assert!(cut.len() <= PLAIN_LIMIT && is_cut(&cut));
    }

    #[test]
    fn what_is_no_question_gets_no_answer() {
        assert!(Asked::read(b"").is_none());
        assert!(Asked::read(&[0xff; 64]).is_none());
        let answer = asked("a.example.", RecordType::A).failed().unwrap();
        assert!(Asked::read(&answer).is_none());
        for length in 0..question("a.example.", RecordType::A).len() {
            assert!(Asked::read(&question("a.example.", RecordType::A)[..length]).is_none_or(|read| read.is_err()));
        }
    }
}
