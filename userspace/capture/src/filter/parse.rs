//! From the text of an expression to its nodes.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{End, FilterError, MAX_EXPRESSION, Node, Operator};
use crate::packet::{TCP, UDP};
use crate::ring::Direction;

/// Parentheses and negations within each other.
const MAX_DEPTH: usize = 32;

const CONTROL_BITS: [(&str, u8); 8] = [
    ("tcp-fin", 0x01),
    ("tcp-syn", 0x02),
    ("tcp-rst", 0x04),
    ("tcp-push", 0x08),
    ("tcp-ack", 0x10),
    ("tcp-urg", 0x20),
    ("tcp-ece", 0x40),
    ("tcp-cwr", 0x80),
];

pub(super) fn parse(text: &str) -> Result<Option<Node>, FilterError> {
    if text.len() > MAX_EXPRESSION {
        return Err(FilterError {
            column: MAX_EXPRESSION + 1,
            what: format!("an expression has {MAX_EXPRESSION} octets at most"),
        });
    }
    let mut parser = Parser {
        tokens: tokens(text)?,
        next: 0,
        end: text.chars().count() + 1,
        depth: 0,
        last: None,
    };
    if parser.tokens.is_empty() {
        return Ok(None);
    }
    let node = parser.expression()?;
    match parser.tokens.get(parser.next) {
        None => Ok(Some(node)),
        Some(_) => Err(parser.unexpected("\"and\" or \"or\"")),
    }
}

struct Token<'a> {
    /// From 1.
    column: usize,
    text: &'a str,
}

/// Words, and signs of one or two characters.
fn tokens(text: &str) -> Result<Vec<Token<'_>>, FilterError> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '/' | '-' | '_');
    let mut tokens = Vec::new();
    let mut rest = text.char_indices().enumerate().peekable();
    while let Some((column, (start, first))) = rest.next() {
        if first.is_whitespace() {
            continue;
        }
        let mut end = start + first.len_utf8();
        if is_word(first) {
            while let Some((_, (at, next))) = rest.next_if(|&(_, (_, next))| is_word(next)) {
                end = at + next.len_utf8();
            }
        } else if "()[]!&|=<>".contains(first) {
            let doubles = ["&&", "||", "==", "!=", "<=", ">="];
            if doubles.iter().any(|double| text[start..].starts_with(double)) {
                rest.next();
                end += 1;
            }
        } else {
            return Err(FilterError {
                column: column + 1,
                what: format!("\"{first}\" means nothing in a filter"),
            });
        }
        tokens.push(Token {
            column: column + 1,
            text: &text[start..end],
        });
    }
    Ok(tokens)
}

/// The kind of an identifier.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Host,
    Net,
    Port,
    PortRange,
    Protocol,
}

impl Kind {
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "host" => Self::Host,
            "net" => Self::Net,
            "port" => Self::Port,
            "portrange" => Self::PortRange,
            "proto" => Self::Protocol,
            _ => return None,
        })
    }
}

/// The qualifiers before an identifier, which those behind it may leave out.
#[derive(Clone, Copy)]
struct Qualifiers {
    protocol: Option<Protocol>,
    end: End,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Version(u8),
    Number(u8),
}

