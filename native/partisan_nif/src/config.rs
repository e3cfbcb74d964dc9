//! The configuration that Erlang hands over, already validated there; see `partisan_config`.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use partisan::connection::io::{self, Liveness};
use partisan::connection::receive::ReceiveLimits;
use partisan::node::overlay::OverlayConfig;
use partisan::node::runtime::Config;
use partisan::overlay::client_server::{self, Tag};
use partisan::overlay::hyparview::XBotConfig;
use partisan::overlay::{MemberChannel, NodeSpec, hyparview, scamp};
use partisan::wire::hello::ChannelSpec;
use partisan::wire::term::{RefFormat, TermLimits};
use rustler::{Atom, Binary, Decoder, Env, LocalPid, NifResult, Term};

use crate::host::Slices;
use crate::vm::Encoding;

/// What `start/1` was called with.
pub(crate) struct Start {
    pub(crate) node: Config,
    pub(crate) encoding: Encoding,
    pub(crate) owner: LocalPid,
    /// Names of the processes that deliver streams; at least one.
    pub(crate) inboxes: Vec<Atom>,
    pub(crate) slices: Slices,
    /// Idle memory for large binaries; 0: none.
    pub(crate) pool_bytes: usize,
}

type ChannelTerm<'a> = (Term<'a>, u16, bool, u8);

/// A key of the map, or the error that names it.
fn get<'a, T: Decoder<'a>>(map: Term<'a>, key: &str) -> Result<T, String> {
    let env = map.get_env();
    let key_atom = Atom::from_str(env, key).map_err(|_| format!("bad key {key}"))?;
    map.map_get(key_atom)
        .and_then(|value| value.decode())
        .map_err(|_| format!("configuration key {key} is missing or has the wrong type"))
}

fn millis(map: Term<'_>, key: &str) -> Result<Duration, String> {
    get(map, key).map(Duration::from_millis)
}

fn bytes(map: Term<'_>, key: &str) -> Result<Vec<u8>, String> {
    get::<Binary<'_>>(map, key).map(|b| b.as_slice().to_vec())
}

pub(crate) fn name(term: Term<'_>) -> Result<Arc<str>, String> {
    crate::encode::atom_text(term.get_env().as_c_arg(), term.as_c_arg())
        .filter(|_| term.is_atom())
        .map(Into::into)
        .ok_or_else(|| "a name must be an atom".to_string())
}

fn channels(terms: Vec<ChannelTerm<'_>>) -> Result<Vec<ChannelSpec>, String> {
    terms
        .into_iter()
        .map(|(channel, parallelism, monotonic, compression)| {
            Ok(ChannelSpec {
                name: name(channel)?,
                parallelism,
                monotonic,
                compression,
            })
        })
        .collect()
}

/// One copy of each name of a policy. There are as many as the user has configured.
fn interned(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock();
    if let Some(known) = names.get(name) {
        return known;
    }
    let kept: &'static str = Box::leak(name.into());
    names.insert(kept);
    kept
}

/// `full_mesh`, `static`, `{scamp, Copies}`, `{steered, Name}`, `{client_server, Tag, Links}`, or the settings of
/// HyParView.
fn overlay(term: Term<'_>) -> Result<OverlayConfig, String> {
    if term.is_atom() {
        return match term.atom_to_string().unwrap_or_default().as_str() {
            "full_mesh" => Ok(OverlayConfig::FullMesh),
            "static" => Ok(OverlayConfig::Static),
            other => Err(format!("there is no overlay {other}")),
        };
    }
    if let Ok((_, copies)) = term.decode::<(Atom, usize)>() {
        return Ok(OverlayConfig::Scamp(scamp::Config {
            copies,
            ..scamp::Config::default()
        }));
    }
    if let Ok((_, name)) = term.decode::<(Atom, &str)>() {
        return Ok(OverlayConfig::Steered(interned(name)));
    }
    if let Ok((_, tag, links)) = term.decode::<(Atom, Term<'_>, usize)>() {
        return Ok(OverlayConfig::ClientServer(client_server::Config {
            tag: match tag.atom_to_string().unwrap_or_default().as_str() {
                "server" => Tag::Server,
                "client" => Tag::Client,
                _ => Tag::Undefined,
            },
            links,
            ..client_server::Config::default()
        }));
    }
    Ok(OverlayConfig::HyParView(hyparview::Config {
        active: get(term, "active")?,
        passive: get(term, "passive")?,
        active_walk: get(term, "active_walk")?,
        passive_walk: get(term, "passive_walk")?,
        active_shuffled: get(term, "active_shuffled")?,
        passive_shuffled: get(term, "passive_shuffled")?,
        shuffle_interval: millis(term, "shuffle_interval")?,
        xbot: match get::<Term<'_>>(term, "xbot")?.is_atom() {
            true => None,
            false => Some(XBotConfig {
                interval: millis(term, "xbot")?,
                ..XBotConfig::default()
            }),
        },
        ..hyparview::Config::default()
    }))
}

