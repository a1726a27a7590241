//! Rules in the kernel's form.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_bindings::nftables::{
    self, CmpOps, CtKeys, MetaKeys, Nfgenmsg, PayloadBase, PushExprListAttrs, Registers, VerdictCode,
};
use netlink_bindings::traits::Pusher;
use netlink_bindings::utils::{finalize_nested_header, push_header, push_nested_header};

use super::FIREWALL_TABLE;
use super::ruleset::{Chain, Expression, Hook, Rule, Ruleset};
use crate::netlink::Message;
use crate::routes::{Family, MARK_MASK};
use crate::tun::INTERFACE_NAME_BYTES;

/// `NFPROTO_INET`: both families.
pub(super) const INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const SUBSYSTEM: u16 = 10;
const REGISTER: u32 = Registers::Reg1 as u32;
const SOURCE_NAT: u32 = 0;
const DESTINATION_NAT: u32 = 1;
/// `NF_CT_STATE_BIT` of established and related.
const ESTABLISHED_RELATED: u32 = 2 | 4;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
/// Attributes that the specification behind `netlink-bindings` does not have (linux/netfilter/nf_tables.h).
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;

/// The transaction that replaces our table.
pub(super) fn replace(ruleset: &Ruleset) -> Vec<Message> {
    let mut messages = vec![begin()];
    // A table that is not there can't be deleted, and one that is there may be created again: so it is gone for sure.
    messages.extend([create_table(""), delete_table(), create_table(&ruleset.fingerprint())]);
    for chain in &ruleset.chains {
        messages.push(create_chain(chain));
        messages.extend(chain.rules.iter().map(|rule| create_rule(chain, rule)));
    }
    messages.push(end());
    messages
}

/// The transaction that removes our table.
pub(super) fn remove() -> Vec<Message> {
    vec![begin(), delete_table(), end()]
}

/// The data that goes with a table or a rule: its comment, as `nft` writes it.
pub(super) fn comment_data(comment: &str) -> Vec<u8> {
    let text = &comment.as_bytes()[..comment.len().min(127)];
    let mut data = vec![0, text.len() as u8 + 1];
    data.extend(text);
    data.push(0);
    data
}

fn begin() -> Message {
    Message::new(&nftables::Request::new().op_batch_begin_do(&bracket()))
}

fn end() -> Message {
    Message::new(&nftables::Request::new().op_batch_end_do(&bracket()))
}

fn bracket() -> Nfgenmsg {
    let mut header = Nfgenmsg::new();
    header.set_res_id(SUBSYSTEM);
    header
}

/// The header of a message about our table.
pub(super) fn header() -> Nfgenmsg {
    let mut header = Nfgenmsg::new();
    header.nfgen_family = INET;
    header
}

fn create_table(comment: &str) -> Message {
    let mut request = nftables::Request::new().set_create().op_newtable_do(&header());
    let attributes = request.encode().push_name_bytes(FIREWALL_TABLE.as_bytes()).push_flags(0);
    attributes.push_userdata(&comment_data(comment));
    Message::new(&request)
}

fn delete_table() -> Message {
    let mut request = nftables::Request::new().op_deltable_do(&header());
    request.encode().push_name_bytes(FIREWALL_TABLE.as_bytes());
    Message::new(&request)
}

fn create_chain(chain: &Chain) -> Message {
    let kind = if chain.translates { "nat" } else { "filter" };
    let mut request = nftables::Request::new().set_create().op_newchain_do(&header());
    request
        .encode()
        .push_table_bytes(FIREWALL_TABLE.as_bytes())
        .push_name_bytes(chain.name.as_bytes())
        .nested_hook()
        .push_num(hook_number(chain.hook))
        .push_priority(chain.priority)
        .end_nested()
        .push_policy(VerdictCode::Accept as u32)
        .push_type_bytes(kind.as_bytes());
    Message::new(&request)
}

fn create_rule(chain: &Chain, rule: &Rule) -> Message {
    let mut expressions = Vec::new();
    for expression in &rule.expressions {
        push_expression(&mut expressions, expression);
    }
    let mut request = nftables::Request::new().set_create().set_append().op_newrule_do(&header());
    let mut list = request
        .encode()
        .push_table_bytes(FIREWALL_TABLE.as_bytes())
        .push_chain_bytes(chain.name.as_bytes())
        .nested_expressions();
    list.as_vec_mut().extend(expressions);
    list.end_nested().push_userdata(&comment_data(rule.comment));
    Message::new(&request)
}