impl Protocol {
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "ip" => Self::Version(4),
            "ip6" => Self::Version(6),
            "tcp" => Self::Number(TCP),
            "udp" => Self::Number(UDP),
            "icmp" => Self::Number(1),
            "icmp6" => Self::Number(58),
            _ => return None,
        })
    }

    fn node(self) -> Node {
        match self {
            Self::Version(version) => Node::Version(version),
            Self::Number(number) => Node::Protocol(number),
        }
    }
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    next: usize,
    /// The column behind the expression.
    end: usize,
    depth: usize,
    last: Option<Qualifiers>,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.tokens.get(self.next).map(|token| token.text)
    }

    fn take(&mut self) -> Option<&'a str> {
        let token = self.peek();
        self.next += 1;
        token
    }

    /// Whether the next is one of `words`, which it then is no more.
    fn accept(&mut self, words: &[&str]) -> bool {
        let is_next = self.peek().is_some_and(|word| words.contains(&word));
        self.next += usize::from(is_next);
        is_next
    }

    fn fault(&self, what: String) -> FilterError {
        FilterError {
            column: self.tokens.get(self.next).map_or(self.end, |token| token.column),
            what,
        }
    }

    fn unexpected(&self, expected: &str) -> FilterError {
        self.fault(match self.peek() {
            Some(found) => format!("expected {expected}, found \"{found}\""),
            None => format!("it ends where {expected} is expected"),
        })
    }

    fn expect(&mut self, word: &str) -> Result<(), FilterError> {
        if self.accept(&[word]) {
            Ok(())
        } else {
            Err(self.unexpected(&format!("\"{word}\"")))
        }
    }

    fn expression(&mut self) -> Result<Node, FilterError> {
        let first = self.term()?;
        let mut rest = Vec::new();
        loop {
            let operator = if self.accept(&["and", "&&"]) {
                Operator::And
            } else if self.accept(&["or", "||"]) {
                Operator::Or
            } else {
                break;
            };
            rest.push((operator, self.term()?));
        }
        if rest.is_empty() {
            Ok(first)
        } else {
            Ok(Node::Chain(Box::new(first), rest))
        }
    }

    fn term(&mut self) -> Result<Node, FilterError> {
        if self.depth == MAX_DEPTH {
            return Err(self.fault(format!("parentheses and negations go {MAX_DEPTH} deep at most")));
        }
        self.depth += 1;
        let node = if self.accept(&["not", "!"]) {
            Node::Not(Box::new(self.term()?))
        } else if self.accept(&["("]) {
            let node = self.expression()?;
            self.expect(")")?;
            node
        } else {
            self.primitive()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn primitive(&mut self) -> Result<Node, FilterError> {
        if self.accept(&["inbound"]) {
            return Ok(Node::Direction(Direction::Received));
        }
        if self.accept(&["outbound"]) {
            return Ok(Node::Direction(Direction::Sent));
        }
        if self.accept(&["greater"]) {
            return Ok(Node::Length(self.number(usize::MAX)?..=usize::MAX));
        }
        if self.accept(&["less"]) {
            return Ok(Node::Length(0..=self.number(usize::MAX)?));
        }
        let protocol = self.peek().and_then(Protocol::of);
        self.next += usize::from(protocol.is_some());
        if protocol == Some(Protocol::Number(TCP)) && self.accept(&["["]) {
            return self.flags();
        }
        let end = self.ends()?;
        let kind = self.peek().and_then(Kind::of);
        self.next += usize::from(kind.is_some());
        let qualifiers = match (protocol, end, kind) {
            (_, _, Some(kind)) => Qualifiers {
                protocol,
                end: end.unwrap_or(End::Either),
                kind,
            },
            (_, Some(end), None) => Qualifiers {
                protocol,
                end,
                kind: self.default_kind(),
            },
            (Some(protocol), None, None) => return Ok(protocol.node()),
            (None, None, None) => self.qualifiers_before()?,
        };
        self.last = Some(qualifiers);
        self.identifier(qualifiers)
    }

    /// The qualifiers of an identifier that has none.
    fn qualifiers_before(&self) -> Result<Qualifiers, FilterError> {
        let kind = self.default_kind();
        let is_number = kind != Kind::Host && self.peek().is_some_and(|word| word.parse::<u16>().is_ok());
        match (self.peek(), self.last) {
            (Some(word), last) if kind == Kind::Host && is_address(word) => {
                Ok(last.filter(|last| last.kind == kind).unwrap_or(Qualifiers {
                    protocol: None,
                    end: End::Either,
                    kind,
                }))
            }
            (Some(_), Some(last)) if is_number => Ok(last),
            (Some(word), Some(last)) if last.kind == Kind::Net && is_address(word) => Ok(last),
            _ => Err(self.unexpected("a primitive, as \"host\", \"net\", \"port\" or \"tcp\"")),
        }
    }

    /// The kind of the identifier to come, if it says none: a number's is that of the last one.
    fn default_kind(&self) -> Kind {
        let is_number = self.peek().is_some_and(|word| word.parse::<u16>().is_ok());
        match self.last {
            Some(last) if is_number => last.kind,
            _ if self.peek().is_some_and(|word| word.contains('/')) => Kind::Net,
            _ => Kind::Host,
        }
    }

    /// `src`, `dst`, or both with a word between them.
    fn ends(&mut self) -> Result<Option<End>, FilterError> {
        let first = match self.peek() {
            Some("src") => End::Source,
            Some("dst") => End::Destination,
            _ => return Ok(None),
        };
        self.next += 1;
        let other = if first == End::Source { "dst" } else { "src" };
        let both = match (self.peek(), self.tokens.get(self.next + 1)) {
            (Some("or" | "||"), Some(second)) if second.text == other => End::Either,
            (Some("and" | "&&"), Some(second)) if second.text == other => End::Both,
            _ => return Ok(Some(first)),
        };
        self.next += 2;
        Ok(Some(both))
    }

    fn identifier(&mut self, qualifiers: Qualifiers) -> Result<Node, FilterError> {
        let Qualifiers { protocol, end, kind } = qualifiers;
        let node = match kind {
            Kind::Host => Node::Net(end, IpNet::from(self.host()?).into()),
            Kind::Net => Node::Net(end, self.net()?.into()),
            Kind::Port | Kind::PortRange => {
                let ports = if kind == Kind::Port {
                    let port = self.port()?;
                    port..=port
                } else {
                    self.port_range()?
                };
                return Ok(match protocol {
                    Some(Protocol::Number(number)) => Node::Ports(end, Some(number), ports),
                    Some(version) => Node::chain(Operator::And, vec![version.node(), Node::Ports(end, None, ports)]),
                    None => Node::Ports(end, None, ports),
                });
            }
            Kind::Protocol => {
                let named = self.peek().and_then(Protocol::of);
                match named {
                    Some(Protocol::Number(number)) => {
                        self.next += 1;
                        Node::Protocol(number)
                    }
                    _ => Node::Protocol(self.number(255)? as u8),
                }
            }
        };
        Ok(match protocol {
            Some(protocol) => Node::chain(Operator::And, vec![protocol.node(), node]),
            None => node,
        })
    }

    fn host(&mut self) -> Result<IpAddr, FilterError> {
        let Some(word) = self.peek() else {
            return Err(self.unexpected("an address"));
        };
        let address = word
            .parse()
            .map_err(|_| self.fault(format!("\"{word}\" is no address; names are not resolved")))?;
        self.next += 1;
        Ok(address)
    }

    fn net(&mut self) -> Result<IpNet, FilterError> {
        let Some(word) = self.peek() else {
            return Err(self.unexpected("a prefix"));
        };
        let net: IpNet = match word.parse::<IpAddr>() {
            Ok(address) => address.into(),
            Err(_) => word
                .parse()
                .map_err(|_| self.fault(format!("\"{word}\" is no prefix, as 198.18.0.0/15")))?,
        };
        if net.trunc() != net {
            return Err(self.fault(format!(
                "{word} has bits behind its prefix; did you mean {}?",
                net.trunc()
            )));
        }
        self.next += 1;
        Ok(net)
    }

    fn port(&mut self) -> Result<u16, FilterError> {
        let named = match self.peek() {
            Some("http") => 80,
            Some("https") => 443,
            _ => return Ok(self.number(usize::from(u16::MAX))? as u16),
        };
        self.next += 1;
        Ok(named)
    }

    fn port_range(&mut self) -> Result<core::ops::RangeInclusive<u16>, FilterError> {
        let range = self.peek().and_then(|word| {
            let (first, last) = word.split_once('-')?;
            let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
            (first <= last).then_some(first..=last)
        });
        let Some(range) = range else {
            return Err(self.unexpected("two ports, as 1024-2047"));
        };
        self.next += 1;
        Ok(range)
    }

    fn number(&mut self, max: usize) -> Result<usize, FilterError> {
        let number = self.peek().and_then(|word| match word.strip_prefix("0x") {
            Some(digits) => usize::from_str_radix(digits, 16).ok(),
            None => word.parse().ok(),
        });
        match number {
            Some(number) if number <= max => {
                self.next += 1;
                Ok(number)
            }
            Some(_) => Err(self.unexpected(&format!("a number up to {max}"))),
            None => Err(self.unexpected("a number")),
        }
    }

    /// `tcp[tcpflags]` behind its bracket, a mask if there is one, and what it is compared with.
    fn flags(&mut self) -> Result<Node, FilterError> {
        if !self.accept(&["tcpflags", "13"]) {
            return Err(self.unexpected("\"tcpflags\", the only octet that is understood"));
        }
        self.expect("]")?;
        let mask = if self.accept(&["&"]) { self.bits()? } else { 0xff };
        let equal = match self.peek() {
            Some("=" | "==") => true,
            Some("!=") => false,
            _ => return Err(self.unexpected("\"=\" or \"!=\"")),
        };
        self.next += 1;
        let value = self.bits()?;
        Ok(Node::Flags { mask, value, equal }.of_tcp())
    }

    /// Control bits, by name or number, with "|" between them.
    fn bits(&mut self) -> Result<u8, FilterError> {
        let in_parentheses = self.accept(&["("]);
        let mut bits = 0;
        loop {
            let named = CONTROL_BITS.iter().find(|(name, _)| Some(*name) == self.peek());
            bits |= match named {
                Some(&(_, bit)) => {
                    self.take();
                    bit
                }
                None => self.number(255)? as u8,
            };
            if !self.accept(&["|"]) {
                break;
            }
        }
        if in_parentheses {
            self.expect(")")?;
        }
        Ok(bits)
    }
}

fn is_address(word: &str) -> bool {
    word.parse::<IpAddr>().is_ok() || word.parse::<IpNet>().is_ok()
}
