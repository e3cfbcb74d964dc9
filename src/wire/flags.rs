//! Capabilities that nodes exchange in the distribution handshake.
//!
//! The authority is `kernel/include/dist.hrl` of OTP, not its protocol guide: the guide gives
//! `MANDATORY_25_DIGEST` as bit 36, the code has bit 26. A test compares this table with the
//! header of the installed OTP.
//!
//! Since OTP 25 one bit, [`Flags::MANDATORY_25_DIGEST`], may stand for all flags that OTP 25
//! demands; [`Flags::expanded`] writes it out.

use std::fmt;

/// A set of distribution flags.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u64);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal;)*) => {
        impl Flags {
            $($(#[$doc])* pub const $name: Flags = Flags(1 << $bit);)*

            /// Every single flag with its name in `dist.hrl` (there with the prefix `DFLAG_`).
            pub const ALL: &'static [(&'static str, Flags)] =
                &[$((stringify!($name), Flags::$name)),*];
        }
    };
}

flags! {
    /// The node is visible; hidden nodes do not set it.
    PUBLISHED = 0;
    /// Atom cache of the oldest protocol.
    ATOM_CACHE = 1;
    /// References of several words.
    EXTENDED_REFERENCES = 2;
    /// Monitors across nodes.
    DIST_MONITOR = 3;
    /// A tag of its own for funs.
    FUN_TAGS = 4;
    /// Monitors of registered names across nodes.
    DIST_MONITOR_NAME = 5;
    /// Atom cache between hidden nodes.
    HIDDEN_ATOM_CACHE = 6;
    /// `NEW_FUN_EXT`.
    NEW_FUN_TAGS = 7;
    /// Pids and ports that use all of their bits.
    EXTENDED_PIDS_PORTS = 8;
    /// `EXPORT_EXT`, external funs.
    EXPORT_PTR_TAG = 9;
    /// `BIT_BINARY_EXT`.
    BIT_BINARIES = 10;
    /// `NEW_FLOAT_EXT`.
    NEW_FLOATS = 11;
    /// The I/O protocol with Unicode.
    UNICODE_IO = 12;
    /// Atom cache in the distribution header; implies strict order of all signals.
    DIST_HDR_ATOM_CACHE = 13;
    /// `SMALL_ATOM_EXT`.
    SMALL_ATOM_TAGS = 14;
    /// `ATOM_UTF8_EXT` and `SMALL_ATOM_UTF8_EXT`.
    UTF8_ATOMS = 16;
    /// `MAP_EXT`.
    MAP_TAG = 17;
    /// Creations of 32 bits.
    BIG_CREATION = 18;
    /// Messages that name their sender.
    SEND_SENDER = 19;
    /// Any term as a trace label.
    BIG_SEQTRACE_LABELS = 20;
    /// Exit reasons as the payload of their signal.
    EXIT_PAYLOAD = 22;
    /// Fragmented messages.
    FRAGMENTS = 23;
    /// Handshake version 6.
    HANDSHAKE_23 = 24;
    /// The link protocol with identifiers.
    UNLINK_ID = 25;
    /// Stands for all that OTP 25 demands.
    MANDATORY_25_DIGEST = 26;
    /// Spawn requests.
    SPAWN = 32;
    /// The dialler asks the listener for a name.
    NAME_ME = 33;
    /// `V4_PORT_EXT`, and references and pids to match.
    V4_NC = 34;
    /// Process aliases.
    ALIAS = 35;
    /// Priority messages (OTP 28).
    ALTACT_SIG = 37;
    /// Records as a type of their own (OTP 29).
    NATIVE_RECORDS = 38;
}

impl Flags {
    /// What OTP 25 demands of a peer, `MANDATORY_DFLAGS_25`, and what we demand too.
    pub const MANDATORY: Flags = Flags::EXTENDED_REFERENCES
        .with(Flags::FUN_TAGS)
        .with(Flags::EXTENDED_PIDS_PORTS)
        .with(Flags::NEW_FUN_TAGS)
        .with(Flags::EXPORT_PTR_TAG)
        .with(Flags::BIT_BINARIES)
        .with(Flags::NEW_FLOATS)
        .with(Flags::UTF8_ATOMS)
        .with(Flags::MAP_TAG)
        .with(Flags::BIG_CREATION)
        .with(Flags::HANDSHAKE_23);

    /// What we offer: the mandatory set, its shorthand, and what OTP 26 made mandatory besides.
    ///
    /// Messages do not travel as distribution signals, so no flag of signals is among them; nor
    /// is `PUBLISHED`: to stock nodes we are hidden.
    pub const OURS: Flags = Flags::MANDATORY
        .with(Flags::MANDATORY_25_DIGEST)
        .with(Flags::UNLINK_ID)
        .with(Flags::V4_NC);