/// The kernel's number of a hook (`NF_INET_…`).
pub(super) fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}

fn push_expression(list: &mut Vec<u8>, expression: &Expression) {
    match expression {
        Expression::InputInterface(name, is) => {
            load_meta(list, MetaKeys::Iifname);
            compare(list, if *is { CmpOps::Eq } else { CmpOps::Neq }, &padded(name));
        }
        Expression::OutputInterface(name) => {
            load_meta(list, MetaKeys::Oifname);
            compare(list, CmpOps::Eq, &padded(name));
        }
        Expression::Family(family) => {
            load_meta(list, MetaKeys::Nfproto);
            compare(list, CmpOps::Eq, &[protocol(*family)]);
        }
        Expression::Source(network) => match_network(list, network, 12, 8),
        Expression::Destination(network) => match_network(list, network, 16, 24),
        Expression::UdpPort(port) => {
            match_protocol(list, libc::IPPROTO_UDP as u8);
            load_payload(list, PayloadBase::TransportHeader, 2, 2);
            compare(list, CmpOps::Eq, &port.to_be_bytes());
        }
        Expression::TcpSyn => {
            match_protocol(list, libc::IPPROTO_TCP as u8);
            load_payload(list, PayloadBase::TransportHeader, 13, 1);
            mask(list, &[SYN | RST], &[0]);
            compare(list, CmpOps::Eq, &[SYN]);
        }
        Expression::Mark(mark) => {
            load_meta(list, MetaKeys::Mark);
            mask(list, &MARK_MASK.to_ne_bytes(), &[0; 4]);
            compare(list, CmpOps::Eq, &mark.to_ne_bytes());
        }
        Expression::ConnectionMark(mark) => {
            load_connection(list, CtKeys::Mark);
            mask(list, &MARK_MASK.to_ne_bytes(), &[0; 4]);
            compare(list, CmpOps::Eq, &mark.to_ne_bytes());
        }
        Expression::Established(is) => {
            load_connection(list, CtKeys::State);
            mask(list, &ESTABLISHED_RELATED.to_ne_bytes(), &[0; 4]);
            compare(list, if *is { CmpOps::Neq } else { CmpOps::Eq }, &[0; 4]);
        }
        Expression::SetMark(mark) => {
            load_meta(list, MetaKeys::Mark);
            mask(list, &(!MARK_MASK).to_ne_bytes(), &mark.to_ne_bytes());
            element(list).nested_data_meta().push_key(MetaKeys::Mark as u32).push_sreg(REGISTER);
        }
        Expression::SetConnectionMark(mark) => {
            load_connection(list, CtKeys::Mark);
            mask(list, &(!MARK_MASK).to_ne_bytes(), &mark.to_ne_bytes());
            element(list).nested_data_ct().push_key(CtKeys::Mark as u32).push_sreg(REGISTER);
        }
        Expression::ClampSegments => clamp_segments(list),
        Expression::Masquerade => by_hand(list, "masq", &[]),
        Expression::SourceNat(address) => translate(list, SOURCE_NAT, *address),
        Expression::DestinationNat(address) => translate(list, DESTINATION_NAT, *address),
        Expression::Accept => verdict(list, VerdictCode::Accept as u32),
        Expression::Drop => verdict(list, VerdictCode::Drop as u32),
        Expression::Return => verdict(list, VerdictCode::Return as u32),
    }
}

fn element(list: &mut Vec<u8>) -> nftables::PushExprAttrs<PushExprListAttrs<&mut Vec<u8>>> {
    PushExprListAttrs::new(list).nested_elem()
}

fn load_meta(list: &mut Vec<u8>, key: MetaKeys) {
    element(list).nested_data_meta().push_key(key as u32).push_dreg(REGISTER);
}

fn load_connection(list: &mut Vec<u8>, key: CtKeys) {
    element(list).nested_data_ct().push_key(key as u32).push_dreg(REGISTER);
}

fn load_payload(list: &mut Vec<u8>, base: PayloadBase, offset: u32, length: u32) {
    element(list).nested_data_payload().push_dreg(REGISTER).push_base(base as u32).push_offset(offset).push_len(length);
}

fn compare(list: &mut Vec<u8>, operation: CmpOps, value: &[u8]) {
    element(list).nested_data_cmp().push_sreg(REGISTER).push_op(operation as u32).nested_data().push_value(value);
}