impl Start {
    /// Decodes the map.
    pub(crate) fn decode(map: Term<'_>) -> Result<Self, String> {
        let mut node = Config::new(name(get(map, "name")?)?);
        node.creation = get(map, "creation")?;
        node.cookie = bytes(map, "cookie")?;
        let cookies: HashMap<Atom, Binary<'_>> = get(map, "cookies")?;
        for (peer, cookie) in cookies {
            let peer = name(peer.to_term(map.get_env()))?;
            node.cookies
                .insert(peer.to_string(), cookie.as_slice().to_vec());
        }
        for (ip, port) in get::<Vec<(Binary<'_>, u16)>>(map, "listen_addrs")? {
            let text = String::from_utf8_lossy(ip.as_slice()).into_owned();
            let ip: IpAddr = text
                .parse()
                .map_err(|_| format!("listen_addrs: {text:?} is no IP address"))?;
            node.listen.push(SocketAddr::new(ip, port));
        }
        node.channels = channels(get(map, "channels")?)?;
        node.connection_interval = millis(map, "connection_interval")?;
        node.connection_jitter = millis(map, "connection_jitter")?;
        node.periodic_interval = millis(map, "periodic_interval")?;
        node.fanout = get(map, "fanout")?;
        node.overlay = overlay(get(map, "overlay")?)?;
        let others: Vec<Term<'_>> = get(map, "other_overlays")?;
        let others: Result<_, _> = others.into_iter().map(overlay).collect();
        node.other_overlays = others?;
        node.switch_overlap = millis(map, "switch_overlap")?;
        node.relay_ttl = get(map, "relay_ttl")?;
        node.relay_direct = get(map, "relay_direct")?;
        node.delivery.acked.bytes = get(map, "ack_bytes")?;
        node.delivery.acked.retransmit = millis(map, "retransmit_interval")?;
        node.delivery.causal.patience = millis(map, "causal_patience")?;
        node.broadcast.announce_delay = millis(map, "announce_delay")?;
        let data_dir: Term<'_> = get(map, "data_dir")?;
        node.data_dir = data_dir
            .decode::<Binary<'_>>()
            .ok()
            .map(|dir| PathBuf::from(String::from_utf8_lossy(dir.as_slice()).into_owned()));
        let (enabled, idle, timeout, max_attempts) = get::<(bool, u64, u64, u32)>(map, "ping")?;
        // Mailboxes of a VM are never full.
        node.bundles = true;
        node.io = io::Config {
            io_threads: get(map, "io_threads")?,
            bulk_threads: get(map, "bulk_threads")?,
            queue_bytes: get(map, "queue_bytes")?,
            node_queue_bytes: get(map, "node_queue_bytes")?,
            bundle_bytes: get(map, "bundle_bytes")?,
            direct_write: get::<Option<u64>>(map, "direct_write_gap")?.map(Duration::from_micros),
            fragment_bytes: get(map, "fragment_bytes")?,
            fragment_bytes_alone: get(map, "fragment_bytes_alone")?,
            send_buffer: get(map, "send_buffer")?,
            receive_buffer: get(map, "receive_buffer")?,
            unsent_bytes: get(map, "unsent_bytes")?,
            bulk_nice: get(map, "bulk_nice")?,
            spin: Duration::from_micros(get(map, "io_spin")?),
            liveness: Liveness {
                enabled,
                idle_timeout: Duration::from_millis(idle),
                timeout: Duration::from_millis(timeout),
                max_attempts,
            },
            limits: ReceiveLimits {
                term: TermLimits {
                    bytes: get(map, "max_term_bytes")?,
                    heap_bytes: get(map, "max_term_heap")?,
                    ..TermLimits::default()
                },
                message_bytes: get(map, "max_message_bytes")?,
                new_atoms: get(map, "max_new_atoms")?,
            },
        };
        let format: Term<'_> = get(map, "remote_ref_format")?;
        let encoding = Encoding {
            pids: get(map, "pid_encoding")?,
            refs: get(map, "ref_encoding")?,
            format: match format.atom_to_string().unwrap_or_default().as_str() {
                "uri" => RefFormat::Uri,
                "tuple" => RefFormat::Tuple,
                _ => RefFormat::ImproperList,
            },
            uri_padding: get(map, "uri_padding")?,
        };
        Ok(Self {
            node,
            encoding,
            owner: get(map, "owner")?,
            inboxes: get(map, "inboxes")?,
            slices: Slices {
                ordinary: Duration::from_micros(get(map, "io_slice")?),
                bulk: Duration::from_micros(get(map, "bulk_slice")?),
            },
            pool_bytes: get(map, "receive_pool_bytes")?,
        })
    }
}

