//! Typical messages.

use bytes::Bytes;
use partisan::wire::identity::Identity;
use partisan::wire::term::{Form, Inbound, Outbound, Term};
use partisan::{Pid, Reference, Value};

/// The VM's own name, which the wire replaces.
const VM: &str = "vm@10.0.0.1";
/// The name on the wire.
const WIRE: &str = "node@10.0.0.1";
const CREATION: u32 = 1_700_000_000;

/// A message, by name.
#[derive(Clone)]
pub struct Sample {
    /// Its name in tables.
    pub name: &'static str,
    /// What it means.
    pub value: Value,
    /// Its encoding; binaries of 16 KiB and more stand beside it.
    pub term: Term,
}

impl Sample {
    fn new(name: &'static str, value: Value) -> Self {
        let term = value.encode().expect("a valid term");
        Self { name, value, term }
    }

    /// Encoded, without large binaries.
    pub fn bytes(&self) -> &Bytes {
        self.term.skeleton()
    }

    /// Whether large binaries are left out.
    pub fn form(&self) -> Form {
        self.term.form()
    }
}

impl std::fmt::Display for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

fn numbered(bytes: usize) -> Value {
    Value::tuple(vec![
        Value::atom("msg"),
        Value::from(1_234_567),
        Value::binary(vec![b'x'; bytes]),
    ])
}

/// `{'$gen_call', {Pid, [alias | Ref]}, #{...}}`
fn call() -> Value {
    let pid = Value::Pid(Pid {
        node: VM.into(),
        id: 1234,
        serial: 5,
        creation: CREATION,
    });
    let alias = Value::from(Reference {
        node: VM.into(),
        creation: CREATION,
        words: [1, 2, 3].into(),
    });
    let tag = Value::ImproperList(vec![Value::atom("alias")], Box::new(alias));
    let pair = |key: &str, value| (Value::atom(key), value);
    let request = Value::Map(vec![
        pair("op", Value::atom("update")),
        pair("key", Value::binary(&b"user:4711"[..])),
        pair("count", Value::from(42)),
        pair("ratio", Value::Float(0.75)),
    ]);
    Value::tuple(vec![
        Value::atom("$gen_call"),
        Value::tuple(vec![pid, tag]),
        request,
    ])
}

/// `{msg, I, 64 B}`
pub fn small() -> Sample {
    Sample::new("msg_64B", numbered(64))
}

/// `{msg, I, 1 KB}`
pub fn kilobyte() -> Sample {
    Sample::new("msg_1KB", numbered(1024))
}

/// A call of a `gen_server`.
pub fn gen_call() -> Sample {
    Sample::new("gen_call", call())
}

/// A list of 101 integers.
pub fn ints() -> Sample {
    let ints: Vec<Value> = (0..101).map(|n| Value::from(n * 997)).collect();
    Sample::new("ints_101", Value::list(ints))
}

/// `{msg, I, 512 KB}`, the binary out of band.
pub fn elided() -> Sample {
    Sample::new("elided_512KB", numbered(512 << 10))
}

/// All of them.
pub fn all() -> [Sample; 5] {
    [small(), kilobyte(), gen_call(), ints(), elided()]
}

/// From the VM to the wire, pids and references left as they are.
pub fn outbound() -> Outbound {
    Outbound {
        own: vec![Identity::new(VM, CREATION)],
        wire: Identity::new(WIRE, CREATION),
        pids: None,
        refs: None,
        uri_padding: false,
    }
}

/// From the wire to the VM.
pub fn inbound() -> Inbound {
    Inbound {
        wire: Identity::new(WIRE, CREATION),
        local: Identity::new(VM, CREATION),
    }
}
