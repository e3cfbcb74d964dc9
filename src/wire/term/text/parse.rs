//! From text to a value.
//!
//! The parser is a recursive descent over characters. Its recursion ends at the depth that terms
//! may have, and what it allocates grows with the text.

use std::collections::HashMap;
use std::str::FromStr;

use num_bigint::BigUint;
use num_bigint::{BigInt, Sign};

use super::{RESERVED, TextError, begins_atom, within_atom};
use crate::limits::{MAX_ATOM_CHARS, MAX_TERM_DEPTH, MAX_TEXT_DIGITS, MAX_TEXT_SEGMENT_BITS};
use crate::wire::term::{Atom, Opaque, Value};

const A_TERM: &str = "a term";

impl FromStr for Value {
    type Err = TextError;

    /// Reads one term in Erlang's syntax, with or without a dot at the end.
    fn from_str(text: &str) -> Result<Self, TextError> {
        let mut parser = Parser { text, at: 0 };
        let value = parser.term(0)?;
        parser.skip_blank();
        let ended = parser.take('.');
        parser.skip_blank();
        if parser.peek().is_none() {
            return Ok(value);
        }
        Err(parser.error(if ended {
            "nothing after the dot"
        } else {
            "the end of the term"
        }))
    }
}

impl Value {
    /// The list `[Element, … | Tail]`. It is an improper one unless the tail is a list.
    #[must_use]
    pub fn list_with_tail(elements: impl Into<Vec<Value>>, tail: impl Into<Value>) -> Self {
        let mut elements = elements.into();
        match tail.into() {
            tail if elements.is_empty() => tail,
            Value::List(more) => {
                elements.extend(more);
                Value::List(elements)
            }
            Value::ImproperList(more, tail) => {
                elements.extend(more);
                Value::ImproperList(elements, tail)
            }
            tail => Value::ImproperList(elements, Box::new(tail)),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.at += character.len_utf8();
        Some(character)
    }

    fn take(&mut self, wanted: char) -> bool {
        self.take_str(wanted.encode_utf8(&mut [0; 4]))
    }

    fn take_str(&mut self, wanted: &str) -> bool {
        let found = self.rest().starts_with(wanted);
        if found {
            self.at += wanted.len();
        }
        found
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or("")
    }

    /// Skips white space, control characters too, as Erlang does, and comments.
    fn skip_blank(&mut self) {
        loop {
            self.take_while(|c| matches!(c, '\0'..=' ' | '\u{80}'..='\u{a0}'));
            if self.peek() != Some('%') {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    /// Whether the next token is this one, which is then taken.
    fn token(&mut self, wanted: &str) -> bool {
        self.skip_blank();
        self.take_str(wanted)
    }

    fn expect(&mut self, wanted: &str, expected: &'static str) -> Result<(), TextError> {
        if self.token(wanted) {
            Ok(())
        } else {
            Err(self.error(expected))
        }
    }

    /// The error that something else stands here.
    fn error(&self, expected: &'static str) -> TextError {
        let found = match self.peek() {
            None => "the end of the text".into(),
            Some(c) if within_atom(c) => {
                let word = self.rest().chars().take(40).take_while(|c| within_atom(*c));
                format!("`{}`", word.collect::<String>())
            }
            Some(c) => format!("`{}`", c.escape_debug()),
        };
        self.error_at(self.at, found, expected)
    }

    fn error_at(&self, at: usize, found: impl Into<String>, expected: &'static str) -> TextError {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.rsplit('\n').next().unwrap_or("");
        TextError {
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
            found: found.into(),
            expected,
        }
    }

    fn term(&mut self, depth: u32) -> Result<Value, TextError> {
        self.skip_blank();
        if depth > MAX_TERM_DEPTH {
            let expected = "a term that is not nested deeper than MAX_TERM_DEPTH (1024)";
            return Err(self.error_at(self.at, "a deeper one", expected));
        }
        match self.peek() {
            Some('{') => {
                self.next();
                self.elements("}", "`,` or `}`", depth).map(Value::Tuple)
            }
            Some('[') => self.list(depth),
            Some('#') => self.map(depth),
            Some('<') => self.bits(),
            Some('"') => Ok(Value::List(
                self.strings()?
                    .chars()
                    .map(|c| Value::Integer(u32::from(c).into()))
                    .collect(),
            )),
            Some('$') => self.character(),
            Some('0'..='9' | '-' | '+') => self.number(),
            Some('\'') => self.atom().map(Value::Atom),
            Some(c) if begins_atom(c) => self.word(),
            Some(c) if c == '_' || within_atom(c) => Err(self.error(
                "a term (variables have no value here; an atom that begins with a capital letter needs quotes)",
            )),
            _ => Err(self.error(A_TERM)),
        }
    }

    /// Elements up to the closing token.
    fn elements(
        &mut self,
        close: &str,
        expected: &'static str,
        depth: u32,
    ) -> Result<Vec<Value>, TextError> {
        let mut elements = Vec::new();
        if self.token(close) {
            return Ok(elements);
        }
        loop {
            elements.push(self.term(depth + 1)?);
            if self.token(close) {
                return Ok(elements);
            }
            self.expect(",", expected)?;
        }
    }

    fn list(&mut self, depth: u32) -> Result<Value, TextError> {
        self.next();
        let mut elements = Vec::new();
        if self.token("]") {
            return Ok(Value::List(elements));
        }
        loop {
            elements.push(self.term(depth + 1)?);
            if self.token("]") {
                return Ok(Value::List(elements));
            }
            if self.token("|") {
                let tail = self.term(depth + 1)?;
                self.expect("]", "`]` after the tail of the list")?;
                return Ok(Value::list_with_tail(elements, tail));
            }
            self.expect(",", "`,`, `|` or `]`")?;
        }
    }

    fn map(&mut self, depth: u32) -> Result<Value, TextError> {
        let start = self.at;
        self.next();
        if !self.token("{") {
            let name = self.take_while(|c| within_atom(c) || c == '<');
            let expected = "`#{` (records have no names here, and ports, references and funs \
                            cannot be written as text)";
            return Err(self.error_at(start, format!("`#{name}`"), expected));
        }
        let mut pairs: Vec<(Value, Value)> = Vec::new();
        let mut known: HashMap<Vec<u8>, usize> = HashMap::new();
        if self.token("}") {
            return Ok(Value::Map(pairs));
        }
        loop {
            let at = self.at;
            let key = self.term(depth + 1)?;
            self.expect("=>", "`=>`")?;
            let value = self.term(depth + 1)?;
            // Values have no hash; their encodings have.
            let Ok(encoded) = key.encode() else {
                return Err(self.error_at(at, "one that is too large", "a key"));
            };
            let place = known.entry(encoded.to_external()).or_insert(pairs.len());
            match pairs.get_mut(*place) {
                Some(pair) => pair.1 = value,
                None => pairs.push((key, value)),
            }
            if self.token("}") {
                return Ok(Value::Map(pairs));
            }
            self.expect(",", "`,` or `}`")?;
        }
    }

    /// A plain atom or `fun Module:Function/Arity`.
    fn word(&mut self) -> Result<Value, TextError> {
        let start = self.at;
        let word = self.take_while(within_atom);
        if word == "fun" {
            return self.fun();
        }
        if RESERVED.contains(&word) {
            let expected = "a term (the word is reserved; as an atom it needs quotes)";
            return Err(self.error_at(start, format!("`{word}`"), expected));
        }
        self.checked(start, word).map(Value::Atom)
    }

    fn fun(&mut self) -> Result<Value, TextError> {
        let expected = "`Module:Function/Arity` after `fun`";
        self.skip_blank();
        let start = self.at;
        // Reserved words pass here without quotes, since OTP writes them so.
        let module = self.atom_or(expected)?;
        self.expect(":", expected)?;
        self.skip_blank();
        let function = self.atom_or(expected)?;
        self.expect("/", expected)?;
        self.skip_blank();
        let at = self.at;
        let arity = self.take_while(|c| c.is_ascii_digit());
        let Ok(arity) = arity.parse() else {
            self.at = at;
            return Err(self.error("an arity of 0 to 255"));
        };
        Opaque::export(module.as_str(), function.as_str(), arity)
            .map(Value::Fun)
            .map_err(|e| self.error_at(start, e.to_string(), expected))
    }

    fn atom_or(&mut self, expected: &'static str) -> Result<Atom, TextError> {
        match self.peek() {
            Some(c) if c == '\'' || begins_atom(c) => self.atom(),
            _ => Err(self.error(expected)),
        }
    }

    fn atom(&mut self) -> Result<Atom, TextError> {
        let start = self.at;
        if self.peek() == Some('\'') {
            let text = self.quoted('\'')?;
            self.checked(start, &text)
        } else {
            let text = self.take_while(within_atom);
            self.checked(start, text)
        }
    }

    fn checked(&self, start: usize, text: &str) -> Result<Atom, TextError> {
        if text.chars().count() > MAX_ATOM_CHARS {
            return Err(self.error_at(start, "a longer one", "an atom of at most 255 characters"));
        }
        Ok(Atom::new(text))
    }

    /// One string or several in a row, which are one.
    fn strings(&mut self) -> Result<String, TextError> {
        let mut text = self.quoted('"')?;
        loop {
            let end = self.at;
            self.skip_blank();
            if self.peek() != Some('"') {
                self.at = end;
                return Ok(text);
            }
            text.push_str(&self.quoted('"')?);
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, TextError> {
        let start = self.at;
        self.next();
        let mut text = String::new();
        loop {
            text.push_str(self.take_while(|c| c != quote && c != '\\'));
            if self.take(quote) {
                return Ok(text);
            }
            if self.peek().is_none() {
                let found = "none up to the end of the text";
                let expected = "a quote that ends what begins here";
                return Err(self.error_at(start, found, expected));
            }
            text.push(self.escape()?);
        }
    }

    /// A character behind a backslash.
    fn escape(&mut self) -> Result<char, TextError> {
        let start = self.at;
        self.next();
        let Some(character) = self.next() else {
            return Err(self.error("a character behind the backslash"));
        };
        let code = match character {
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'v' => return Ok('\x0b'),
            'b' => return Ok('\x08'),
            'f' => return Ok('\x0c'),
            'e' => return Ok('\x1b'),
            's' => return Ok(' '),
            'd' => return Ok('\x7f'),
            '0'..='7' => {
                let digits = self.digits_from(self.at - 1, 8, 3);
                u32::from_str_radix(digits, 8).ok()
            }
            'x' if self.take('{') => {
                let digits = self.take_while(|c| c.is_ascii_hexdigit());
                if !self.take('}') {
                    return Err(self.error("hexadecimal digits and `}`"));
                }
                u32::from_str_radix(digits, 16).ok()
            }
            'x' => {
                let digits = self.digits_from(self.at, 16, 2);
                (digits.len() == 2)
                    .then(|| u32::from_str_radix(digits, 16).ok())
                    .flatten()
            }
            '^' => match self.next() {
                Some(c @ '@'..='_') => Some(u32::from(c) & 31),
                Some(c @ 'a'..='z') => Some(u32::from(c) & 31),
                _ => None,
            },
            other => return Ok(other),
        };
        code.and_then(char::from_u32).ok_or_else(|| {
            let found = self.text.get(start..self.at).unwrap_or_default();
            self.error_at(
                start,
                format!("`{found}`"),
                "an escape that means a character",
            )
        })
    }

    fn digits_from(&mut self, start: usize, base: u32, most: usize) -> &'a str {
        self.at = start;
        while self.at - start < most && self.peek().is_some_and(|c| c.is_digit(base)) {
            self.at += 1;
        }
        self.text.get(start..self.at).unwrap_or("")
    }

    fn character(&mut self) -> Result<Value, TextError> {
        self.next();
        let code = match self.peek() {
            Some('\\') => self.escape()?,
            Some(character) => {
                self.next();
                character
            }
            None => return Err(self.error("a character behind the `$`")),
        };
        Ok(Value::Integer(u32::from(code).into()))
    }

    fn number(&mut self) -> Result<Value, TextError> {
        let negative = self.take('-');
        if negative || self.take('+') {
            self.skip_blank();
        }
        let number = match self.peek() {
            Some('$') => self.character()?,
            Some('0'..='9') => self.unsigned()?,
            _ => return Err(self.error("a number behind the sign")),
        };
        Ok(match number {
            number if !negative => number,
            Value::Float(number) => Value::Float(-number),
            Value::Integer(number) => Value::integer(-BigInt::from(number)),
            Value::BigInteger(number) => Value::integer(-number),
            other => other,
        })
    }

    /// Digits, single underscores between them.
    fn digits(&mut self, base: u32) -> Result<String, TextError> {
        let start = self.at;
        let mut digits = String::new();
        loop {
            let more = self.take_while(|c| c.is_digit(base));
            digits.push_str(more);
            let rest = self.rest().strip_prefix('_');
            let goes_on = rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_digit(base)));
            if more.is_empty() || !goes_on {
                break;
            }
            self.at += 1;
        }
        if digits.is_empty() {
            return Err(self.error("digits of the base"));
        }
        if digits.len() > MAX_TEXT_DIGITS {
            let expected = "an integer of at most MAX_TEXT_DIGITS (100000) digits";
            return Err(self.error_at(start, format!("{} digits", digits.len()), expected));
        }
        Ok(digits)
    }

    fn unsigned(&mut self) -> Result<Value, TextError> {
        let start = self.at;
        let digits = self.digits(10)?;
        let behind = |parser: &Self, at: usize| parser.rest().chars().nth(at);
        let fraction =
            self.peek() == Some('.') && behind(self, 1).is_some_and(|c| c.is_ascii_digit());
        if fraction {
            return self.float(start, digits);
        }
        let (digits, base) = if self.take('#') {
            let base = digits.parse().ok().filter(|base| (2..=36).contains(base));
            let Some(base) = base else {
                return Err(self.error_at(start, format!("`{digits}`"), "a base of 2 to 36"));
            };
            (self.digits(base)?, base)
        } else {
            (digits, 10)
        };
        // Erlang would begin another token here, and no term has two in a row.
        if self.peek().is_some_and(within_atom) {
            return Err(self.error("the end of the number"));
        }
        let number = BigUint::parse_bytes(digits.as_bytes(), base).unwrap_or_default();
        Ok(Value::integer(BigInt::from_biguint(Sign::Plus, number)))
    }

    fn float(&mut self, start: usize, mut text: String) -> Result<Value, TextError> {
        self.next();
        text.push('.');
        text.push_str(&self.digits(10)?);
        if self.take('e') || self.take('E') {
            text.push('e');
            if self.take('-') {
                text.push('-');
            } else {
                self.take('+');
            }
            text.push_str(&self.digits(10)?);
        }
        if self.peek().is_some_and(within_atom) {
            return Err(self.error("the end of the number"));
        }
        match text.parse() {
            Ok(number) if f64::is_finite(number) => Ok(Value::Float(number)),
            _ => Err(self.error_at(start, "a greater one", "a float that fits into 64 bits")),
        }
    }

    fn bits(&mut self) -> Result<Value, TextError> {
        if !self.take_str("<<") {
            return Err(self.error("`<<` or another term (pids cannot be written as text)"));
        }
        let mut bits = Bits::default();
        if self.token(">>") {
            return Ok(bits.value());
        }
        loop {
            self.segment(&mut bits)?;
            if self.token(">>") {
                return Ok(bits.value());
            }
            self.expect(",", "`,` or `>>`")?;
        }
    }

    /// An integer or a string with size and type.
    fn segment(&mut self, bits: &mut Bits) -> Result<(), TextError> {
        self.skip_blank();
        let start = self.at;
        let numbers: Vec<BigInt> = match self.peek() {
            Some('"') => self
                .strings()?
                .chars()
                .map(|c| u32::from(c).into())
                .collect(),
            Some('$') => vec![as_integer(self.character()?)],
            Some('0'..='9' | '-' | '+') => match self.number()? {
                Value::Float(_) => {
                    return Err(self.error_at(start, "a float", "an integer or a string"));
                }
                number => vec![as_integer(number)],
            },
            _ => return Err(self.error("an integer or a string")),
        };
        let mut size = None;
        if self.token(":") {
            self.skip_blank();
            let at = self.at;
            let number = self.digits(10)?;
            size = number
                .parse()
                .ok()
                .filter(|bits| *bits <= MAX_TEXT_SEGMENT_BITS);
            if size.is_none() {
                let expected = "a size of at most MAX_TEXT_SEGMENT_BITS (65536)";
                return Err(self.error_at(at, format!("`{number}`"), expected));
            }
        }
        let mut utf8 = false;
        if self.token("/") {
            self.skip_blank();
            let at = self.at;
            match self.take_while(within_atom) {
                "utf8" if size.is_none() => utf8 = true,
                "integer" => {}
                other => {
                    let expected = "the type `utf8`, without a size, or `integer`";
                    return Err(self.error_at(at, format!("`{other}`"), expected));
                }
            }
        }
        for number in numbers {
            if !utf8 {
                bits.push(&number, size.unwrap_or(8));
                continue;
            }
            let Some(character) = u32::try_from(number).ok().and_then(char::from_u32) else {
                return Err(self.error_at(start, "another number", "the code of a character"));
            };
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                bits.push(&byte.into(), 8);
            }
        }
        Ok(())
    }
}

fn as_integer(value: Value) -> BigInt {
    match value {
        Value::Integer(number) => number.into(),
        Value::BigInteger(number) => number,
        _ => BigInt::ZERO,
    }
}

/// A bitstring under construction.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    /// Bits used in the last byte, 0 when it is full.
    used: u8,
}

impl Bits {
    /// Appends the low `size` bits of a number in two's complement.
    fn push(&mut self, number: &BigInt, size: u64) {
        if self.used == 0 && size == 8 {
            // What nearly all are.
            let mask = BigInt::from(0xff);
            self.bytes.push(u8::try_from(number & mask).unwrap_or(0));
            return;
        }
        for at in (0..size).rev() {
            if self.used == 0 {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= u8::from(number.bit(at)) << (7 - self.used);
            }
            self.used = (self.used + 1) % 8;
        }
    }

    fn value(self) -> Value {
        let bytes = self.bytes;
        match self.used {
            0 => Value::binary(bytes),
            last_bits => Value::Bits { bytes, last_bits },
        }
    }
}