/// `{Name, [{Ip, Port}], [{Channel, Parallelism, Monotonic, Compression}]}` to a specification.
pub(crate) fn decode_spec(term: Term<'_>) -> Result<NodeSpec, String> {
    type SpecTerm<'a> = (Term<'a>, Vec<(Term<'a>, u16)>, Vec<ChannelTerm<'a>>);
    let wrong = |_| "a node specification has the wrong form".to_string();
    let (node, addrs, specs) = term.decode::<SpecTerm<'_>>().map_err(wrong)?;
    let mut listen_addrs = Vec::with_capacity(addrs.len());
    for (ip, port) in addrs {
        listen_addrs.push(SocketAddr::new(decode_ip(ip)?, port));
    }
    let channels = channels(specs)?
        .into_iter()
        .map(|c| MemberChannel {
            name: c.name,
            parallelism: c.parallelism,
            monotonic: c.monotonic,
            compression: c.compression,
        })
        .collect();
    Ok(NodeSpec {
        name: name(node)?,
        listen_addrs,
        channels,
    })
}

fn decode_ip(term: Term<'_>) -> Result<IpAddr, String> {
    if let Ok((a, b, c, d)) = term.decode::<(u8, u8, u8, u8)>() {
        return Ok(IpAddr::from([a, b, c, d]));
    }
    rustler::types::tuple::get_tuple(term)
        .ok()
        .and_then(|parts| {
            let words: Vec<u16> = parts
                .iter()
                .map(|p| p.decode())
                .collect::<NifResult<_>>()
                .ok()?;
            <[u16; 8]>::try_from(words).ok()
        })
        .map(IpAddr::from)
        .ok_or_else(|| "an address must be an IPv4 or IPv6 tuple".to_string())
}

/// The reverse of [`decode_spec`].
pub(crate) fn encode_spec<'a>(env: Env<'a>, spec: &NodeSpec) -> Term<'a> {
    use rustler::Encoder;
    let atom = |text: &str| make_atom(env, text);
    let addrs: Vec<Term<'a>> = spec
        .listen_addrs
        .iter()
        .map(|addr| (encode_ip(env, addr.ip()), addr.port()).encode(env))
        .collect();
    let channels: Vec<Term<'a>> = spec
        .channels
        .iter()
        .map(|c| (atom(&c.name), c.parallelism, c.monotonic, c.compression).encode(env))
        .collect();
    (atom(&spec.name), addrs, channels).encode(env)
}

/// An IP address as Erlang's tuple.
pub(crate) fn encode_ip(env: Env<'_>, ip: IpAddr) -> Term<'_> {
    use rustler::Encoder;
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            (a, b, c, d).encode(env)
        }
        IpAddr::V6(ip) => {
            let words: Vec<Term<'_>> = ip.segments().iter().map(|w| w.encode(env)).collect();
            rustler::types::tuple::make_tuple(env, &words)
        }
    }
}

/// An atom of any text; `undefined` if it is too long to be one.
pub(crate) fn make_atom<'a>(env: Env<'a>, text: &str) -> Term<'a> {
    use rustler::Encoder;
    // Latin-1 is all that NIF 2.16 makes; other names come from the VM's own decoder.
    if text.is_ascii() {
        return Atom::from_str(env, text).map_or_else(
            |_| rustler::types::atom::undefined().encode(env),
            |a| a.encode(env),
        );
    }
    let mut bytes = vec![131, 118];
    bytes.extend_from_slice(&(text.len() as u16).to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
    env.binary_to_term(&bytes)
        .or_else(|| {
            // SAFETY: the bytes are one well-formed atom.
            unsafe { env.binary_to_term_trusted(&bytes) }
        })
        .map_or_else(
            || rustler::types::atom::undefined().encode(env),
            |(term, _)| term,
        )
}