/// `register = (register & mask) ^ flip`
fn mask(list: &mut Vec<u8>, mask: &[u8], flip: &[u8]) {
    element(list)
        .nested_data_bitwise()
        .push_sreg(REGISTER)
        .push_dreg(REGISTER)
        .push_len(mask.len() as u32)
        .nested_mask()
        .push_value(mask)
        .end_nested()
        .nested_xor()
        .push_value(flip);
}

fn verdict(list: &mut Vec<u8>, code: u32) {
    element(list)
        .nested_data_immediate()
        .push_dreg(Registers::RegVerdict as u32)
        .nested_data()
        .nested_verdict()
        .push_code(code);
}

fn match_protocol(list: &mut Vec<u8>, protocol: u8) {
    load_meta(list, MetaKeys::L4Proto);
    compare(list, CmpOps::Eq, &[protocol]);
}

fn match_network(list: &mut Vec<u8>, network: &IpNet, offset_v4: u32, offset_v6: u32) {
    let (address, netmask, offset) = match network {
        IpNet::V4(network) => (network.network().octets().to_vec(), network.netmask().octets().to_vec(), offset_v4),
        IpNet::V6(network) => (network.network().octets().to_vec(), network.netmask().octets().to_vec(), offset_v6),
    };
    load_payload(list, PayloadBase::NetworkHeader, offset, address.len() as u32);
    if network.prefix_len() < network.max_prefix_len() {
        mask(list, &netmask, &vec![0; netmask.len()]);
    }
    compare(list, CmpOps::Eq, &address);
}

fn translate(list: &mut Vec<u8>, kind: u32, address: IpAddr) {
    let (octets, family) = match address {
        IpAddr::V4(address) => (address.octets().to_vec(), Family::V4),
        IpAddr::V6(address) => (address.octets().to_vec(), Family::V6),
    };
    element(list).nested_data_immediate().push_dreg(REGISTER).nested_data().push_value(&octets);
    element(list)
        .nested_data_nat()
        .push_type(kind)
        .push_family(u32::from(protocol(family)))
        .push_reg_addr_min(REGISTER);
}

/// `tcp option maxseg size set rt mtu`: the kernel computes what fits both ways, and never raises what is announced.
fn clamp_segments(list: &mut Vec<u8>) {
    const SEGMENT_SIZE_OPTION: u8 = 2;
    const FITTING_SEGMENT: u32 = 3;
    const TO_NETWORK_ORDER: u32 = 1;
    const TCP_OPTION: u32 = 1;
    by_hand(list, "rt", &[word(1, REGISTER), word(2, FITTING_SEGMENT)]);
    by_hand(
        list,
        "byteorder",
        &[word(1, REGISTER), word(2, REGISTER), word(3, TO_NETWORK_ORDER), word(4, 2), word(5, 2)],
    );
    // The option's kind is one byte, then: from its third byte two bytes, in a TCP option, from the register.
    by_hand(
        list,
        "exthdr",
        &[(2, vec![SEGMENT_SIZE_OPTION]), word(3, 2), word(4, 2), word(6, TCP_OPTION), word(7, REGISTER)],
    );
}

fn word(attribute: u16, value: u32) -> (u16, Vec<u8>) {
    (attribute, value.to_be_bytes().to_vec())
}

fn by_hand(list: &mut Vec<u8>, name: &str, attributes: &[(u16, Vec<u8>)]) {
    let element = push_nested_header(list, LIST_ELEMENT);
    push_header(list, EXPRESSION_NAME, name.len() as u16 + 1);
    list.extend(name.as_bytes());
    list.push(0);
    let data = push_nested_header(list, EXPRESSION_DATA);
    for (attribute, value) in attributes {
        push_header(list, *attribute, value.len() as u16);
        list.extend(value);
    }
    finalize_nested_header(list, data);
    finalize_nested_header(list, element);
}

fn protocol(family: Family) -> u8 {
    match family {
        Family::V4 => NFPROTO_IPV4,
        Family::V6 => NFPROTO_IPV6,
    }
}

fn padded(name: &str) -> [u8; INTERFACE_NAME_BYTES + 1] {
    let mut padded = [0; INTERFACE_NAME_BYTES + 1];
    let length = name.len().min(INTERFACE_NAME_BYTES);
    padded[..length].copy_from_slice(&name.as_bytes()[..length]);
    padded
}