    /// What a Rust node that is a citizen of a cluster of stock nodes offers them.
    ///
    /// `PUBLISHED` is not among them: the node is hidden, and `global` and automatic meshing leave
    /// it alone. Nor is what no node uses any longer (`ATOM_CACHE`, `HIDDEN_ATOM_CACHE`).
    pub const STOCK: Flags = Flags::OURS
        // Links and monitors: a monitor of a pid or a name is answered, and its end is seen.
        .with(Flags::DIST_MONITOR)
        .with(Flags::DIST_MONITOR_NAME)
        // What rpc and erpc spawn is answered, if only by an error; and we may spawn there.
        .with(Flags::SPAWN)
        // Replies of gen_server:call go to aliases, so that late ones are dropped.
        .with(Flags::ALIAS)
        // Reasons of any size, in fragments of their own rather than in the control message.
        .with(Flags::EXIT_PAYLOAD)
        // One large message doesn't hold up all others on the connection.
        .with(Flags::FRAGMENTS)
        // The sender of a message is known, for traces and for what we allow.
        .with(Flags::SEND_SENDER)
        // Names of nodes and processes travel once, and the VM needn't look them up. The VM makes
        // no difference between hidden and visible nodes here: `dist.c` creates the cache for
        // this flag alone.
        .with(Flags::DIST_HDR_ATOM_CACHE)
        // Trace tokens are opaque to us, so any label will do.
        .with(Flags::BIG_SEQTRACE_LABELS)
        // An I/O server on our side is asked in the one protocol that is documented.
        .with(Flags::UNICODE_IO)
        // We read Latin-1 atoms as well, though nodes with UTF8_ATOMS don't write them.
        .with(Flags::SMALL_ATOM_TAGS)
        // OTP 28: priority messages, and exits to aliases.
        .with(Flags::ALTACT_SIG)
        // OTP 29: records as a type of their own.
        .with(Flags::NATIVE_RECORDS);

    /// The union of both sets.
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// What is in both sets.
    pub const fn and(self, other: Flags) -> Flags {
        Flags(self.0 & other.0)
    }

    /// What of this set is not in `other`.
    pub const fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }

    /// Whether all of `other` is in this set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set with [`Flags::MANDATORY_25_DIGEST`] written out.
    pub const fn expanded(self) -> Flags {
        if self.contains(Flags::MANDATORY_25_DIGEST) {
            self.with(Flags::MANDATORY)
        } else {
            self
        }
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = *self;
        let mut separator = "";
        for (name, flag) in Flags::ALL {
            if rest.contains(*flag) {
                write!(f, "{separator}{name}")?;
                separator = "|";
                rest = rest.without(*flag);
            }
        }
        if !rest.is_empty() || self.is_empty() {
            write!(f, "{separator}{:#x}", rest.0)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn digest_stands_for_the_mandatory_set() {
        assert!(
            Flags::MANDATORY_25_DIGEST
                .expanded()
                .contains(Flags::MANDATORY)
        );
        assert_eq!(Flags::MAP_TAG.expanded(), Flags::MAP_TAG);
    }

    #[test]
    fn stock_nodes_are_offered_all_that_is_in_use_but_visibility() {
        let everything = Flags::ALL
            .iter()
            .fold(Flags(0), |all, (_, flag)| all.with(*flag));
        // The last one is for nodes that have no name yet.
        let missing = Flags::PUBLISHED
            .with(Flags::ATOM_CACHE)
            .with(Flags::HIDDEN_ATOM_CACHE)
            .with(Flags::NAME_ME);
        assert_eq!(Flags::STOCK, everything.without(missing));
    }

    #[test]
    fn display_names_known_bits_and_shows_the_rest() {
        assert_eq!(
            Flags::MAP_TAG.with(Flags(1 << 60)).to_string(),
            "MAP_TAG|0x1000000000000000"
        );
        assert_eq!(Flags(0).to_string(), "0x0");
    }

    /// `dist.hrl` of the installed OTP, if there is one.
    fn header() -> Option<String> {
        let eval = "io:put_chars(code:lib_dir(kernel)), halt().";
        let output = Command::new("erl")
            .args(["-noshell", "-eval", eval])
            .output()
            .ok()?;
        let kernel = String::from_utf8(output.stdout).ok()?;
        std::fs::read_to_string(format!("{kernel}/include/dist.hrl")).ok()
    }

    /// `16#ff` or `(16#ff bsl 32)`.
    fn value(text: &str) -> Option<u64> {
        let text = text.trim().trim_start_matches('(').trim_end_matches(')');
        let (digits, shift) = text.split_once(" bsl ").unwrap_or((text, "0"));
        let number = u64::from_str_radix(digits.trim().strip_prefix("16#")?, 16).ok()?;
        Some(number << shift.trim().parse::<u32>().ok()?)
    }

    #[test]
    fn table_agrees_with_dist_hrl() {
        let Some(header) = header() else {
            println!("skipped: no dist.hrl, OTP is not installed");
            return;
        };
        let mut compared = 0;
        for line in header.lines() {
            let Some(define) = line.strip_prefix("-define(DFLAG_") else {
                continue;
            };
            let (name, rest) = define.split_once(',').expect("a define has a value");
            let text = rest.rsplit_once(").").expect("a define ends with ).").0;
            match Flags::ALL.iter().find(|(known, _)| *known == name) {
                Some((_, flag)) => {
                    assert_eq!(value(text), Some(flag.0), "{name}");
                    compared += 1;
                }
                None => println!("not in the table: {name} = {text}"),
            }
        }
        assert!(
            compared >= 28,
            "only {compared} flags of the header were recognised"
        );
        let mandatory = header
            .split("-define(MANDATORY_DFLAGS_25,")
            .nth(1)
            .expect("the set");
        let mandatory = mandatory.split(")).").next().expect("the end of the set");
        let set = mandatory
            .split("?DFLAG_")
            .skip(1)
            .fold(Flags(0), |set, word| {
                let name = word.split_whitespace().next().expect("a name");
                set.with(
                    Flags::ALL
                        .iter()
                        .find(|(known, _)| *known == name)
                        .expect(name)
                        .1,
                )
            });
        assert_eq!(set, Flags::MANDATORY);
    }
}
